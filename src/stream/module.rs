//! What a stream module is: settings at two levels, directives, variables, and what runs for a session.

use std::future::Future;
use std::pin::Pin;

use super::conf::Srv;
use super::pump::Pump;
use super::session::Session;
use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome};
use crate::value::{Builtin, Prefix};

/// One stream module. Its file holds, in this order: settings, directives, merging, handlers, variables.
pub trait Module {
    /// Settings of the whole stream block.
    type Main: Conf;
    /// Settings of a server, or of the stream block, which servers inherit.
    type Srv: Conf;
    /// Module name in the grammar, and directives with their setters.
    const COMMANDS: Commands;
    /// Variables it brings.
    const VARIABLES: &'static [Builtin<Session>] = &[];
    /// Families of variables it brings.
    const PREFIXES: &'static [Prefix<Session>] = &[];

    /// Once the stream block is read, before servers are merged.
    fn init(_: &mut Build) -> Outcome {
        Ok(())
    }

    /// Puts into `to` what must run for sessions of a server with these merged settings.
    fn handlers(_: &Srv, _: &mut Handlers) {}
}

/// A future of one session, on its thread.
pub type Wait<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What a handler of a phase decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to say: the next handler, or the next phase.
    Next,
    /// The phase is over.
    Done,
    /// A preread needs more bytes.
    More,
    /// The session ends with this status.
    End(u16),
}

/// What serves a session.
pub enum Content {
    /// Nothing more: it is served, and this is its status.
    Served(u16),
    /// What moves bytes both ways until a side ends.
    Pump(Box<Pump>),
}

/// Everything went well.
pub const OK: u16 = 200;
/// What the client sent is not what was expected.
pub const BAD_REQUEST: u16 = 400;
/// The client may not.
pub const FORBIDDEN: u16 = 403;
/// nxr or its settings are at fault.
pub const INTERNAL_ERROR: u16 = 500;
/// No upstream could be reached.
pub const BAD_GATEWAY: u16 = 502;
/// There are too many connections.
pub const UNAVAILABLE: u16 = 503;

/// A handler of the phases before TLS.
pub type Handler = fn(&mut Session) -> Verdict;
/// A handler that waits.
pub type Waiting = for<'a> fn(&'a mut Session) -> Wait<'a, Verdict>;
/// Looks at the first bytes of the client. Called with none before any are read.
pub type PrereadHandler = fn(&mut Session, &[u8]) -> Verdict;
/// Serves the session, or finds what is to.
pub type ContentHandler = for<'a> fn(&'a mut Session) -> Wait<'a, Content>;
/// Runs when the session is over.
pub type LogHandler = fn(&mut Session);

/// What runs for the sessions of one server, by phase, in order.
#[derive(Clone, Default)]
pub struct Handlers {
    /// Who is the client?
    pub post_accept: Vec<Handler>,
    /// Limits.
    pub preaccess: Vec<Handler>,
    /// Who may?
    pub access: Vec<Handler>,
    /// TLS.
    pub ssl: Vec<Waiting>,
    /// A look at the first bytes.
    pub preread: Vec<PrereadHandler>,
    /// What serves the session; the last directive that names one wins.
    pub content: Option<ContentHandler>,
    /// At the end.
    pub log: Vec<LogHandler>,
}

/// Declares the modules: fields of the settings structs, merging, tables. One line a module, in the order in which
/// their handlers run within a phase.
#[macro_export]
macro_rules! stream_modules {
    ($($field:ident: $module:ty,)*) => {
        /// Settings of the stream block while it is read.
        #[derive(Default)]
        pub struct MainBuild { $($field: Option<Box<<$module as Module>::Main>>,)* }
        /// Settings of a server while it is read.
        #[derive(Default)]
        pub struct SrvBuild { $($field: Option<Box<<$module as Module>::Srv>>,)* }

        /// Settings of the stream block.
        #[allow(missing_docs)]
        pub struct Main { $(pub $field: <$module as Module>::Main,)* }
        /// Merged settings of a server.
        #[allow(missing_docs)]
        #[derive(Clone)]
        pub struct Srv { $(pub $field: Arc<<$module as Module>::Srv>,)* }

        #[allow(missing_docs, dead_code)]
        impl MainBuild {
            $(pub fn $field(&mut self) -> &mut <$module as Module>::Main {
                self.$field.get_or_insert_default()
            })*
            /// Closes the settings of the stream block. Faults of merging are kept in `cf`, here and below.
            pub fn merge(self, cf: &mut Build) -> Main {
                Main { $($field: {
                    let mut own = self.$field.map(|b| *b).unwrap_or_default();
                    let merged = own.merge(&Default::default(), cf);
                    cf.merged(<$module as Module>::COMMANDS.module, merged, || ());
                    own
                },)* }
            }
        }
        #[allow(missing_docs, dead_code)]
        impl SrvBuild {
            $(pub fn $field(&mut self) -> &mut <$module as Module>::Srv {
                self.$field.get_or_insert_default()
            })*
            /// The stream block's own settings, for servers to be completed with.
            pub fn top(self) -> Srv {
                Srv { $($field: Arc::new(self.$field.map(|b| *b).unwrap_or_default()),)* }
            }
            /// Completes a server's settings with those of the stream block.
            pub fn merge(self, parent: &Srv, cf: &mut Build) -> Srv {
                Srv { $($field: {
                    let mut own = self.$field.map(|b| *b).unwrap_or_default();
                    let merged = own.merge(&parent.$field, cf);
                    cf.merged(<$module as Module>::COMMANDS.module, merged, || ());
                    Arc::new(own)
                },)* }
            }
        }

        /// Directives of all modules.
        pub static COMMANDS: &[Commands] = &[$(<$module as Module>::COMMANDS,)*];

        /// Variables of all modules.
        pub fn variables() -> impl Iterator<Item = &'static Builtin<Session>> {
            [$(<$module as Module>::VARIABLES,)*].into_iter().flatten()
        }

        /// Families of variables of all modules.
        pub fn prefixes() -> impl Iterator<Item = &'static Prefix<Session>> {
            [$(<$module as Module>::PREFIXES,)*].into_iter().flatten()
        }

        /// Lets every module complete what the stream block said.
        pub fn init(cf: &mut Build) {
            $(
                let init = <$module as Module>::init(cf);
                cf.merged(<$module as Module>::COMMANDS.module, init, || ());
            )*
        }

        /// What runs for sessions of a server with these settings.
        pub fn handlers(srv: &Srv) -> Handlers {
            let mut handlers = Handlers::default();
            $(<$module as Module>::handlers(srv, &mut handlers);)*
            handlers
        }
    };
}
