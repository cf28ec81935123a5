//! The hand-off of batches between threads, under thousands of schedules: the library's own file, on the
//! locks of `shuttle`, which chooses who runs at each of them and finds who waits for ever.

#[path = "../../src/io/parallel/line.rs"]
#[allow(dead_code, unreachable_pub, reason = "the library's file as it is")]
mod line;

/// What `line` takes its locks from.
mod sync {
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
}

use crate::support::child::long;
use crate::support::{quiet_on_purpose, say};
use line::{Line, More, Steps};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use shuttle::thread;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Numbers, from 0 to `total`, and what goes wrong with them.
struct Numbers {
    total: u64,
    trouble: Trouble,
    reading: AtomicBool,
    writing: AtomicBool,
    working: AtomicUsize,
    /// A rule was broken: a panic that says so may be taken for one on purpose.
    broken: AtomicBool,
    /// The most threads that worked at once.
    most: Arc<std::sync::atomic::AtomicUsize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// The source says at this number that it failed, which is then the last.
    Source(u64),
    /// The work on this number fails.
    Work(u64),
    /// The work on this number panics.
    Panic(u64),
    /// The source panics when it is to give this number.
    SourcePanic(u64),
    /// The sink refuses this number.
    Sink(u64),
    /// The sink panics over this number.
    SinkPanic(u64),
}

#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    number: Option<u64>,
    worked: bool,
    error: Option<&'static str>,
    last: bool,
}

impl Numbers {
    fn require(&self, holds: bool, rule: &str) {
        if !holds {
            self.broken.store(true, Ordering::SeqCst);
            panic!("{rule}");
        }
    }
}

impl Steps for Numbers {
    type Source = u64;
    type Batch = Batch;
    type Sink = Vec<u64>;
    type Error = &'static str;

    fn read(&self, source: &mut u64, batch: &mut Batch) -> More {
        self.require(!self.reading.swap(true, Ordering::SeqCst), "two read at once, or one after a panic");
        thread::yield_now();
        let number = *source;
        if self.trouble == Trouble::SourcePanic(number) {
            panic!("on purpose");
        }
        *source += 1;
        *batch = Batch { number: Some(number), last: number + 1 == self.total, ..Batch::default() };
        if self.trouble == Trouble::Source(number) {
            (batch.error, batch.last) = (Some("source"), true);
        }
        assert!(self.reading.swap(false, Ordering::SeqCst));
        if batch.last { More::No } else { More::Yes }
    }

    fn work(&self, batch: &mut Batch) {
        let working = self.working.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(working, std::sync::atomic::Ordering::SeqCst);
        thread::yield_now();
        self.working.fetch_sub(1, Ordering::SeqCst);
        match self.trouble {
            Trouble::Panic(number) if batch.number == Some(number) => panic!("on purpose"),
            Trouble::Work(number) if batch.number == Some(number) => batch.error = Some("work"),
            _ => {}
        }
        batch.worked = true;
    }

    fn write(&self, sink: &mut Vec<u64>, batch: &mut Batch) -> ControlFlow<Result<(), &'static str>> {
        self.require(!self.writing.swap(true, Ordering::SeqCst), "two write at once, or one after the end");
        thread::yield_now();
        self.require(batch.worked, "written before it was worked on");
        let number = batch.number.unwrap();
        self.require(number == sink.len() as u64, "out of order");
        if let Some(error) = batch.error {
            return ControlFlow::Break(Err(error));
        }
        match self.trouble {
            Trouble::Sink(at) if at == number => return ControlFlow::Break(Err("sink")),
            Trouble::SinkPanic(at) if at == number => panic!("on purpose"),
            _ => {}
        }
        sink.push(number);
        assert!(self.writing.swap(false, Ordering::SeqCst));
        if batch.last { ControlFlow::Break(Ok(())) } else { ControlFlow::Continue(()) }
    }
}

/// One run: so many threads and batches. All threads end, with the one right outcome.
fn run(total: u64, threads: usize, batches: usize, trouble: Trouble, most: &Arc<std::sync::atomic::AtomicUsize>) {
    let steps = Arc::new(Numbers {
        total,
        trouble,
        reading: AtomicBool::new(false),
        writing: AtomicBool::new(false),
        working: AtomicUsize::new(0),
        broken: AtomicBool::new(false),
        most: Arc::clone(most),
    });
    let line = Arc::new(Line::<Numbers>::new(0, Vec::new(), vec![Batch::default(); batches]));
    let running: Vec<_> = (0..threads)
        .map(|_| {
            let (line, steps) = (Arc::clone(&line), Arc::clone(&steps));
            thread::spawn(move || {
                loop {
                    // As the library does it.
                    match catch_unwind(AssertUnwindSafe(|| line.step(&steps))) {
                        Ok(true) => {}
                        Ok(false) => return,
                        Err(_) => {
                            line.fail("panic");
                            return;
                        }
                    }
                }
            })
        })
        .collect();
    for thread in running {
        thread.join().unwrap();
    }
    assert!(!steps.broken.load(Ordering::SeqCst), "a rule was broken");
    let line = Arc::try_unwrap(line).unwrap_or_else(|_| panic!("every thread has ended"));
    let ended = line.into_outcome();
    let (outcome, sink) = (ended.result, ended.sink);
    let all = |end: u64| Some((0..end).collect::<Vec<_>>());
    match trouble {
        Trouble::None => assert_eq!((outcome, sink), (Some(Ok(())), all(total))),
        Trouble::Source(at) => assert_eq!((outcome, sink), (Some(Err("source")), all(at))),
        Trouble::Work(at) => assert_eq!((outcome, sink), (Some(Err("work")), all(at))),
        Trouble::Sink(at) => assert_eq!((outcome, sink), (Some(Err("sink")), all(at))),
        Trouble::SinkPanic(_) => assert_eq!((outcome, sink), (Some(Err("panic")), None)),
        Trouble::Panic(at) | Trouble::SourcePanic(at) => {
            assert_eq!(outcome, Some(Err("panic")));
            assert!(sink.unwrap().len() as u64 <= at, "nothing after the panic");
        }
    }
}

fn configurations() -> Vec<(u64, usize, usize, Trouble)> {
    let mut all = Vec::new();
    for (threads, batches) in [(1, 1), (2, 1), (2, 2), (2, 4), (3, 2), (3, 3), (3, 6), (4, 5)] {
        for total in [1, 2, 5, 9] {
            all.push((total, threads, batches, Trouble::None));
        }
        for at in [0, 1, 4] {
            for trouble in [
                Trouble::Source(at),
                Trouble::Work(at),
                Trouble::Panic(at),
                Trouble::SourcePanic(at),
                Trouble::Sink(at),
                Trouble::SinkPanic(at),
            ] {
                all.push((6, threads, batches, trouble));
            }
        }
    }
    all
}

#[test]
fn batches_come_out_in_order_and_every_end_ends_all_threads_under_any_schedule() {
    quiet_on_purpose();
    let rounds = if long() { 20_000 } else { 150 };
    let configurations = configurations();
    let most = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for &(total, threads, batches, trouble) in &configurations {
        let highest = Arc::clone(&most);
        let once = move || run(total, threads, batches, trouble, &highest);
        shuttle::check_random(once.clone(), rounds);
        if threads > 1 {
            // Schedules with few preemptions, which find what random ones seldom meet.
            shuttle::check_pct(once, rounds, 3);
        }
    }
    let of_many = configurations.iter().filter(|(_, threads, ..)| *threads > 1).count();
    let schedules = rounds * (configurations.len() + of_many);
    say(format!("ordering: {schedules} schedules of {} configurations", configurations.len()));
    assert!(most.load(std::sync::atomic::Ordering::SeqCst) > 1, "threads did work at once");
}
