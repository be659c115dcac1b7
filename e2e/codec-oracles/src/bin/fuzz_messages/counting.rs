//! The system's allocator, which counts for each thread what it has and what it has asked for.
#![expect(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; every call goes to the system's with the same arguments"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { live: 0, peak: 0, asked: 0 }) };
}

/// Octets, of one thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// Allocated and not given back.
    pub(crate) live: i64,
    /// The most that was live at once.
    pub(crate) peak: i64,
    /// Asked for since the last call of [`begin`], given back or not.
    pub(crate) asked: i64,
}

/// The calling thread's counts.
pub(crate) fn counts() -> Counts {
    COUNTS.get()
}

/// A message begins.
pub(crate) fn begin() {
    COUNTS.set(Counts { asked: 0, ..COUNTS.get() });
}

pub(crate) struct Counting;

fn count(more: usize, less: usize) {
    // A thread that ends gives back after its counts have gone.
    let _gone = COUNTS.try_with(|counts| {
        let Counts { live, peak, asked } = counts.get();
        let live = live + more as i64 - less as i64;
        counts.set(Counts { live, peak: peak.max(live), asked: asked + more as i64 });
    });
}

// SAFETY: all of the trait's contract is the system allocator's, which gets every call unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
