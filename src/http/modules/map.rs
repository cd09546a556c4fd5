//! `ngx_http_map`: the `map` block; what it does is in [`crate::value::map`].

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome, set};
use crate::http::module::Module;
use crate::settings;
use crate::syntax::Directive;
use crate::value::keys::HashSize;
use crate::value::map::map_block;

/// The module.
pub struct Map;

settings! {
    /// Sizes of nginx's hash tables; they only decide which keys are refused.
    pub struct MainConf {
        max_size: usize = HashSize::default().max,
        bucket_size: usize = HashSize::default().bucket,
    }
}

impl Conf for MainConf {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

impl Module for Map {
    type Main = MainConf;
    type Srv = ();
    type Loc = ();
    const COMMANDS: Commands = Commands {
        module: "ngx_http_map",
        setters: &[
            ("map", map),
            ("map_hash_max_size", |cf, d| set::number(&mut cf.http.main().map().max_size, d)),
            ("map_hash_bucket_size", |cf, d| set::number(&mut cf.http.main().map().bucket_size, d)),
        ],
    };
}

fn map(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let conf = cf.http.main().map();
    let size = HashSize { max: *conf.max_size, bucket: *conf.bucket_size };
    // After the first map the sizes are settled.
    conf.max_size.put(size.max);
    conf.bucket_size.put(size.bucket);
    map_block(cf, d, |cf| &mut cf.http.vars, size)
}
