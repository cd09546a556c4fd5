//! Sockets and what surrounds them: buffers, deadlines, addresses, clocks, the client's or upstream's byte stream.

pub mod accept;
pub mod access;
pub mod addr;
pub mod buffer;
pub mod cidr;
pub mod clock;
pub mod datagram;
pub mod deadline;
pub mod end;
pub mod fd;
pub mod host;
pub mod inherit;
pub mod io;
pub mod listen;
pub mod moderation;
pub mod open;
pub mod option;
pub mod peek;
pub mod proxied;
pub mod proxy_protocol;
pub mod resolve;
pub mod resolver;
pub mod socket;
pub mod splice;
pub mod tcp_info;
pub mod timer;
pub mod turn;

pub use addr::Address;
pub use buffer::Buffer;
pub use deadline::Deadline;
pub use end::End;
pub use io::Io;
pub use socket::Socket;
