//! What is known while the configuration is read, and how a directive finds its setter.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::core::CoreBuild;
use super::finding::{self, Finding};
use super::grammar::{self, Context, Row, Support};
use super::listen::Side;
use super::load::Options;
use super::zones::Zones;
use super::{Fault, Outcome, Setting};
use crate::http::Http;
use crate::http::checked;
use crate::http::conf::HttpBuild;
use crate::log::{ErrorLog, ErrorLogBuilder, Level, OpenFiles};
use crate::stream::Stream;
use crate::stream::conf::StreamBuild;
use crate::syntax::{Directive, Item, Items};

/// Reads one directive into the settings it belongs to.
pub type Setter = fn(&mut Build, &Directive<'_>) -> Outcome;

/// What a module brings to the language: its name in the grammar, and a setter a directive.
pub struct Commands {
    /// The grammar's module column.
    pub module: &'static str,
    /// Directive and setter.
    pub setters: &'static [(&'static str, Setter)],
}

/// A directive and its setter.
pub type Entry = (&'static str, Setter);

/// Two lists of directives as one; `N` is how long both are together.
pub const fn both<const N: usize>(first: &[Entry], second: &[Entry]) -> [Entry; N] {
    assert!(first.len() + second.len() == N);
    let mut all = [first[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < first.len() { first[at] } else { second[at - first.len()] };
        at += 1;
    }
    all
}

/// Everything that is being built from one configuration.
pub struct Build {
    /// Relative paths of logs, pid and other files start here.
    pub prefix: PathBuf,
    /// Relative paths of includes, certificates and password files start here.
    pub conf_prefix: PathBuf,
    /// `nginx -t`, `-T`: nothing will be served.
    pub testing: bool,
    /// The main and events contexts.
    pub core: CoreBuild,
    /// The http block.
    pub http: HttpBuild,
    /// The stream block.
    pub stream: StreamBuild,
    /// The http block, once it is closed.
    pub http_ready: Option<Http>,
    /// The stream block, once it is closed.
    pub stream_ready: Option<Stream>,
    /// The blocks that were begun, in order.
    pub sides: Vec<Side>,
    /// Log files, to be opened once all is known to be right.
    pub files: OpenFiles,
    /// Shared memory zones.
    pub zones: Zones,
    /// Directories to make, each once.
    pub directories: Vec<PathBuf>,
    /// Where all that is wrong is to be told: what was found so far. None where the first fault ends it.
    pub findings: Option<Vec<Finding>>,
    /// What directives of modules that are not there said.
    pub checked: checked::Known,
    /// Where messages go when no `error_log` names a file; none is standard error.
    pub default_error_log: Option<PathBuf>,
    /// Where the configuration names no `pid`.
    pub default_pid: PathBuf,
    /// ` in FILE:LINE` of the end of the block that is being closed: the position of warnings while blocks are merged.
    pub here: String,
    /// What is wrong with blocks that are being merged.
    pub(super) merging: super::merging::Faults,
    /// The log of the main level, for blocks without one of their own; what it takes is known when all is read.
    pub main_log: ErrorLog,
    /// Warnings and notices in the order they arose.
    pub messages: Vec<(Level, String)>,
}

/// Debian's layout, which nxr has without `-p`: the prefix, and the folder of temporary files.
const DEBIAN_PREFIX: &str = "/usr/share/nginx/";
const DEBIAN_TEMP: &str = "/var/lib/nginx";

impl Build {
    /// Nothing read yet.
    pub fn new(options: &Options<'_>) -> Build {
        Build {
            prefix: options.prefix.clone(),
            conf_prefix: options.conf_prefix.clone(),
            testing: options.testing,
            core: CoreBuild::default(),
            http: HttpBuild::default(),
            stream: StreamBuild::default(),
            http_ready: None,
            stream_ready: None,
            sides: Vec::new(),
            files: OpenFiles::new(),
            zones: Zones::default(),
            directories: Vec::new(),
            findings: None,
            checked: checked::Known::default(),
            default_error_log: options.error_log.clone(),
            default_pid: options.pid.clone(),
            here: String::new(),
            merging: Default::default(),
            main_log: ErrorLog::pending(),
            messages: Vec::new(),
        }
    }

    /// Where temporary files of a kind (`client_body`, `proxy`, ...) go without a `*_temp_path`; made at start.
    pub fn default_temp_path(&mut self, kind: &str) -> PathBuf {
        let path = if self.prefix.as_os_str() == DEBIAN_PREFIX {
            let folder = PathBuf::from(DEBIAN_TEMP);
            if !folder.exists() {
                self.add_directory(folder.clone());
            }
            folder.join(kind.strip_prefix("client_").unwrap_or(kind))
        } else {
            self.prefix.join(format!("{kind}_temp"))
        };
        self.add_directory(path.clone());
        path
    }

    /// A directory to make at start.
    pub fn add_directory(&mut self, path: PathBuf) {
        if !self.directories.contains(&path) {
            self.directories.push(path);
        }
    }

    /// Notes a warning about a directive.
    pub fn warn(&mut self, at: impl Display, sentence: impl Display) {
        self.messages.push((Level::Warn, format!("{sentence}{at}")));
    }

    /// A path from the configuration, made absolute against the prefix.
    pub fn full_path(&self, path: &[u8]) -> PathBuf {
        join(&self.prefix, path)
    }

    /// A path from the configuration, made absolute against the configuration's folder.
    pub fn conf_path(&self, path: &[u8]) -> PathBuf {
        join(&self.conf_prefix, path)
    }

    /// The log that the `error_log` directives of a level make, or the main one.
    pub fn error_log(&self, own: &Setting<ErrorLogBuilder>) -> ErrorLog {
        match own.is_set() {
            true => (**own).clone().build(),
            false => self.main_log.clone(),
        }
    }

    /// Handles every directive of a block in `context`.
    pub fn block(&mut self, d: &Directive<'_>, context: Context) -> Outcome {
        match d.block() {
            Some(items) => self.items(items, context),
            None => Ok(()),
        }
    }

    /// Handles items in order; the first fault ends it, with its position.
    pub fn items(&mut self, items: Items<'_>, context: Context) -> Outcome {
        for item in items {
            match item {
                Item::Directive(d) => {
                    let before = self.errors();
                    if let Err(fault) = self.directive(&d, context) {
                        self.gather(&d, context, &fault, before)?;
                    }
                }
                Item::Error(error) => match &mut self.findings {
                    Some(findings) => findings.push(Finding::syntax(error)),
                    None => return Err(Fault::whole(error)),
                },
            }
        }
        Ok(())
    }

    /// How many errors were found.
    fn errors(&self) -> usize {
        let findings = self.findings.iter().flatten();
        findings.filter(|finding| finding.kind == finding::Kind::Error).count()
    }

    /// Notes a fault where all are to be told. What is wrong with a block as a whole may come of errors inside it,
    /// and is left out then.
    fn gather(&mut self, d: &Directive<'_>, context: Context, fault: &Fault, before: usize) -> Outcome {
        let follows = d.has_block() && self.errors() > before;
        let Some(findings) = &mut self.findings else {
            return Err(Fault::Whole(fault.text(d.name(), d.at())));
        };
        let finding = Finding::fault(d, context, fault);
        if !follows || finding.is_its_own() {
            findings.push(finding);
        }
        Ok(())
    }

    fn directive(&mut self, d: &Directive<'_>, context: Context) -> Outcome {
        let row = match grammar::check(context, d) {
            Ok(row) => row,
            Err(sentence) => {
                return match grammar::third_party(d.name()) {
                    Some(module) => self.lacks_module(d, module, sentence),
                    None => Err(Fault::Here(sentence)),
                };
            }
        };
        if let Some(items) = d.included() {
            return self.items(items, context);
        }
        if let (Support::Accepted(why), Some(findings)) = (row.support, &mut self.findings) {
            findings.push(Finding::ignored(d, why));
        }
        match (&row.support, setter(row)) {
            (Support::No, _) => self.lacks_module(d, row.module, grammar::unknown(d.name())),
            (_, Some(set)) => set(self, d),
            (_, None) => checked::directive(self, d, row),
        }
    }

    fn lacks_module(&mut self, d: &Directive<'_>, module: &str, sentence: String) -> Outcome {
        if let Some(findings) = &mut self.findings {
            findings.push(Finding::lacking(d, module));
            return Ok(());
        }
        self.messages.push((Level::Warn, format!("{}{}", grammar::lacks(d.name(), module), d.at())));
        Err(Fault::Here(sentence))
    }
}

/// Bytes as a path; what follows a zero byte is left out, as where nginx hands a path to the system.
pub fn path(bytes: &[u8]) -> PathBuf {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn join(base: &Path, bytes: &[u8]) -> PathBuf {
    base.join(path(bytes))
}

/// All modules' commands.
pub(super) fn commands() -> impl Iterator<Item = &'static Commands> {
    super::core::COMMANDS.iter().chain(crate::http::modules::COMMANDS).chain(crate::stream::modules::COMMANDS)
}

/// The setter of a grammar row; rows accepted without effect have none.
pub fn setter(row: &Row) -> Option<Setter> {
    static TABLE: OnceLock<HashMap<(&'static str, &'static str), Setter>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        commands().flat_map(|c| c.setters.iter().map(|(name, set)| ((c.module, *name), *set))).collect()
    });
    table.get(&(row.module, row.name)).copied()
}
