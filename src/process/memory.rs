//! The allocator of the program: mimalloc, behind lists of what a worker freed last.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::pin::Pin;
use std::ptr::null_mut;

use libmimalloc_sys as mi;

/// mimalloc, asked for an alignment only where its own would not do: that way is several times as long. Pieces of
/// usual sizes that a worker frees wait for its next use: each request asks for the same sizes as the one before.
pub struct Allocator;

/// What mimalloc aligns to by itself, and what usual sizes are rounded up to.
const STEP: usize = 16;
/// The largest usual size.
const MOST: usize = 8 << 10;
/// Bytes that may wait in a list, and the pieces: what as many requests as come at once need.
const KEEP: usize = 256 << 10;
const PIECES: usize = 128;

/// Free pieces of one size; each holds the address of the next.
#[derive(Clone, Copy)]
struct List {
    first: *mut u8,
    /// How many more are taken: none on threads that keep none.
    room: usize,
}

/// A list for each usual size, by size in steps.
struct Lists(UnsafeCell<[List; MOST / STEP + 1]>);

thread_local! {
    static LISTS: Lists = const { Lists(UnsafeCell::new([List { first: null_mut(), room: 0 }; MOST / STEP + 1])) };
}

/// From here on this thread keeps pieces that are freed, for as long as it runs.
pub fn keep() {
    for steps in 1..=MOST / STEP {
        with_list(steps, |list| list.room = (KEEP / (steps * STEP)).min(PIECES));
    }
}

/// Calls `f`, which neither allocates nor frees, with a list of this thread.
#[inline(always)]
fn with_list<R>(steps: usize, f: impl FnOnce(&mut List) -> R) -> R {
    // SAFETY: the lists are this thread's, and `f` does not come here again.
    LISTS.with(|lists| f(unsafe { &mut (&mut *lists.0.get())[steps] }))
}

/// Steps of a usual size. All pieces with as many are of the same size, whatever of it was asked for.
#[inline(always)]
fn steps(layout: Layout) -> Option<usize> {
    let usual = layout.align() <= STEP && layout.size() <= MOST;
    usual.then(|| layout.size().div_ceil(STEP))
}

unsafe fn unusual(layout: Layout) -> *mut u8 {
    match layout.align() <= STEP {
        true => unsafe { mi::mi_malloc(layout.size()).cast() },
        false => unsafe { mi::mi_malloc_aligned(layout.size(), layout.align()).cast() },
    }
}

// SAFETY: mimalloc hands out pieces of at least the size and alignment asked for, frees them whichever way they were
// had, and never unwinds; sizes are not zero by the trait's contract. A listed piece was freed by its owner and is
// handed out once, for a size of as many steps as mimalloc was asked for.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(steps) = steps(layout) else { return unsafe { unusual(layout) } };
        let listed = with_list(steps, |list| {
            let piece = list.first;
            if !piece.is_null() {
                list.first = unsafe { piece.cast::<*mut u8>().read() };
                list.room += 1;
            }
            piece
        });
        match listed.is_null() {
            true => unsafe { mi::mi_malloc(steps * STEP).cast() },
            false => listed,
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match steps(layout) {
            Some(steps) => unsafe { mi::mi_zalloc(steps * STEP).cast() },
            None => unsafe { mi::mi_zalloc_aligned(layout.size(), layout.align()).cast() },
        }
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let listed = steps(layout).is_some_and(|steps| {
            with_list(steps, |list| {
                let takes = list.room > 0;
                if takes {
                    unsafe { piece.cast::<*mut u8>().write(list.first) };
                    list.first = piece;
                    list.room -= 1;
                }
                takes
            })
        });
        if !listed {
            unsafe { mi::mi_free(piece.cast()) }
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the size, rounded up to the alignment, is no more than isize::MAX by the trait's contract.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (steps(layout), steps(wanted)) {
            (Some(have), Some(steps)) if have == steps => piece,
            (_, Some(steps)) => unsafe { mi::mi_realloc(piece.cast(), steps * STEP).cast() },
            (_, None) if layout.align() <= STEP => unsafe { mi::mi_realloc(piece.cast(), size).cast() },
            (_, None) => unsafe { mi::mi_realloc_aligned(piece.cast(), size, layout.align()).cast() },
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

/// Boxes the future of a way that is seldom gone. Neither making nor running it becomes a part of the function that goes
/// there, which would have to touch more of its stack for it every time.
#[cold]
#[inline(never)]
pub fn rare<'a, F: Future + 'a>(make: impl FnOnce() -> F) -> Pin<Box<dyn Future<Output = F::Output> + 'a>> {
    boxed(make)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own, since the lists are a thread's.
    fn aside(f: impl FnOnce() + Send + 'static) {
        std::thread::spawn(f).join().unwrap();
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn what_was_freed_is_handed_out_again_once() {
        aside(|| unsafe {
            keep();
            let first = Allocator.alloc(layout(2000));
            Allocator.dealloc(first, layout(2000));
            let again = Allocator.alloc(layout(1999));
            assert_eq!(again, first);
            let other = Allocator.alloc(layout(2000));
            assert_ne!(other, first);
            Allocator.dealloc(again, layout(1999));
            Allocator.dealloc(other, layout(2000));
        });
    }

    #[test]
    fn a_thread_that_does_not_keep_lists_nothing() {
        aside(|| unsafe {
            let piece = Allocator.alloc(layout(100));
            Allocator.dealloc(piece, layout(100));
            assert!(with_list(7, |list| list.first.is_null() && list.room == 0));
        });
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        aside(|| unsafe {
            keep();
            let many = KEEP / MOST + 5;
            let pieces: Vec<_> = (0..many).map(|_| Allocator.alloc(layout(MOST))).collect();
            pieces.into_iter().for_each(|piece| Allocator.dealloc(piece, layout(MOST)));
            assert_eq!(with_list(MOST / STEP, |list| list.room), 0);
            let left = (0..many).filter(|_| !with_list(MOST / STEP, |list| list.first.is_null()));
            let taken: Vec<_> = left.map(|_| Allocator.alloc(layout(MOST))).collect();
            assert_eq!(taken.len(), KEEP / MOST);
            taken.into_iter().for_each(|piece| Allocator.dealloc(piece, layout(MOST)));
        });
    }

    #[test]
    fn a_piece_that_grows_keeps_its_bytes_and_its_place_where_it_can() {
        aside(|| unsafe {
            keep();
            let piece = Allocator.alloc(layout(20));
            piece.write_bytes(7, 20);
            assert_eq!(Allocator.realloc(piece, layout(20), 32), piece);
            let mut size = 32;
            let mut piece = piece;
            for wanted in [33, 5000, MOST, MOST + 1, 100_000, 16] {
                piece = Allocator.realloc(piece, layout(size), wanted);
                size = wanted;
                assert!((0..16).all(|i| *piece.add(i) == 7), "{wanted}");
            }
            Allocator.dealloc(piece, layout(size));
        });
    }

    #[test]
    fn alignments_are_had() {
        aside(|| unsafe {
            keep();
            for align in [1, 8, 16, 32, 4096] {
                for size in [1, 24, 4096, 20_000] {
                    let layout = Layout::from_size_align(size, align).unwrap();
                    for _ in 0..2 {
                        let (piece, zeroed) = (Allocator.alloc(layout), Allocator.alloc_zeroed(layout));
                        assert!(piece.addr().is_multiple_of(align) && zeroed.addr().is_multiple_of(align));
                        assert!((0..size).all(|i| *zeroed.add(i) == 0));
                        zeroed.write_bytes(1, size);
                        Allocator.dealloc(piece, layout);
                        Allocator.dealloc(zeroed, layout);
                    }
                }
            }
        });
    }
}
