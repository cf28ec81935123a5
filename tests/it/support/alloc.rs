//! An allocator that counts, for each thread on its own or for all together, what tests want to bound.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What one thread allocated while it was watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allocated {
    /// Bytes of the largest single allocation.
    pub(crate) largest: usize,
    /// Bytes of all allocations together, freed or not.
    pub(crate) total: usize,
}

/// What `work` returns, and what this thread allocated in it.
pub(crate) fn watch<T>(work: impl FnOnce() -> T) -> (T, Allocated) {
    WATCHED.set(Some(Allocated::default()));
    let result = work();
    (result, WATCHED.take().unwrap_or_default())
}

/// What all threads allocated together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AllocatedByAll {
    /// How often.
    pub(crate) count: usize,
    /// Bytes of all allocations together, freed or not.
    pub(crate) total: usize,
}

/// What `work` returns, and what all threads of this process allocated meanwhile, whoever they work for.
pub(crate) fn watch_all<T>(work: impl FnOnce() -> T) -> (T, AllocatedByAll) {
    let read = || [&COUNT, &TOTAL].map(|it| it.load(Ordering::SeqCst));
    ALL_WATCHED.store(true, Ordering::SeqCst);
    let before = read();
    let result = work();
    let after = read();
    ALL_WATCHED.store(false, Ordering::SeqCst);
    (result, AllocatedByAll { count: after[0] - before[0], total: after[1] - before[1] })
}

static ALL_WATCHED: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static TOTAL: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static WATCHED: Cell<Option<Allocated>> = const { Cell::new(None) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: usize) {
    if ALL_WATCHED.load(Ordering::Relaxed) {
        COUNT.fetch_add(1, Ordering::Relaxed);
        TOTAL.fetch_add(bytes, Ordering::Relaxed);
    }
    // A thread that is ending has no cell any more, and nobody watches it.
    let _ = WATCHED.try_with(|cell| {
        if let Some(Allocated { largest, total }) = cell.get() {
            cell.set(Some(Allocated { largest: largest.max(bytes), total: total.saturating_add(bytes) }));
        }
    });
}

// SAFETY: each call is handed to the system's allocator as it came, which keeps the contract; counting
// touches a thread-local cell without a destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(block, layout) }
    }
}
