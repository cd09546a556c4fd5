//! Directives of `ngx_http_core` that tune what nxr does otherwise: checked as nginx checks them, without effect.
//! Their rows in `grammar/` say why.

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, set, units};
use crate::http::module::Module;
use crate::settings;
use crate::syntax::Directive;

/// The module.
pub struct Tuning;

settings! {
    /// Sizes of nginx's hash tables.
    pub struct Main {
        server_names_hash_max_size: usize = 512,
        server_names_hash_bucket_size: usize = 64,
        variables_hash_max_size: usize = 1024,
        variables_hash_bucket_size: usize = 64,
    }
}

impl Conf for Main {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

settings! {
    /// How files are read.
    pub struct Loc {
        types_hash_max_size: usize = 1024,
        types_hash_bucket_size: usize = 64,
        aio: () = (),
        aio_write: bool = false,
        read_ahead: usize = 0,
        open_file_cache: () = (),
        /// Seconds.
        open_file_cache_valid: u64 = 60,
        open_file_cache_min_uses: usize = 1,
        open_file_cache_errors: bool = false,
        open_file_cache_events: bool = false,
    }
}

impl Conf for Loc {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for Tuning {
    type Main = Main;
    type Srv = ();
    type Loc = Loc;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_core",
        setters: &[
            ("server_names_hash_max_size", |cf, d| {
                set::number(&mut cf.http.main().tuning().server_names_hash_max_size, d)
            }),
            ("server_names_hash_bucket_size", |cf, d| {
                set::number(&mut cf.http.main().tuning().server_names_hash_bucket_size, d)
            }),
            ("variables_hash_max_size", |cf, d| {
                set::number(&mut cf.http.main().tuning().variables_hash_max_size, d)
            }),
            ("variables_hash_bucket_size", |cf, d| {
                set::number(&mut cf.http.main().tuning().variables_hash_bucket_size, d)
            }),
            ("types_hash_max_size", |cf, d| set::number(&mut cf.http.loc().tuning().types_hash_max_size, d)),
            ("types_hash_bucket_size", |cf, d| {
                set::number(&mut cf.http.loc().tuning().types_hash_bucket_size, d)
            }),
            ("aio", aio),
            ("aio_write", |cf, d| set::flag(&mut cf.http.loc().tuning().aio_write, d)),
            ("read_ahead", |cf, d| set::size(&mut cf.http.loc().tuning().read_ahead, d)),
            ("open_file_cache", open_file_cache),
            ("open_file_cache_valid", |cf, d| set::sec(&mut cf.http.loc().tuning().open_file_cache_valid, d)),
            ("open_file_cache_min_uses", |cf, d| {
                set::number(&mut cf.http.loc().tuning().open_file_cache_min_uses, d)
            }),
            ("open_file_cache_errors", |cf, d| {
                set::flag(&mut cf.http.loc().tuning().open_file_cache_errors, d)
            }),
            ("open_file_cache_events", |cf, d| {
                set::flag(&mut cf.http.loc().tuning().open_file_cache_events, d)
            }),
        ],
    };
}

fn aio(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.http.loc().tuning().aio.once()?;
    match d.arg(1) {
        b"on" | b"off" => {}
        b"threads" => cf.core.use_thread_pool(None, d),
        word => {
            let name = word.strip_prefix(b"threads=").ok_or(Fault::directive("invalid value"))?;
            if cf.http.template(name)?.as_constant().is_some() {
                cf.core.use_thread_pool(Some(name), d);
            }
        }
    }
    cf.http.loc().tuning().aio.set(())
}

fn open_file_cache(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to = &mut cf.http.loc().tuning().open_file_cache;
    to.once()?;
    let (mut max, mut off) = (false, false);
    for word in d.args() {
        let valid = if let Some(count) = word.strip_prefix(b"max=") {
            max = units::number(count).is_some_and(|count| count > 0);
            max
        } else if let Some(time) = word.strip_prefix(b"inactive=") {
            units::seconds(time).is_some()
        } else {
            off |= word == b"off";
            word == b"off"
        };
        if !valid {
            let shown = String::from_utf8_lossy(word);
            return Err(Fault::here(format!("invalid \"open_file_cache\" parameter \"{shown}\"")));
        }
    }
    if !max && !off {
        return Err(Fault::here("\"open_file_cache\" must have the \"max\" parameter"));
    }
    to.set(())
}
