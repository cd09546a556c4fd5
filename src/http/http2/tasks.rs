//! The streams of a connection, all of them futures of the connection's one task.
//!
//! A stream that is woken is noted, and the task polls those that are noted, then h2, which so has the frames of
//! several streams to write. A task for each stream would cost more than the stream.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use super::stream::Stream;

/// Places without streams that a connection keeps while it has no stream.
const FEW: usize = 16;

/// Who is to be polled.
struct Notes {
    /// Places of streams.
    streams: Vec<usize>,
    /// h2 is.
    protocol: bool,
    /// The connection's task, and whether it has to be told.
    task: Waker,
    asleep: bool,
}

/// The waker of a stream, or (without a place) of h2.
struct Bell {
    place: Option<usize>,
    /// Whether it is noted. Changes under the lock.
    noted: AtomicBool,
    notes: Arc<Mutex<Notes>>,
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut notes = lock(&self.notes);
        match self.place {
            None => notes.protocol = true,
            Some(place) => {
                if self.noted.load(Ordering::Relaxed) {
                    return;
                }
                self.noted.store(true, Ordering::Relaxed);
                notes.streams.push(place);
            }
        }
        if std::mem::take(&mut notes.asleep) {
            notes.task.wake_by_ref();
        }
    }
}

struct Place {
    stream: Option<Stream>,
    /// It was not polled so far, but will be in this turn: what was noted was for the one before it.
    fresh: bool,
    bell: Arc<Bell>,
    waker: Waker,
}

/// The streams, and the waker that h2 has.
pub(super) struct Tasks {
    notes: Arc<Mutex<Notes>>,
    places: Vec<Place>,
    /// Places without a stream.
    free: Vec<usize>,
    /// Those that are polled in this turn.
    turn: Vec<usize>,
    protocol: Waker,
}

// === impl Tasks ===

impl Tasks {
    /// None; h2 is to be polled.
    pub(super) fn new() -> Tasks {
        let task = Waker::noop().clone();
        let notes = Arc::new(Mutex::new(Notes { streams: Vec::new(), protocol: true, task, asleep: false }));
        let bell = Bell { place: None, noted: AtomicBool::new(false), notes: notes.clone() };
        let protocol = Waker::from(Arc::new(bell));
        Tasks { notes, places: Vec::new(), free: Vec::new(), turn: Vec::new(), protocol }
    }

    /// Takes a stream in; it is polled in the next turn.
    pub(super) fn add(&mut self, stream: Stream) {
        let at = self.free.pop().unwrap_or_else(|| {
            let at = self.places.len();
            let bell =
                Arc::new(Bell { place: Some(at), noted: AtomicBool::new(false), notes: self.notes.clone() });
            self.places.push(Place { stream: None, fresh: false, waker: Waker::from(bell.clone()), bell });
            at
        });
        let place = &mut self.places[at];
        place.stream = Some(stream);
        place.fresh = true;
        self.turn.push(at);
    }

    /// Polls the streams that came, or were woken.
    pub(super) fn poll(&mut self) {
        {
            let mut notes = lock(&self.notes);
            for at in notes.streams.drain(..) {
                // Wakers outlive their streams, and even the places.
                let Some(place) = self.places.get(at) else { continue };
                place.bell.noted.store(false, Ordering::Relaxed);
                if place.stream.is_some() && !place.fresh {
                    self.turn.push(at);
                }
            }
        }
        for at in self.turn.drain(..) {
            let Place { stream, fresh, waker, .. } = &mut self.places[at];
            *fresh = false;
            let Some(running) = stream else { continue };
            if Pin::new(running).poll(&mut Context::from_waker(waker)).is_ready() {
                *stream = None;
                self.free.push(at);
            }
        }
    }

    /// The connection is over. Requests whose responses were sent go on without it (`post_action`).
    pub(super) fn part(&mut self) {
        for place in &mut self.places {
            if let Some(stream) = place.stream.take_if(|stream| stream.is_over()) {
                tokio::task::spawn_local(stream);
            }
        }
    }

    /// Whether h2 is to be polled.
    pub(super) fn wants_protocol(&self) -> bool {
        lock(&self.notes).protocol
    }

    /// The same, which then is done, with the waker that [`Tasks::protocol`] gives.
    pub(super) fn take_protocol(&self) -> bool {
        std::mem::take(&mut lock(&self.notes).protocol)
    }

    /// What h2 wakes.
    pub(super) fn protocol(&self) -> Waker {
        self.protocol.clone()
    }

    /// The connection's task has nothing to do until something is noted.
    pub(super) fn sleep(&mut self, cx: &mut Context<'_>) {
        if self.free.len() == self.places.len() && self.places.len() > FEW {
            self.places = Vec::new();
            self.free = Vec::new();
        }
        let mut notes = lock(&self.notes);
        // h2 wakes a stream for the window that its last frame was given.
        notes.streams.retain(|&at| {
            let Some(place) = self.places.get(at) else { return false };
            let runs = place.stream.is_some();
            place.bell.noted.store(runs, Ordering::Relaxed);
            runs
        });
        if notes.protocol || !notes.streams.is_empty() || !self.turn.is_empty() {
            cx.waker().wake_by_ref();
            return;
        }
        if !notes.task.will_wake(cx.waker()) {
            notes.task = cx.waker().clone();
        }
        notes.asleep = true;
    }
}
