//! What an http module is: settings at three levels, directives, variables, and what runs for a request.

use std::future::Future;
use std::pin::Pin;

use super::conf::{Loc, LocationBuild};
use super::output::Gone;
use super::request::Request;
use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome};
use crate::value::{Builtin, Prefix};

/// One http module. Its file holds, in this order: settings, directives, merging, handlers, variables.
pub trait Module {
    /// Settings of the whole http block.
    type Main: Conf;
    /// Settings of a server.
    type Srv: Conf;
    /// Settings of a location (or a server or http block, which locations inherit).
    type Loc: Conf;
    /// Module name in the grammar, and directives with their setters.
    const COMMANDS: Commands;
    /// Variables it brings.
    const VARIABLES: &'static [Builtin<Request>] = &[];
    /// Families of variables it brings.
    const PREFIXES: &'static [Prefix<Request>] = &[];

    /// Once the http block is read, before blocks are merged.
    fn init(_: &mut Build) -> Outcome {
        Ok(())
    }

    /// Puts into `to` what must run for requests in a location with these merged settings.
    fn handlers(_: &Loc, _: &mut Handlers) {}

    /// A last look at a location that is being closed, before its parent's settings are known.
    fn close(_: &mut LocationBuild, _: &mut Build) -> Outcome {
        Ok(())
    }
}

/// A future of one request, on its thread.
pub type Wait<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What a handler of a phase decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to say: the next handler, or the next phase.
    Next,
    /// Access is granted by this handler (`satisfy any` then skips the others).
    Allow,
    /// The answer is this status, with its error page.
    Status(u16),
    /// The response has been sent, or is somebody else's now.
    Done,
    /// The URI (and perhaps the server's choice of location) was changed: start over at the server's rewrites.
    Redirect,
    /// Go on in the named location that [`Request::location`] was set to.
    Named,
    /// Close the connection without a response (444), or because the client is gone.
    Close,
}

/// A handler's verdict, now or later.
pub enum Step<'a> {
    /// At once.
    Now(Verdict),
    /// After waiting.
    Later(Wait<'a, Verdict>),
}

impl From<Verdict> for Step<'_> {
    fn from(verdict: Verdict) -> Self {
        Step::Now(verdict)
    }
}

/// A handler of one of the phases.
pub type Handler = for<'a> fn(&'a mut Request) -> Step<'a>;
/// Makes the response: the last phase but the log.
pub type ContentHandler = for<'a> fn(&'a mut Request) -> Wait<'a, Verdict>;
/// Looks at, and changes, the response's head before it is sent, and may put a [`BodyFilter`] behind it. A status
/// it returns replaces the response.
pub type HeaderFilter = fn(&mut Request) -> Option<u16>;
/// Runs when the request is over, before the access log is written or as it.
pub type LogHandler = fn(&mut Request);

/// Changes a response's body on its way out.
pub trait BodyFilter {
    /// Takes a piece of body (empty where `last` comes alone) and appends what goes on to `out`. An error, which is
    /// in the log already, ends the connection.
    fn filter(&mut self, req: &Request, input: &[u8], last: bool, out: &mut Vec<u8>) -> Result<(), Gone>;

    /// Appends what was held back and need not be; for responses that are passed on as they come.
    fn flush(&mut self, _: &Request, _: &mut Vec<u8>) {}
}

/// What runs for the requests of one location, by phase, in order.
#[derive(Clone, Default)]
pub struct Handlers {
    /// Before anything else, with the server's settings.
    pub post_read: Vec<Handler>,
    /// Rewrites of the server.
    pub server_rewrite: Vec<Handler>,
    /// Rewrites of the location.
    pub rewrite: Vec<Handler>,
    /// Limits.
    pub preaccess: Vec<Handler>,
    /// Who may; see `satisfy`.
    pub access: Vec<Handler>,
    /// `try_files`, `mirror`.
    pub precontent: Vec<Handler>,
    /// The location's own handler (`proxy_pass`): then none of `content` runs.
    pub handler: Option<ContentHandler>,
    /// `index`, `autoindex`, static files, in order, until one does not decline.
    pub content: Vec<ContentHandler>,
    /// Filters of the response's head.
    pub header_filters: Vec<HeaderFilter>,
    /// Adds trailers at the end of a body, where [`expect_trailers`] promised some.
    ///
    /// [`expect_trailers`]: super::response::Response::expect_trailers
    pub trailers: Option<fn(&mut Request)>,
    /// At the end of a request.
    pub log: Vec<LogHandler>,
}

/// Declares the modules: fields of the settings structs, merging, tables. One line a module, in the order of
/// nginx's phases and filters.
#[macro_export]
macro_rules! http_modules {
    ($($field:ident: $module:ty,)*) => {
        /// Settings of the http block while it is read.
        #[derive(Default)]
        pub struct MainBuild { $($field: Option<Box<<$module as Module>::Main>>,)* }
        /// Settings of a server while it is read.
        #[derive(Default)]
        pub struct SrvBuild { $($field: Option<Box<<$module as Module>::Srv>>,)* }
        /// Settings of a location while it is read; a module that nothing sets costs a pointer.
        #[derive(Default)]
        pub struct LocBuild { $($field: Option<Box<<$module as Module>::Loc>>,)* }

        /// Settings of the http block.
        #[allow(missing_docs)]
        pub struct Main { $(pub $field: <$module as Module>::Main,)* }
        /// Merged settings of a server.
        #[allow(missing_docs)]
        #[derive(Clone)]
        pub struct Srv { $(pub $field: Arc<<$module as Module>::Srv>,)* }
        /// Merged settings of a location; those that a block does not change are its parent's.
        #[allow(missing_docs)]
        #[derive(Clone)]
        pub struct Loc { $(pub $field: Arc<<$module as Module>::Loc>,)* }

        #[allow(missing_docs, dead_code)]
        impl MainBuild {
            $(pub fn $field(&mut self) -> &mut <$module as Module>::Main {
                self.$field.get_or_insert_default()
            })*
            /// Closes the settings of the http block. Faults of merging are kept in `cf`, here and below.
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
            /// Completes a server's settings with those of the http block.
            pub fn merge(self, parent: Option<&Srv>, cf: &mut Build) -> Srv {
                Srv { $($field: {
                    let parent = parent.map(|p| &p.$field);
                    let merged = merged(self.$field, parent, cf);
                    cf.merged(<$module as Module>::COMMANDS.module, merged, || parent.cloned().unwrap_or_default())
                },)* }
            }
        }
        #[allow(missing_docs, dead_code)]
        impl LocBuild {
            $(pub fn $field(&mut self) -> &mut <$module as Module>::Loc {
                self.$field.get_or_insert_default()
            })*
            /// Completes a location's settings with its parent's.
            pub fn merge(self, parent: Option<&Loc>, cf: &mut Build) -> Loc {
                Loc { $($field: {
                    let parent = parent.map(|p| &p.$field);
                    let merged = merged(self.$field, parent, cf);
                    cf.merged(<$module as Module>::COMMANDS.module, merged, || parent.cloned().unwrap_or_default())
                },)* }
            }
        }

        /// Directives of all modules.
        pub static COMMANDS: &[Commands] = &[$(<$module as Module>::COMMANDS,)*];

        /// Variables of all modules.
        pub fn variables() -> impl Iterator<Item = &'static Builtin<Request>> {
            [$(<$module as Module>::VARIABLES,)*].into_iter().flatten()
        }

        /// Families of variables of all modules.
        pub fn prefixes() -> impl Iterator<Item = &'static Prefix<Request>> {
            [$(<$module as Module>::PREFIXES,)*].into_iter().flatten()
        }

        /// Lets every module complete what the http block said.
        pub fn init(cf: &mut Build) {
            $(
                let init = <$module as Module>::init(cf);
                cf.merged(<$module as Module>::COMMANDS.module, init, || ());
            )*
        }

        /// What runs for requests in a location with these settings.
        pub fn handlers(loc: &Loc) -> Handlers {
            let mut handlers = Handlers::default();
            $(<$module as Module>::handlers(loc, &mut handlers);)*
            handlers
        }

        /// Lets every module look at a location that was read.
        pub fn close(location: &mut LocationBuild, cf: &mut Build) -> Outcome {
            $(<$module as Module>::close(location, cf)?;)*
            Ok(())
        }
    };
}

/// A block's own settings completed with its parent's, or the parent's themselves.
pub fn merged<T: Conf>(
    own: Option<Box<T>>,
    parent: Option<&std::sync::Arc<T>>,
    cf: &mut Build,
) -> Outcome<std::sync::Arc<T>> {
    match (own, parent) {
        (None, Some(parent)) => {
            parent.check(cf)?;
            Ok(parent.clone())
        }
        (own, parent) => {
            let mut own = own.map(|b| *b).unwrap_or_default();
            match parent {
                Some(parent) => {
                    own.merge(parent, cf)?;
                    own.check(cf)?;
                }
                None => own.merge(&T::default(), cf)?,
            }
            Ok(std::sync::Arc::new(own))
        }
    }
}
