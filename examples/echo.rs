//! A server that echoes lines, on the `process` room alone. Its configuration file has one `word value` a line:
//!
//! ```text
//! listen 127.0.0.1:8080
//! threads 2
//! greeting hello
//! ```
//!
//! A connection is greeted, then each line comes back; the line `panic` makes its task panic.

use nxr::log::{ErrorLogBuilder, Level, OpenFile, OpenFiles, Target, error, error_errno};
use nxr::net::listen::{Address, Listen};
use nxr::process::{
    Accepted, Account, Configuration, Core, LoadOptions, Loaded, NotLoaded, Stream, Thread, exiting, stats,
};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::watch;

thread_local! {
    static CLOSING: watch::Sender<bool> = watch::Sender::new(false);
    static INDEX: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

struct Echo {
    core: Core,
    listens: Vec<Listen>,
    files: OpenFiles,
    access: Arc<OpenFile>,
    greeting: String,
}

impl Configuration for Echo {
    fn core(&self) -> &Core {
        &self.core
    }

    fn listens(&self) -> &[Listen] {
        &self.listens
    }

    fn files(&self) -> &OpenFiles {
        &self.files
    }

    fn start_thread(&'static self, thread: Thread) {
        INDEX.set(thread.index);
    }

    fn accepted(&'static self, _: usize, accepted: Accepted) {
        tokio::task::spawn_local(async move {
            let slot = accepted.slot;
            // A client that goes away is no news.
            let _ = match accepted.stream {
                Stream::Tcp(stream) => self.echo(stream).await,
                Stream::Unix(stream) => self.echo(stream).await,
            };
            drop(slot);
        });
    }

    fn close_idle(&'static self) {
        CLOSING.with(|closing| closing.send_replace(true));
    }
}

impl Echo {
    async fn echo(&self, stream: impl AsyncRead + AsyncWrite) -> std::io::Result<()> {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut lines = BufReader::new(reader).lines();
        let greeting = format!("{} {} {}\n", self.greeting, std::process::id(), INDEX.get());
        writer.write_all(greeting.as_bytes()).await?;
        let mut closing = CLOSING.with(watch::Sender::subscribe);
        // Who has just come is served once, as in nginx.
        let mut busy = true;
        while busy || !exiting() {
            let line = tokio::select! {
                line = lines.next_line() => line?,
                _ = closing.changed(), if !busy => break,
            };
            let Some(line) = line else { break };
            assert!(line != "panic", "asked to");
            // A line that ends in a comma is the first half of something.
            busy = line.ends_with(',');
            stats().requests.fetch_add(1, Ordering::Relaxed);
            self.access.write_line(format!("{line}\n").as_bytes(), &self.core.error_log);
            writer.write_all(format!("{line}\n").as_bytes()).await?;
        }
        Ok(())
    }
}

fn load(options: &LoadOptions<'_>) -> Result<Loaded, NotLoaded> {
    let path = &options.paths.conf_file;
    let fail = |message: std::fmt::Arguments<'_>| {
        error(options.log, Level::Emerg, None, message);
        NotLoaded
    };
    let text = std::fs::read_to_string(path).map_err(|reason| {
        error_errno(
            options.log,
            Level::Emerg,
            None,
            &reason,
            format_args!("open() \"{}\" failed", path.display()),
        );
        NotLoaded
    })?;
    let files = OpenFiles::new();
    let mut log = ErrorLogBuilder::new();
    let error_log = options.paths.prefix.join("error.log");
    log.add(Target::File(files.add(error_log)), Level::Debug);
    let log = log.build();
    let mut core = Core::new(options.paths.pid.clone(), log.clone());
    let mut listens = Vec::new();
    let mut greeting = String::new();
    for line in text.lines().chain(options.parameters) {
        let (word, value) =
            line.split_once(' ').ok_or_else(|| fail(format_args!("unexpected \"{line}\"")))?;
        let number = || value.parse::<usize>().map_err(|_| fail(format_args!("invalid number \"{value}\"")));
        match word {
            "listen" => {
                let address = match value.strip_prefix("unix:") {
                    Some(path) => Address::Unix(PathBuf::from(path)),
                    None => {
                        let address = value.parse();
                        Address::Inet(address.map_err(|_| fail(format_args!("invalid address \"{value}\"")))?)
                    }
                };
                listens.push(Listen::new(address, log.clone()));
            }
            "threads" => core.worker_processes = number()?,
            "connections" => core.worker_connections = number()?,
            "shutdown" => core.shutdown_timeout = Some(Duration::from_millis(number()? as u64)),
            "user" => {
                let account = Account::find(value, None).or_else(|_| Account::find(value, Some("nogroup")));
                core.user = Some(account.map_err(|reason| fail(format_args!("{reason}")))?);
            }
            "daemon" => core.daemon = value == "on",
            "master" => core.master = value == "on",
            "greeting" => greeting = value.to_owned(),
            _ => return Err(fail(format_args!("unknown directive \"{word}\""))),
        }
    }
    options.syntax_is_ok();
    let access = files.add(options.paths.prefix.join("access.log"));
    let dumped = vec![(path.clone(), text.into_bytes())];
    Ok(Loaded { configuration: Box::new(Echo { core, listens, files, access, greeting }), files: dumped })
}

fn main() -> ExitCode {
    nxr::cli::main(std::env::args_os().collect(), &load)
}
