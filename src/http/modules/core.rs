//! `ngx_http_core`: what every server and location has. The blocks themselves are in [`crate::http::conf`], the
//! `listen` directive in [`crate::http::listen`].

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, set, units};
use crate::http::conf;
use crate::http::error_page::ErrorPage;
use crate::http::mime::Types;
use crate::http::module::Module;
use crate::http::request::Request;
pub use crate::http::root::{Alias, Root, document_root, map_path, path_bytes};
use crate::http::{listen, root, variables};
use crate::log::ErrorLogBuilder;
use crate::settings;
use crate::syntax::Directive;
use crate::value::{Builtin, Prefix, Template};

/// The module.
pub struct Core;

settings! {
    /// Limits and rules of reading requests. They belong to the address's default server until the name is known.
    pub struct Srv {
        /// Bytes of the first buffer of a request's head.
        client_header_buffer_size: usize = 1024,
        /// Number and bytes of larger buffers; a line must fit one.
        large_client_header_buffers: (usize, usize) = (4, 8192),
        /// Milliseconds to read a request's head.
        client_header_timeout: u64 = 60_000,
        /// Header fields at most.
        max_headers: usize = 1000,
        /// Skip fields with invalid names.
        ignore_invalid_headers: bool = true,
        /// Take several slashes for one.
        merge_slashes: bool = true,
        /// `_` is valid in field names.
        underscores_in_headers: bool = false,
        /// `connection_pool_size`, kept for its check only.
        connection_pool_size: usize = 512,
        /// `request_pool_size`, without effect.
        request_pool_size: usize = 4096,
    }
}

impl Conf for Srv {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        if self.large_client_header_buffers.1 < *self.connection_pool_size {
            return Err(Fault::here(
                "the \"large_client_header_buffers\" size must be equal to or greater than \"connection_pool_size\"",
            ));
        }
        Ok(())
    }
}

/// `satisfy`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Satisfy {
    /// Every access check must grant.
    All,
    /// One is enough.
    Any,
}

/// `server_tokens`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// Name only.
    Off,
    /// Name and version.
    On,
    /// Name, version and build.
    Build,
}

/// `if_modified_since`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfModifiedSince {
    /// The field is ignored.
    Off,
    /// The time must be the same.
    Exact,
    /// The time must not be earlier.
    Before,
}

/// `lingering_close`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lingering {
    /// Close at once.
    Off,
    /// Where more data may come.
    On,
    /// Always.
    Always,
}

/// `client_body_in_file_only`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyInFile {
    /// In memory where it fits.
    Off,
    /// Always in a file, which stays.
    On,
    /// Always in a file, removed afterwards.
    Clean,
}

settings! {
    /// What a location has in the core.
    pub struct LocConf {
        root: Root = Root { path: Template::constant("html"), alias: None },
        types: Arc<Types> = Types::standard(),
        default_type: Bytes = Bytes::from_static(b"text/plain"),
        client_max_body_size: u64 = 1 << 20,
        client_body_buffer_size: usize = 16384,
        client_body_timeout: u64 = 60_000,
        client_body_temp_path: PathBuf = PathBuf::from("client_body_temp"),
        client_body_in_file_only: BodyInFile = BodyInFile::Off,
        client_body_in_single_buffer: bool = false,
        satisfy: Satisfy = Satisfy::All,
        auth_delay: u64 = 0,
        if_modified_since: IfModifiedSince = IfModifiedSince::Exact,
        max_ranges: usize = usize::MAX,
        internal: bool = false,
        sendfile: bool = false,
        sendfile_max_chunk: usize = 2 << 20,
        subrequest_output_buffer_size: usize = 4096,
        directio: Option<u64> = None,
        directio_alignment: u64 = 512,
        tcp_nopush: bool = false,
        tcp_nodelay: bool = true,
        send_timeout: u64 = 60_000,
        send_lowat: usize = 0,
        postpone_output: usize = 1460,
        limit_rate: Option<Template> = None,
        limit_rate_after: Option<Template> = None,
        keepalive_time: u64 = 3_600_000,
        /// Milliseconds, and the seconds told in `Keep-Alive`, 0 for none.
        keepalive_timeout: (u64, u64) = (75_000, 0),
        keepalive_min_timeout: u64 = 0,
        keepalive_requests: usize = 1000,
        /// Bits of [`KEEPALIVE_DISABLE`].
        keepalive_disable: u32 = 2,
        lingering_close: Lingering = Lingering::On,
        lingering_time: u64 = 30_000,
        lingering_timeout: u64 = 5_000,
        resolver: Option<Arc<crate::net::resolver::Resolver>> = None,
        resolver_timeout: u64 = 30_000,
        reset_timedout_connection: bool = false,
        absolute_redirect: bool = true,
        server_name_in_redirect: bool = false,
        port_in_redirect: bool = true,
        msie_padding: bool = true,
        msie_refresh: bool = false,
        log_not_found: bool = true,
        log_subrequest: bool = false,
        recursive_error_pages: bool = false,
        server_tokens: Tokens = Tokens::On,
        chunked_transfer_encoding: bool = true,
        etag: bool = true,
        /// Where to go once the response is sent; empty for nowhere.
        post_action: Bytes = Bytes::new(),
        error_pages: Vec<Arc<ErrorPage>> = Vec::new(),
        error_log: ErrorLogBuilder = ErrorLogBuilder::default(),
    }
}

const KEEPALIVE_DISABLE: &[(&str, u32)] = &[("none", 1), ("msie6", MSIE6), ("safari", SAFARI)];
/// `keepalive_disable msie6`
pub const MSIE6: u32 = 2;
/// `keepalive_disable safari`
pub const SAFARI: u32 = 4;

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, cf: &mut Build) -> Outcome {
        self.inherit(parent);
        if !self.client_body_temp_path.is_set() {
            self.client_body_temp_path.put(cf.default_temp_path("client_body"));
        }
        if !self.root.is_set() {
            // The default, which is relative: made absolute once, at the top.
            let path = path_bytes(cf.full_path(b"html"));
            self.root.put(Root { path: Template::constant(path), alias: None });
        }
        Ok(())
    }
}

impl Module for Core {
    type Main = ();
    type Srv = Srv;
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_core",
        setters: &[
            ("server", conf::server_block),
            ("location", conf::location_block),
            ("limit_except", conf::limit_except_block),
            ("listen", listen::directive),
            ("server_name", conf::server_name),
            ("client_header_buffer_size", |cf, d| {
                set::size(&mut cf.http.srv().core().client_header_buffer_size, d)
            }),
            ("large_client_header_buffers", |cf, d| {
                set::buffers(&mut cf.http.srv().core().large_client_header_buffers, d)
            }),
            ("client_header_timeout", |cf, d| set::msec(&mut cf.http.srv().core().client_header_timeout, d)),
            ("max_headers", |cf, d| set::number(&mut cf.http.srv().core().max_headers, d)),
            ("ignore_invalid_headers", |cf, d| {
                set::flag(&mut cf.http.srv().core().ignore_invalid_headers, d)
            }),
            ("merge_slashes", |cf, d| set::flag(&mut cf.http.srv().core().merge_slashes, d)),
            ("underscores_in_headers", |cf, d| {
                set::flag(&mut cf.http.srv().core().underscores_in_headers, d)
            }),
            ("connection_pool_size", |cf, d| pool_size(&mut cf.http.srv().core().connection_pool_size, d)),
            ("request_pool_size", |cf, d| pool_size(&mut cf.http.srv().core().request_pool_size, d)),
            ("root", root::directive),
            ("alias", root::directive),
            ("types", types),
            ("default_type", |cf, d| set::text(&mut cf.http.loc().core().default_type, d)),
            ("client_max_body_size", |cf, d| set::offset(&mut cf.http.loc().core().client_max_body_size, d)),
            ("client_body_buffer_size", |cf, d| {
                set::size(&mut cf.http.loc().core().client_body_buffer_size, d)
            }),
            ("client_body_timeout", |cf, d| set::msec(&mut cf.http.loc().core().client_body_timeout, d)),
            ("client_body_temp_path", client_body_temp_path),
            ("client_body_in_file_only", |cf, d| {
                let words = [("off", BodyInFile::Off), ("on", BodyInFile::On), ("clean", BodyInFile::Clean)];
                set::choice(&mut cf.http.loc().core().client_body_in_file_only, d, &words)
            }),
            ("client_body_in_single_buffer", |cf, d| {
                set::flag(&mut cf.http.loc().core().client_body_in_single_buffer, d)
            }),
            ("satisfy", |cf, d| {
                let words = [("all", Satisfy::All), ("any", Satisfy::Any)];
                set::choice(&mut cf.http.loc().core().satisfy, d, &words)
            }),
            ("auth_delay", |cf, d| set::msec(&mut cf.http.loc().core().auth_delay, d)),
            ("if_modified_since", |cf, d| {
                let words = [
                    ("off", IfModifiedSince::Off),
                    ("exact", IfModifiedSince::Exact),
                    ("before", IfModifiedSince::Before),
                ];
                set::choice(&mut cf.http.loc().core().if_modified_since, d, &words)
            }),
            ("max_ranges", |cf, d| set::number(&mut cf.http.loc().core().max_ranges, d)),
            ("internal", |cf, _| cf.http.loc().core().internal.set(true)),
            ("sendfile", |cf, d| set::flag(&mut cf.http.loc().core().sendfile, d)),
            ("sendfile_max_chunk", |cf, d| set::size(&mut cf.http.loc().core().sendfile_max_chunk, d)),
            ("subrequest_output_buffer_size", |cf, d| {
                set::size(&mut cf.http.loc().core().subrequest_output_buffer_size, d)
            }),
            ("directio", directio),
            ("directio_alignment", |cf, d| set::offset(&mut cf.http.loc().core().directio_alignment, d)),
            ("tcp_nopush", |cf, d| set::flag(&mut cf.http.loc().core().tcp_nopush, d)),
            ("tcp_nodelay", |cf, d| set::flag(&mut cf.http.loc().core().tcp_nodelay, d)),
            ("send_timeout", |cf, d| set::msec(&mut cf.http.loc().core().send_timeout, d)),
            ("send_lowat", |cf, d| {
                set::size(&mut cf.http.loc().core().send_lowat, d)?;
                cf.warn(d.at(), "\"send_lowat\" is not supported, ignored");
                Ok(())
            }),
            ("postpone_output", |cf, d| set::size(&mut cf.http.loc().core().postpone_output, d)),
            ("limit_rate", |cf, d| {
                cf.http.loc().core().limit_rate.once()?;
                let value = rate(cf, d)?;
                cf.http.loc().core().limit_rate.set(Some(value))
            }),
            ("limit_rate_after", |cf, d| {
                cf.http.loc().core().limit_rate_after.once()?;
                let value = rate(cf, d)?;
                cf.http.loc().core().limit_rate_after.set(Some(value))
            }),
            ("keepalive_time", |cf, d| set::msec(&mut cf.http.loc().core().keepalive_time, d)),
            ("keepalive_timeout", keepalive_timeout),
            ("keepalive_min_timeout", |cf, d| set::msec(&mut cf.http.loc().core().keepalive_min_timeout, d)),
            ("keepalive_requests", |cf, d| set::number(&mut cf.http.loc().core().keepalive_requests, d)),
            ("keepalive_disable", |cf, d| {
                let mut warnings = Vec::new();
                let to = &mut cf.http.loc().core().keepalive_disable;
                set::bits(to, d, KEEPALIVE_DISABLE, |w| warnings.push(w))?;
                warnings.into_iter().for_each(|w| cf.warn(d.at(), w));
                Ok(())
            }),
            ("lingering_close", |cf, d| {
                let words = [("off", Lingering::Off), ("on", Lingering::On), ("always", Lingering::Always)];
                set::choice(&mut cf.http.loc().core().lingering_close, d, &words)
            }),
            ("lingering_time", |cf, d| set::msec(&mut cf.http.loc().core().lingering_time, d)),
            ("lingering_timeout", |cf, d| set::msec(&mut cf.http.loc().core().lingering_timeout, d)),
            ("resolver", |cf, d| crate::conf::resolver::set(&mut cf.http.loc().core().resolver, d)),
            ("resolver_timeout", |cf, d| set::msec(&mut cf.http.loc().core().resolver_timeout, d)),
            ("reset_timedout_connection", |cf, d| {
                set::flag(&mut cf.http.loc().core().reset_timedout_connection, d)
            }),
            ("absolute_redirect", |cf, d| set::flag(&mut cf.http.loc().core().absolute_redirect, d)),
            ("server_name_in_redirect", |cf, d| {
                set::flag(&mut cf.http.loc().core().server_name_in_redirect, d)
            }),
            ("port_in_redirect", |cf, d| set::flag(&mut cf.http.loc().core().port_in_redirect, d)),
            ("msie_padding", |cf, d| set::flag(&mut cf.http.loc().core().msie_padding, d)),
            ("msie_refresh", |cf, d| set::flag(&mut cf.http.loc().core().msie_refresh, d)),
            ("log_not_found", |cf, d| set::flag(&mut cf.http.loc().core().log_not_found, d)),
            ("log_subrequest", |cf, d| set::flag(&mut cf.http.loc().core().log_subrequest, d)),
            ("recursive_error_pages", |cf, d| set::flag(&mut cf.http.loc().core().recursive_error_pages, d)),
            ("server_tokens", |cf, d| {
                let words = [("off", Tokens::Off), ("on", Tokens::On), ("build", Tokens::Build)];
                set::choice(&mut cf.http.loc().core().server_tokens, d, &words)
            }),
            ("chunked_transfer_encoding", |cf, d| {
                set::flag(&mut cf.http.loc().core().chunked_transfer_encoding, d)
            }),
            ("etag", |cf, d| set::flag(&mut cf.http.loc().core().etag, d)),
            ("post_action", |cf, d| set::text(&mut cf.http.loc().core().post_action, d)),
            ("error_page", crate::http::error_page::directive),
            ("error_log", |cf, d| {
                let mut log = std::mem::take(cf.http.loc().core().error_log.edit());
                let read = crate::conf::core::add_error_log(cf, d, &mut log);
                cf.http.loc().core().error_log.put(log);
                read
            }),
        ],
    };
    const VARIABLES: &'static [Builtin<Request>] = variables::VARIABLES;
    const PREFIXES: &'static [Prefix<Request>] = variables::PREFIXES;
}

/// Bytes of an empty pool (NGX_MIN_POOL_SIZE on 64-bit systems), and what its size must be a multiple of.
const MIN_POOL: usize = 112;
const POOL_ALIGNMENT: usize = 16;

fn pool_size(to: &mut crate::conf::Setting<usize>, d: &Directive<'_>) -> Outcome {
    set::size(to, d)?;
    if **to < MIN_POOL {
        return Err(Fault::here(format!("the pool size must be no less than {MIN_POOL}")));
    }
    if !to.is_multiple_of(POOL_ALIGNMENT) {
        return Err(Fault::here(format!("the pool size must be a multiple of {POOL_ALIGNMENT}")));
    }
    Ok(())
}

fn rate(cf: &mut Build, d: &Directive<'_>) -> Outcome<Template> {
    let value = cf.http.template(d.arg(1))?;
    match value.as_constant() {
        Some(text) if units::size(text).is_none() => Err(Fault::directive("invalid value")),
        _ => Ok(value),
    }
}

fn types(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let mut types = if cf.http.loc().core().types.is_set() {
        (**cf.http.loc().core().types).clone()
    } else {
        Types::default()
    };
    if let Some(items) = d.block() {
        types.read(items, &mut cf.messages)?;
    }
    cf.http.loc().core().types.put(Arc::new(types));
    Ok(())
}

fn client_body_temp_path(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.http.loc().core().client_body_temp_path.once()?;
    let path = crate::conf::core::temp_path(cf, d)?;
    cf.http.loc().core().client_body_temp_path.set(path)
}

fn directio(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to = &mut cf.http.loc().core().directio;
    to.once()?;
    if d.arg(1) == b"off" {
        return to.set(None);
    }
    to.set(Some(units::offset(d.arg(1)).ok_or(Fault::directive("invalid value"))?))
}

fn keepalive_timeout(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to = &mut cf.http.loc().core().keepalive_timeout;
    to.once()?;
    let timeout = units::milliseconds(d.arg(1)).ok_or(Fault::directive("invalid value"))?;
    let header = match d.len() {
        3 => units::seconds(d.arg(2)).ok_or(Fault::directive("invalid value"))?,
        _ => 0,
    };
    to.set((timeout, header))
}

/// The bytes a second of `limit_rate` or its like for a request; 0 is no limit.
pub fn rate_of(template: &Option<Template>, req: &Request) -> usize {
    template.as_ref().and_then(|t| units::size(&t.eval(req))).unwrap_or(0)
}
