//! `ngx_stream_map`: the `map` block; what it does is in [`crate::value::map`].

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome, set};
use crate::settings;
use crate::stream::module::Module;
use crate::syntax::Directive;
use crate::value::map::{HashSize, map_block};

/// The module.
pub struct Map;

settings! {
    /// Sizes of nginx's hash tables; they only decide which keys are refused.
    pub struct Main {
        max_size: usize = HashSize::default().max,
        bucket_size: usize = HashSize::default().bucket,
    }
}

impl Conf for Main {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

impl Module for Map {
    type Main = Main;
    type Srv = ();
    const COMMANDS: Commands = Commands {
        module: "ngx_stream_map",
        setters: &[
            ("map", map),
            ("map_hash_max_size", |cf, d| set::number(&mut cf.stream.main().map().max_size, d)),
            ("map_hash_bucket_size", |cf, d| set::number(&mut cf.stream.main().map().bucket_size, d)),
        ],
    };
}

fn map(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let conf = cf.stream.main().map();
    let size = HashSize { max: *conf.max_size, bucket: *conf.bucket_size };
    // After the first map the sizes are settled.
    conf.max_size.put(size.max);
    conf.bucket_size.put(size.bucket);
    map_block(cf, d, |cf| &mut cf.stream.vars, size)
}
