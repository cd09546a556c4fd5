//! From files to [`Ir`]: reads the text of `-g` and the configuration, sets everything, and makes the checks that
//! nginx makes once it is read.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::core;
use super::grammar::Context;
use super::listen::{Port, Side};
use super::{Build, Outcome};
use crate::http::Http;
use crate::log::{self, Level, OpenFiles};
use crate::net::listen::Listen;
use crate::process::{self, Core};
use crate::stream::Stream;
use crate::syntax::{self, LoadOptions, Tree};

/// What to read, and what nginx has compiled in or from its command line. All paths are whole.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// `-c`
    pub conf_file: PathBuf,
    /// Relative paths of included files, keys and the like start here.
    pub conf_prefix: PathBuf,
    /// Relative paths of logs, the pid file and the like start here.
    pub prefix: PathBuf,
    /// `-g`: directives in front of the file's.
    pub parameters: Option<&'a str>,
    /// `-t`
    pub testing: bool,
    /// Where messages go when no `error_log` names a file; none is standard error.
    pub error_log: Option<PathBuf>,
    /// Where the configuration names no `pid`.
    pub pid: PathBuf,
    /// The folder of temporary files that have no `*_temp_path`; none is `*_temp` in the prefix, as in nginx's own
    /// build.
    pub temp: Option<PathBuf>,
}

/// Debian's layout: the prefix without `-p`, and where temporary files then go.
const DEBIAN_PREFIX: &str = "/usr/share/nginx/";
const DEBIAN_TEMP: &str = "/var/lib/nginx";

/// What is to be told, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A line of the error log, position included.
    Log(Level, String),
    /// The files were read without error; `-t` says `syntax is ok` here.
    SyntaxIsOk,
}

/// A configuration, complete: nothing of it can be found invalid later.
pub struct Ir {
    /// Settings of processes.
    pub core: Core,
    /// The http block.
    pub http: Option<Http>,
    /// The stream block.
    pub stream: Option<Stream>,
    /// Log files, to be opened.
    pub files: OpenFiles,
    /// Directories to make.
    pub directories: Vec<PathBuf>,
    /// Sockets to open, in nginx's order, and whose each is: the index into its side's ports.
    pub sockets: Vec<Socket>,
    /// The files read, in order, each once, for `-T`.
    pub sources: Vec<(PathBuf, Vec<u8>)>,
}

/// A socket to open and whom its connections are for.
#[derive(Clone, Debug)]
pub struct Socket {
    pub listen: Listen,
    pub side: Side,
    /// Index into the ports of the side.
    pub port: usize,
}

/// Reads and checks a configuration. Nothing is printed: messages are left in `messages`, where the last one says
/// why, if it is not usable.
pub fn load(options: &Options<'_>, messages: &mut Vec<Message>) -> Result<Ir, NotLoaded> {
    let mut cf = Build::new(options);
    let made = read(options, &mut cf, messages);
    if let Err(fault) = &made {
        cf.messages.push((Level::Emerg, fault.text(b"", "")));
    }
    drain(&mut cf, messages);
    made.map_err(|_| NotLoaded)
}

/// Reads and checks the configuration that the command line names, and logs what there is to tell.
pub fn load_and_tell(options: &process::LoadOptions<'_>) -> Result<Ir, NotLoaded> {
    let paths = options.paths;
    let own = Options {
        conf_file: paths.conf_file.clone(),
        conf_prefix: paths.conf_prefix.clone(),
        prefix: paths.prefix.clone(),
        parameters: options.parameters,
        testing: options.test(),
        error_log: paths.error_log.clone(),
        pid: paths.pid.clone(),
        temp: (paths.prefix.as_os_str() == DEBIAN_PREFIX).then(|| PathBuf::from(DEBIAN_TEMP)),
    };
    let mut messages = Vec::new();
    let loaded = load(&own, &mut messages);
    for message in messages {
        match message {
            Message::Log(level, text) => log::error(options.log, level, None, format_args!("{text}")),
            Message::SyntaxIsOk => options.syntax_is_ok(),
        }
    }
    loaded
}

/// The configuration is not usable; why is the last message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLoaded;

fn read(options: &Options<'_>, cf: &mut Build, messages: &mut Vec<Message>) -> Outcome<Ir> {
    let mut prefix = options.conf_prefix.as_os_str().as_bytes().to_vec();
    if !prefix.is_empty() && !prefix.ends_with(b"/") {
        prefix.push(b'/');
    }
    let how = LoadOptions::new(prefix);
    let mut sources = Vec::new();
    if let Some(parameters) = options.parameters {
        walk(cf, &syntax::parse_str(parameters.as_bytes(), &how), &mut sources)?;
    }
    walk(cf, &syntax::load(&options.conf_file, &how), &mut sources)?;
    drain(cf, messages);
    messages.push(Message::SyntaxIsOk);

    let (http, stream) = (cf.http_ready.take(), cf.stream_ready.take());
    let mut sockets = Vec::new();
    for side in &cf.sides {
        let ports: &[Port] = match side {
            Side::Http => http.as_ref().map_or(&[], |http| &http.ports),
            Side::Stream => stream.as_ref().map_or(&[], |stream| &stream.ports),
        };
        let own = ports.iter().enumerate();
        sockets.extend(own.map(|(index, port)| Socket {
            listen: port.listen.clone(),
            side: *side,
            port: index,
        }));
    }
    cf.zones.check()?;
    let core = core::finish(cf, sockets.len())?;
    Ok(Ir {
        core,
        http,
        stream,
        files: cf.files.clone(),
        directories: std::mem::take(&mut cf.directories),
        sockets,
        sources,
    })
}

fn walk(cf: &mut Build, tree: &Tree, sources: &mut Vec<(PathBuf, Vec<u8>)>) -> Outcome {
    sources.extend(tree.files().map(|(name, text)| (super::build::path(name), text.to_vec())));
    cf.items(tree.items(), Context::MAIN)
}

fn drain(cf: &mut Build, messages: &mut Vec<Message>) {
    messages.extend(cf.messages.drain(..).map(|(level, text)| Message::Log(level, text)));
}

impl Ir {
    /// The sockets to open, for [`crate::net::listen::open`].
    pub fn listens(&self) -> Vec<Listen> {
        self.sockets.iter().map(|socket| socket.listen.clone()).collect()
    }
}
