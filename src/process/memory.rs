//! The allocator of the program: mimalloc.

use std::alloc::{GlobalAlloc, Layout};
use std::pin::Pin;

use libmimalloc_sys as mi;

/// mimalloc, asked for an alignment only where its own would not do: that way is several times as long.
pub struct Allocator;

/// What mimalloc aligns to by itself, where at least as much is asked for; smaller pieces have half of it.
const ALIGNED: usize = 16;

fn is_usual(layout: Layout, size: usize) -> bool {
    layout.align() <= ALIGNED / 2 || (layout.align() == ALIGNED && size >= ALIGNED)
}

// SAFETY: mimalloc hands out pieces of at least the size and alignment asked for, frees them whichever way they were
// had, and never unwinds; sizes are not zero by the trait's contract.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match is_usual(layout, layout.size()) {
            true => unsafe { mi::mi_malloc(layout.size()).cast() },
            false => unsafe { mi::mi_malloc_aligned(layout.size(), layout.align()).cast() },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match is_usual(layout, layout.size()) {
            true => unsafe { mi::mi_zalloc(layout.size()).cast() },
            false => unsafe { mi::mi_zalloc_aligned(layout.size(), layout.align()).cast() },
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, _: Layout) {
        unsafe { mi::mi_free(piece.cast()) }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match is_usual(layout, size) {
            true => unsafe { mi::mi_realloc(piece.cast(), size).cast() },
            false => unsafe { mi::mi_realloc_aligned(piece.cast(), size, layout.align()).cast() },
        }
    }
}

/// Boxes what `make` returns. The room is taken first, so that something large is not built on the stack and copied.
#[inline(always)]
pub fn in_place<T>(make: impl FnOnce() -> T) -> Box<T> {
    let room = Box::new_uninit();
    Box::write(room, make())
}

/// The same, pinned: for futures.
#[inline(always)]
pub fn boxed<T>(make: impl FnOnce() -> T) -> Pin<Box<T>> {
    Box::into_pin(in_place(make))
}
