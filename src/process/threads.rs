//! The threads of a worker: each takes connections, keeps those it should, and hands on the others.

use super::balance::{Loads, Slot};
use super::{
    Accepted, Configuration, Core, Count, Thread, memory, next_connection_number, privileges, stats,
};
use crate::log::{self, ErrorLog, Level};
use crate::net::accept::{Peer, accept};
use crate::net::listen::{Address, Kind, Listener};
use crate::net::{Socket, clock, deadline, fd};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::task::JoinHandle;

/// How many idle connections are closed at once when connections run short.
const DRAIN: usize = 32;

/// A configuration and the sockets to serve it on.
pub(super) struct Serving {
    pub(super) configuration: &'static dyn Configuration,
    pub(super) listeners: Vec<Listener>,
}

/// What a thread is told.
enum Command {
    Start(Arc<Serving>),
    /// The sender is dropped when no more is accepted.
    StopAccepting(Sender<()>),
    CloseIdle(&'static dyn Configuration),
    CloseAll(&'static dyn Configuration),
    Serve(Box<Taken>),
}

/// A connection on its way to its thread.
struct Taken {
    configuration: &'static dyn Configuration,
    listener: usize,
    fd: OwnedFd,
    peer: Peer,
    unix: bool,
    number: u64,
    slot: Slot,
}

/// All threads, as seen by the one that leads them.
#[derive(Clone)]
pub(super) struct Crew {
    pub(super) loads: &'static Loads,
    members: Arc<[UnboundedSender<Command>]>,
}

/// Makes the threads of `core`, the calling one the first, and runs `lead` in it.
pub(super) fn run<T>(core: &Core, lead: impl AsyncFnOnce(&Crew) -> T) -> io::Result<T> {
    let count = core.worker_processes.max(1);
    let loads: &'static Loads = Box::leak(Box::new(Loads::new(count, core.worker_connections)));
    let (members, mut inboxes): (Vec<_>, Vec<_>) = (0..count).map(|_| unbounded_channel()).unzip();
    let crew = Crew { loads, members: members.into() };
    for (index, inbox) in inboxes.drain(1..).enumerate() {
        let (crew, affinity, log) =
            (crew.clone(), core.cpu_affinity.of_thread(index + 1), core.error_log.clone());
        let (begun, begins) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new().name("worker".to_owned()).spawn(move || {
            if let Some(set) = affinity {
                privileges::bind_thread(set, &log);
            }
            let runtime = match runtime() {
                Ok(runtime) => runtime,
                // Who made the thread waits for it.
                Err(reason) => return drop(begun.send(Err(reason))),
            };
            let _ = begun.send(Ok(()));
            runtime.block_on(Member::new(index + 1, crew).obey(inbox));
        })?;
        begins.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
    }
    if let Some(set) = core.cpu_affinity.of_thread(0) {
        privileges::bind_thread(set, &core.error_log);
    }
    let runtime = runtime()?;
    let first = inboxes.pop();
    let result = runtime.block_on(async {
        let member = Member::new(0, crew.clone());
        if let Some(inbox) = first {
            tokio::task::spawn_local(member.obey(inbox));
        }
        lead(&crew).await
    });
    stats::tell();
    Ok(result)
}

/// Tasks run before the thread looks for events again, as many as nginx takes at a time (`epoll_events`).
const TURN: u32 = 512;

/// The runtime of this thread, which gets ready to serve.
fn runtime() -> io::Result<LocalRuntime> {
    clock::once_a_turn();
    memory::keep();
    let mut builder = Builder::new_current_thread();
    builder.enable_io().event_interval(TURN).on_thread_park(stats::tell).on_thread_unpark(clock::turn);
    builder.build_local(LocalOptions::default())
}

// === impl Crew ===

impl Crew {
    /// Every thread begins to serve, and stops accepting for what it served before.
    pub(super) fn start(&self, serving: Serving) {
        let serving = Arc::new(serving);
        self.tell(|| Command::Start(serving.clone()));
    }

    /// Returns when no thread accepts any more: whoever was accepted is counted then.
    pub(super) async fn stop_accepting(&self) {
        let (done, mut all_done) = channel(1);
        self.tell(|| Command::StopAccepting(done.clone()));
        drop(done);
        // Ends when the last sender is dropped.
        let _: Option<()> = all_done.recv().await;
    }

    pub(super) fn close_idle(&self, configuration: &'static dyn Configuration) {
        self.tell(|| Command::CloseIdle(configuration));
    }

    /// Returns whether the connections will be closed.
    pub(super) fn close_all(&self, configuration: &'static dyn Configuration) -> bool {
        for member in self.members.iter().skip(1) {
            // A thread that has ended has no connections.
            let _ = member.send(Command::CloseAll(configuration));
        }
        configuration.close_all()
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for member in self.members.iter() {
            // A thread that has ended has nothing to do.
            let _ = member.send(command());
        }
    }
}

/// One thread.
struct Member {
    index: usize,
    crew: Crew,
    accepting: RefCell<Vec<JoinHandle<()>>>,
}

// === impl Member ===

impl Member {
    fn new(index: usize, crew: Crew) -> Rc<Member> {
        stats::enter(index);
        crew.loads.enter(index);
        Rc::new(Member { index, crew, accepting: RefCell::default() })
    }

    async fn obey(self: Rc<Self>, mut inbox: UnboundedReceiver<Command>) {
        if let Err(reason) = deadline::start() {
            log::error_errno(
                &log::main(),
                Level::Alert,
                None,
                &reason,
                format_args!("timerfd_create() failed"),
            );
        }
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Start(serving) => self.start(&serving),
                Command::StopAccepting(done) => {
                    self.stop_accepting();
                    drop(done);
                }
                Command::CloseIdle(configuration) => guarded(|| configuration.close_idle()),
                Command::CloseAll(configuration) => guarded(|| _ = configuration.close_all()),
                Command::Serve(taken) => serve(*taken),
            }
        }
    }

    fn start(self: &Rc<Self>, serving: &Arc<Serving>) {
        let configuration = serving.configuration;
        let thread = Thread { index: self.index, count: self.crew.members.len() };
        guarded(|| configuration.start_thread(thread));
        let mut accepting = Vec::new();
        for (index, listener) in serving.listeners.iter().enumerate() {
            match listener.listen.kind {
                Kind::Stream => {
                    let door = Door {
                        member: self.clone(),
                        configuration,
                        index,
                        unix: matches!(listener.listen.address, Address::Unix(_)),
                        fd: listener.fd.clone(),
                        address: listener.listen.address.to_string(),
                        log: listener.listen.log.clone(),
                    };
                    accepting.push(tokio::task::spawn_local(door.stand()));
                }
                // A socket for datagrams is one thread's, and so are its sessions.
                Kind::Datagram => match listener.sockets().nth(self.index).map(|fd| fd.try_clone()) {
                    None => {}
                    Some(Ok(fd)) => guarded(|| configuration.datagrams(index, fd.into())),
                    Some(Err(reason)) => {
                        let log = &listener.listen.log;
                        log::error_errno(log, Level::Alert, None, &reason, format_args!("dup() failed"));
                    }
                },
            }
        }
        for task in self.accepting.replace(accepting) {
            task.abort();
        }
    }

    fn stop_accepting(&self) {
        self.accepting.take().into_iter().for_each(|task| task.abort());
    }
}

/// One thread at one listening socket.
struct Door {
    member: Rc<Member>,
    configuration: &'static dyn Configuration,
    index: usize,
    unix: bool,
    fd: Arc<OwnedFd>,
    address: String,
    log: ErrorLog,
}

// === impl Door ===

impl Door {
    async fn stand(self) {
        let socket = match fd::watch(self.fd.clone()) {
            Ok(socket) => socket,
            Err(reason) => return self.alert(&reason, "epoll_ctl() failed"),
        };
        let multi_accept = self.configuration.core().multi_accept;
        loop {
            let mut ready = match socket.readable().await {
                Ok(ready) => ready,
                Err(reason) => return self.alert(&reason, "epoll_wait() failed"),
            };
            match ready.try_io(|socket| accept(socket.get_ref().as_fd())) {
                Err(_not_ready) => {}
                Ok(Ok((fd, peer))) => {
                    self.admit(fd, peer).await;
                    // Who came before is not to wait for all who come now: the next one after a look for events.
                    if !multi_accept {
                        tokio::task::yield_now().await;
                    }
                }
                Ok(Err(reason)) => self.failed(&reason).await,
            }
        }
    }

    /// Counts a connection and gives it to its thread; without room for it, it is closed.
    async fn admit(&self, fd: OwnedFd, peer: Peer) {
        let loads = self.member.crew.loads;
        stats::count(Count::Accepted, 1);
        let drained = if loads.is_short() { self.drain() } else { 0 };
        let thread = loads.choose(self.member.index);
        let mut slot = loads.take_client(thread);
        // What is being closed needs a turn to be gone.
        for _ in 0..drained.min(3) {
            if slot.is_some() {
                break;
            }
            tokio::task::yield_now().await;
            slot = loads.take_client(thread);
        }
        let Some(slot) = slot else {
            loads.complain(
                &self.log,
                None,
                format_args!(" while accepting new connection on {}", self.address),
            );
            return;
        };
        stats::count(Count::Handled, 1);
        let taken = Taken {
            configuration: self.configuration,
            listener: self.index,
            fd,
            peer,
            unix: self.unix,
            number: next_connection_number(),
            slot,
        };
        match self.member.crew.members.get(thread) {
            Some(other) if thread != self.member.index => {
                // If that thread has ended, the connection is closed with the command.
                let _ = other.send(Command::Serve(Box::new(taken)));
            }
            _ => serve(taken),
        }
    }

    fn drain(&self) -> usize {
        let loads = self.member.crew.loads;
        let drained = catch_unwind(AssertUnwindSafe(|| self.configuration.drain_idle(DRAIN))).unwrap_or(0);
        if drained > 0 && loads.may_warn(clock::wall().sec) {
            let what = format_args!(
                "{} worker_connections are not enough, reusing connections",
                loads.connections()
            );
            log::error(&log::main(), Level::Warn, None, what);
        }
        drained
    }

    async fn failed(&self, reason: &io::Error) {
        let (level, pause) = match reason.raw_os_error() {
            Some(libc::ECONNABORTED) => (Level::Error, false),
            Some(libc::EMFILE | libc::ENFILE) => (Level::Crit, true),
            _ => (Level::Alert, false),
        };
        let context = format_args!(" while accepting new connection on {}", self.address);
        log::error_context(&self.log, level, None, Some(reason), format_args!("accept4() failed"), context);
        if pause {
            deadline::sleep(deadline::millis(self.configuration.core().accept_mutex_delay)).await;
        } else if level == Level::Alert {
            // An error that stays must not keep the thread from its other work.
            deadline::sleep(1).await;
        }
    }

    fn alert(&self, reason: &io::Error, what: &str) {
        log::error_errno(&self.log, Level::Alert, None, reason, format_args!("{what}"));
    }
}

/// Gives a connection to its configuration, in its thread.
fn serve(taken: Taken) {
    let Taken { configuration, listener, fd, peer, unix, number, slot } = taken;
    match Socket::connected(fd, unix) {
        Ok(socket) => guarded(|| configuration.accepted(listener, Accepted { socket, peer, number, slot })),
        Err(reason) => {
            let log = &configuration.core().error_log;
            log::error_errno(log, Level::Alert, Some(number), &reason, format_args!("epoll_ctl() failed"));
        }
    }
}

/// A panic in what a configuration does ends that alone; the panic hook has logged it.
fn guarded(work: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(work));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::OpenFiles;
    use crate::net::listen::Listen;
    use std::net::{TcpListener, TcpStream};
    use std::path::PathBuf;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Notes in which turn of the event loop each connection was taken.
    struct Taking {
        core: Core,
        files: OpenFiles,
        turn: AtomicU32,
        taken: Mutex<Vec<u32>>,
    }

    impl Configuration for Taking {
        fn core(&self) -> &Core {
            &self.core
        }

        fn listens(&self) -> &[Listen] {
            &[]
        }

        fn files(&self) -> &OpenFiles {
            &self.files
        }

        fn start_thread(&'static self, _: Thread) {}

        fn accepted(&'static self, _: usize, _: Accepted) {
            self.taken.lock().unwrap().push(self.turn.load(Ordering::Relaxed));
        }

        fn close_idle(&'static self) {}
    }

    /// The turns in which three connections are taken that wait when the thread begins.
    fn turns_of_three(multi_accept: bool) -> Vec<u32> {
        let serve = move || {
            let mut core = Core::new(PathBuf::new(), ErrorLog::none());
            core.multi_accept = multi_accept;
            let (files, turn, taken) = (OpenFiles::new(), AtomicU32::new(0), Mutex::default());
            let taking: &'static Taking = Box::leak(Box::new(Taking { core, files, turn, taken }));
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let address = socket.local_addr().unwrap();
            let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
            let listen = Listen::new(Address::Inet(address), ErrorLog::none());
            let fd = Arc::new(OwnedFd::from(socket));
            let listeners = vec![Listener { listen, fd, more: Vec::new(), inherited: false }];
            run(&taking.core, async |crew: &Crew| {
                crew.start(Serving { configuration: taking, listeners });
                while taking.taken.lock().unwrap().len() < 3 {
                    taking.turn.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
            .unwrap();
            taking.taken.lock().unwrap().clone()
        };
        // The runtime, the clock and what is counted are a thread's.
        std::thread::spawn(serve).join().unwrap()
    }

    #[test]
    fn one_connection_is_taken_in_a_turn() {
        assert!(turns_of_three(false).is_sorted_by(|before, after| before < after));
    }

    #[test]
    fn with_multi_accept_all_are_taken_at_once() {
        assert!(turns_of_three(true).is_sorted_by(|before, after| before == after));
    }
}
