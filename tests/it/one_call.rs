//! One call at a time for one value, under thousands of schedules: the library's own files, on the locks of
//! `shuttle`, which chooses who runs at each of them and finds who waits for ever.

#[path = "../../src/cache/call.rs"]
#[allow(unreachable_pub, reason = "the library's file as it is")]
mod call;
#[path = "../../src/cache/flight.rs"]
#[allow(dead_code, unreachable_pub, reason = "the library's file as it is")]
mod flight;

/// What both take their locks from.
mod sync {
    pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
}

use crate::support::child::long;
use crate::support::say;
use flight::{Caller, Flight, Lead, Look, Old, Turn};
use shuttle::future::{block_on, yield_now};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use shuttle::sync::mpsc::{Receiver, channel};
use shuttle::thread;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// A value: which call brought it, in which epoch that began, and how often it may still be taken.
struct Value {
    epoch: usize,
    left: AtomicUsize,
    /// Callers that were told to renew it.
    renewals: AtomicUsize,
}

/// How a call failed. The failure stands until it is told to be over.
#[derive(Clone)]
struct Failure {
    over: Arc<AtomicBool>,
}

/// What the callers of one run share.
struct World {
    waits: usize,
    /// Moves before each invalidation.
    epoch: AtomicUsize,
    /// Follows after it: whoever comes then wants nothing older.
    settled: AtomicUsize,
    /// A value is to be renewed once it has as few left as this.
    renew_below: usize,
    uses: usize,
    calling: AtomicUsize,
    calls: AtomicUsize,
    /// So many calls fail.
    failing: AtomicUsize,
    taken: AtomicUsize,
    /// Renewals of the value that was renewed most often.
    renewed_most: AtomicUsize,
    failed: AtomicUsize,
    cancelled: AtomicUsize,
    invalidated: AtomicUsize,
}

impl World {
    fn new(plan: Plan) -> Arc<Self> {
        let Plan { waits, uses, renew_below, failing, .. } = plan;
        Arc::new(Self {
            waits,
            epoch: AtomicUsize::new(0),
            settled: AtomicUsize::new(0),
            renew_below,
            uses,
            calling: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            failing: AtomicUsize::new(failing),
            taken: AtomicUsize::new(0),
            renewed_most: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            cancelled: AtomicUsize::new(0),
            invalidated: AtomicUsize::new(0),
        })
    }
}

fn take(from: &AtomicUsize) -> Option<usize> {
    from.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).ok()
}

struct Guest {
    world: Arc<World>,
}

impl Caller<Arc<Value>, Failure> for Guest {
    type Use = Arc<Value>;

    fn look(&self, value: &Arc<Value>) -> Look<Arc<Value>> {
        match take(&value.left) {
            None => Look::Useless,
            Some(left) if left <= self.world.renew_below => Look::UseAndRenew(Arc::clone(value)),
            Some(_) => Look::Use(Arc::clone(value)),
        }
    }

    fn stands(&self, failure: &Failure) -> bool {
        !failure.over.load(Ordering::SeqCst)
    }
}

type Model = Flight<Arc<Value>, Failure>;

/// Makes the call, unless others who wait for it do.
async fn fetch(world: &Arc<World>, lead: Lead<Arc<Value>, Failure>) -> Option<usize> {
    let (epoch, got) = (world.epoch.load(Ordering::SeqCst), Arc::new(AtomicUsize::new(NOTHING)));
    let (of, answer) = (Arc::clone(world), Arc::clone(&got));
    lead.share(|lead| Box::pin(async move { make(&of, lead, epoch, &answer).await })).await;
    Some(got.load(Ordering::SeqCst)).filter(|epoch| *epoch != NOTHING)
}

const NOTHING: usize = usize::MAX;

/// The call itself: it waits in between, as a network does.
async fn make(world: &Arc<World>, lead: Lead<Arc<Value>, Failure>, epoch: usize, answer: &AtomicUsize) {
    // Invalidated calls go on beside the one that replaces them; otherwise there is one at a time.
    let others = world.calling.fetch_add(1, Ordering::SeqCst);
    let guard = Calling(Arc::clone(world));
    assert!(others <= world.invalidated.load(Ordering::SeqCst), "two calls at once");
    world.calls.fetch_add(1, Ordering::SeqCst);
    for _ in 0..world.waits {
        yield_now().await;
    }
    drop(guard);
    if take(&world.failing).is_some() {
        let over = Arc::new(AtomicBool::new(false));
        lead.fail(Failure { over: Arc::clone(&over) }, Old::Keep);
        thread::yield_now();
        over.store(true, Ordering::SeqCst);
        return;
    }
    // Whoever began it has the first.
    let value = Arc::new(Value { epoch, left: AtomicUsize::new(world.uses - 1), renewals: AtomicUsize::new(0) });
    answer.store(epoch, Ordering::SeqCst);
    lead.complete(value);
}

struct Calling(Arc<World>);

impl Drop for Calling {
    fn drop(&mut self) {
        self.0.calling.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A caller that goes on until it has what it wants, or has failed as often as it may.
async fn visit(flight: &std::sync::Arc<Model>, world: &Arc<World>, retries: usize) {
    for _ in 0..=retries {
        let since = world.settled.load(Ordering::SeqCst);
        let guest = Guest { world: Arc::clone(world) };
        let got = match flight.turn(&guest).await {
            Turn::Use(value, _) => Some(value.epoch),
            Turn::Renew(value, lead) => {
                let before = value.renewals.fetch_add(1, Ordering::SeqCst);
                world.renewed_most.fetch_max(before + 1, Ordering::SeqCst);
                fetch(world, lead).await;
                Some(value.epoch)
            }
            Turn::Lead(lead) => fetch(world, lead).await,
            Turn::Failed(_) => None,
        };
        match got {
            Some(epoch) => {
                assert!(epoch >= since, "a value of a call from before an invalidation that was over");
                world.taken.fetch_add(1, Ordering::SeqCst);
                return;
            }
            None => {
                world.failed.fetch_add(1, Ordering::SeqCst);
                yield_now().await;
            }
        }
    }
}

/// A caller that is not polled any more from its `polls`-th wait on, unless it is done by then, and is dropped
/// once `held` ends.
fn visit_and_leave(flight: &std::sync::Arc<Model>, world: &Arc<World>, polls: usize, held: Option<Receiver<()>>) {
    let mut visit = pin!(visit(flight, world, 0));
    for _ in 0..polls {
        if let Poll::Ready(()) = visit.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return;
        }
        thread::yield_now();
    }
    world.cancelled.fetch_add(1, Ordering::SeqCst);
    if let Some(held) = held {
        held.recv().unwrap_err();
    }
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    callers: usize,
    /// How often each caller comes.
    visits: usize,
    /// Steps of a call between which others go on.
    waits: usize,
    /// Callers that leave, each at another of their waits.
    leavers: usize,
    /// Callers that are held and not polled any more, until all others are done.
    stalled: usize,
    uses: usize,
    renew_below: usize,
    failing: usize,
    invalidations: usize,
}

/// One run. That it ends at all is what is mostly tested: `shuttle` fails where all threads wait.
fn run(plan: Plan) {
    let world = World::new(plan);
    let flight = std::sync::Arc::new(Model::new());
    let mut threads = Vec::new();
    let mut stalled = Vec::new();
    for number in 0..plan.stalled {
        let (flight, world) = (std::sync::Arc::clone(&flight), Arc::clone(&world));
        let (hold, held) = channel();
        let thread = thread::spawn(move || visit_and_leave(&flight, &world, 1 + number % 3, Some(held)));
        stalled.push((hold, thread));
    }
    for number in 0..plan.callers + plan.leavers {
        let (flight, world) = (std::sync::Arc::clone(&flight), Arc::clone(&world));
        threads.push(thread::spawn(move || match number.checked_sub(plan.callers) {
            None => (0..plan.visits).for_each(|_| block_on(visit(&flight, &world, usize::MAX))),
            Some(leaver) => visit_and_leave(&flight, &world, leaver % 4, None),
        }));
    }
    let invalidator = (plan.invalidations > 0).then(|| {
        let (flight, world) = (std::sync::Arc::clone(&flight), Arc::clone(&world));
        thread::spawn(move || {
            for _ in 0..plan.invalidations {
                thread::yield_now();
                world.invalidated.fetch_add(1, Ordering::SeqCst);
                let epoch = world.epoch.fetch_add(1, Ordering::SeqCst) + 1;
                flight.invalidate();
                world.settled.store(epoch, Ordering::SeqCst);
            }
        })
    });
    threads.into_iter().chain(invalidator).for_each(|thread| thread.join().unwrap());
    for (hold, thread) in stalled {
        drop(hold);
        thread.join().unwrap();
    }
    assert!(flight.is_spent(|_| true, |_| true), "a call or a waiter was left behind");
    let [taken, calls, cancelled] =
        [&world.taken, &world.calls, &world.cancelled].map(|counter| counter.load(Ordering::SeqCst));
    let visits = plan.callers * plan.visits;
    assert!(taken >= visits, "{taken} of {plan:?}");
    let plain = plan.invalidations == 0 && plan.renew_below == 0;
    if plain && plan.uses > visits + plan.leavers + plan.stalled {
        // One call brings it, but for those that failed or were given up.
        assert!(calls <= 1 + plan.failing + cancelled, "{calls} calls in {plan:?}, {cancelled} given up");
    }
    if plan.leavers + plan.stalled + plan.failing + plan.invalidations == 0 {
        let renewed = world.renewed_most.load(Ordering::SeqCst);
        assert!(renewed <= 1, "a value was renewed {renewed} times in {plan:?}");
    }
    if plain && plan.leavers + plan.stalled == 0 && plan.failing == 0 {
        assert_eq!(calls, visits.div_ceil(plan.uses), "{plan:?}");
    }
}

const MANY: usize = 100;

#[rustfmt::skip]
fn plans() -> Vec<(&'static str, Plan)> {
    let plan = |callers, leavers, stalled, uses, renew_below, failing, invalidations| {
        Plan { callers, visits: 1, waits: 2, leavers, stalled, uses, renew_below, failing, invalidations }
    };
    // An answer that is there before others go on, as for whoever waited for a lock while it was asked for.
    let quick = |plan| Plan { visits: 3, waits: 0, ..plan };
    vec![
        ("single flight", plan(2, 0, 0, MANY, 0, 0, 0)),
        ("single flight", plan(4, 0, 0, MANY, 0, 0, 0)),
        ("single flight", plan(4, 0, 0, 1, 0, 0, 0)),
        ("single flight", plan(5, 0, 0, 2, 0, 0, 0)),
        ("failures", plan(3, 0, 0, MANY, 0, 1, 0)),
        ("failures", plan(3, 0, 0, MANY, 0, 3, 0)),
        ("cancelled leaders", plan(2, 2, 0, MANY, 0, 0, 0)),
        ("cancelled leaders", plan(2, 4, 0, MANY, 0, 0, 0)),
        ("cancelled leaders", plan(3, 3, 0, 1, 0, 0, 0)),
        ("cancelled leaders", plan(2, 3, 0, MANY, 0, 1, 0)),
        ("stalled leaders", plan(1, 0, 1, MANY, 0, 0, 0)),
        ("stalled leaders", plan(2, 0, 3, MANY, 0, 0, 0)),
        ("stalled leaders", plan(2, 2, 2, MANY, 0, 1, 0)),
        ("stalled leaders", plan(3, 0, 2, 1, 0, 0, 0)),
        ("stalled leaders", plan(2, 1, 2, 3, 1, 1, 0)),
        ("stalled leaders", plan(2, 0, 2, MANY, 0, 0, 2)),
        ("refresh ahead", plan(4, 0, 0, 4, 2, 0, 0)),
        ("refresh ahead", quick(plan(3, 0, 0, MANY, MANY, 0, 0))),
        ("refresh ahead", plan(4, 2, 0, 3, 1, 1, 0)),
        ("invalidation", plan(3, 0, 0, MANY, 0, 0, 1)),
        ("invalidation", plan(3, 2, 0, MANY, 0, 0, 2)),
        ("invalidation", plan(3, 2, 0, 3, 1, 1, 2)),
    ]
}

#[test]
fn one_call_at_a_time_serves_every_caller_under_any_schedule() {
    let rounds = if long() { 20_000 } else { 400 };
    let plans = plans();
    for &(what, plan) in &plans {
        shuttle::check_random(move || run(plan), rounds);
        // Schedules with few preemptions, which find what random ones seldom meet.
        shuttle::check_pct(move || run(plan), rounds, 3);
        say(format!("flight, {what}: {} schedules of {plan:?}", 2 * rounds));
    }
}
