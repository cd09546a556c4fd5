//! Request methods that nginx knows by name.

/// A method; unknown ones are sent on as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Mkcol,
    Copy,
    Move,
    Options,
    Propfind,
    Proppatch,
    Lock,
    Unlock,
    Patch,
    Trace,
    Connect,
    Unknown,
}

const NAMES: [(&[u8], Method); 16] = [
    (b"GET", Method::Get),
    (b"HEAD", Method::Head),
    (b"POST", Method::Post),
    (b"PUT", Method::Put),
    (b"DELETE", Method::Delete),
    (b"MKCOL", Method::Mkcol),
    (b"COPY", Method::Copy),
    (b"MOVE", Method::Move),
    (b"OPTIONS", Method::Options),
    (b"PROPFIND", Method::Propfind),
    (b"PROPPATCH", Method::Proppatch),
    (b"LOCK", Method::Lock),
    (b"UNLOCK", Method::Unlock),
    (b"PATCH", Method::Patch),
    (b"TRACE", Method::Trace),
    (b"CONNECT", Method::Connect),
];

impl Method {
    /// The method of a request line.
    pub fn of(name: &[u8]) -> Method {
        NAMES.iter().find(|(known, _)| *known == name).map_or(Method::Unknown, |(_, m)| *m)
    }

    /// A method in the configuration, in any case.
    pub fn parse_setting(name: &[u8]) -> Option<Method> {
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, m)| *m)
    }

    /// Its name, empty where it is unknown.
    pub fn name(self) -> &'static [u8] {
        NAMES.iter().find(|(_, m)| *m == self).map_or(b"", |(name, _)| name)
    }
}
