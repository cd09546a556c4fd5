//! A loaded configuration at work: what the process room asks of it, handed on to http and stream.

use std::path::PathBuf;

use crate::conf::listen::Side;
use crate::conf::load::{Ir, load_and_tell};
use crate::log::OpenFiles;
use crate::net::Address;
use crate::net::accept::Peer;
use crate::net::listen::{Kind, Listen};
use crate::process::{Accepted, Configuration, Core, LoadOptions, Loaded, NotLoaded, Thread};
use crate::stream::modules::pass::{self, Passed};

/// The IR and the sockets it listens on.
struct Serving {
    ir: Ir,
    listens: Vec<Listen>,
}

impl Serving {
    /// Gives a connection of `pass` to the listener of `to`.
    fn pass(&'static self, to: &Address, passed: Passed) -> Result<(), Box<Passed>> {
        let takes = |listen: &Listen| {
            let own = match &listen.address {
                crate::net::listen::Address::Inet(address) => Address::Inet(*address),
                crate::net::listen::Address::Unix(path) => Address::Unix(path.clone()),
            };
            listen.kind == Kind::Stream && pass::takes(&own, to)
        };
        let place = self.ir.sockets.iter().find(|socket| takes(&socket.listen));
        match (place, &self.ir.http, &self.ir.stream, passed.slot.is_some()) {
            (Some(place), _, Some(stream), _) if place.side == Side::Stream => {
                crate::stream::passed(stream, place.port, passed);
            }
            (Some(place), Some(http), _, true) if place.side == Side::Http => {
                let Passed { io, client, number, slot, .. } = passed;
                if let Some(slot) = slot {
                    crate::http::accept::passed(http, place.port, io, client, number, slot);
                }
            }
            _ => return Err(Box::new(passed)),
        }
        Ok(())
    }
}

/// Reads and checks the configuration that the command line names; what is wrong is in the log.
pub fn load(options: &LoadOptions<'_>) -> Result<Loaded, NotLoaded> {
    let mut ir = load_and_tell(options).map_err(|_| NotLoaded)?;
    let listens = ir.listens();
    let files = std::mem::take(&mut ir.sources);
    Ok(Loaded { configuration: Box::new(Serving { ir, listens }), files })
}

impl Configuration for Serving {
    fn core(&self) -> &Core {
        &self.ir.core
    }

    fn listens(&self) -> &[Listen] {
        &self.listens
    }

    fn files(&self) -> &OpenFiles {
        &self.ir.files
    }

    fn directories(&self) -> &[PathBuf] {
        &self.ir.directories
    }

    fn start_thread(&'static self, thread: Thread) {
        pass::set_switchboard(Box::new(|to, passed| self.pass(to, passed)));
        if thread.index == 0 {
            self.ir.http.iter().for_each(|http| http.upstreams.look_after());
            self.ir.stream.iter().for_each(|stream| stream.upstreams.look_after());
        }
    }

    fn accepted(&'static self, listener: usize, accepted: Accepted) {
        let Some(place) = self.ir.sockets.get(listener) else { return };
        let socket = accepted.socket;
        let peer = match accepted.peer {
            Peer::Inet(addr) => Address::Inet(addr),
            Peer::Unix => Address::Unix(PathBuf::new()),
        };
        match place.side {
            Side::Http => {
                if let Some(http) = &self.ir.http {
                    crate::http::accept::accepted(
                        http,
                        place.port,
                        socket,
                        peer,
                        accepted.number,
                        accepted.slot,
                    );
                }
            }
            Side::Stream => {
                if let Some(stream) = &self.ir.stream {
                    crate::stream::accepted(stream, place.port, socket, peer, accepted.number, accepted.slot);
                }
            }
        }
    }

    fn datagrams(&'static self, listener: usize, socket: std::net::UdpSocket) {
        if let (Some(place), Some(stream)) = (self.ir.sockets.get(listener), &self.ir.stream) {
            crate::stream::udp::datagrams(stream, place.port, socket);
        }
    }

    fn close_idle(&'static self) {
        self.ir.stream.iter().for_each(crate::stream::udp::close);
        crate::upstream::keepalive::close();
        crate::http::connection::close_idle();
    }

    fn close_all(&'static self) -> bool {
        crate::http::connection::close_all();
        crate::stream::close_all()
    }

    fn drain_idle(&'static self, count: usize) -> usize {
        crate::http::connection::drain_idle(count)
    }
}
