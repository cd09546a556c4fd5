//! The directives and variables nginx has, from the tables in `grammar/`.

use std::collections::HashMap;
use std::ops::BitOr;
use std::sync::LazyLock;

use crate::syntax::{Directive, MAX_MESSAGE};

const DIRECTIVES: &str = include_str!("../../grammar/directives.tsv");
const VARIABLES: &str = include_str!("../../grammar/variables.tsv");
const THIRD_PARTY: &str = include_str!("../../grammar/third-party.tsv");

/// A set of places where a directive may stand. Blocks with entries instead of directives (`types`, `map`, `geo`,
/// `split_clients`, `charset_map`) are none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context(u16);

impl Context {
    pub const MAIN: Context = Context(1);
    pub const EVENTS: Context = Context(1 << 1);
    pub const HTTP: Context = Context(1 << 2);
    pub const HTTP_SERVER: Context = Context(1 << 3);
    pub const HTTP_LOCATION: Context = Context(1 << 4);
    pub const HTTP_LIMIT_EXCEPT: Context = Context(1 << 5);
    pub const HTTP_UPSTREAM: Context = Context(1 << 6);
    pub const HTTP_SERVER_IF: Context = Context(1 << 7);
    pub const HTTP_LOCATION_IF: Context = Context(1 << 8);
    pub const STREAM: Context = Context(1 << 9);
    pub const STREAM_SERVER: Context = Context(1 << 10);
    pub const STREAM_UPSTREAM: Context = Context(1 << 11);
    pub const MAIL: Context = Context(1 << 12);
    pub const MAIL_SERVER: Context = Context(1 << 13);
    pub const ANY: Context = Context((1 << 14) - 1);

    const NAMES: [(&'static str, Context); 15] = [
        ("main", Context::MAIN),
        ("events", Context::EVENTS),
        ("http", Context::HTTP),
        ("http.server", Context::HTTP_SERVER),
        ("http.location", Context::HTTP_LOCATION),
        ("http.location.limit_except", Context::HTTP_LIMIT_EXCEPT),
        ("http.upstream", Context::HTTP_UPSTREAM),
        ("http.server.if", Context::HTTP_SERVER_IF),
        ("http.location.if", Context::HTTP_LOCATION_IF),
        ("stream", Context::STREAM),
        ("stream.server", Context::STREAM_SERVER),
        ("stream.upstream", Context::STREAM_UPSTREAM),
        ("mail", Context::MAIL),
        ("mail.server", Context::MAIL_SERVER),
        ("any", Context::ANY),
    ];

    pub const fn intersects(self, other: Context) -> bool {
        self.0 & other.0 != 0
    }

    /// The names of the places, as the table spells them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let single = Context::NAMES.iter().take(Context::NAMES.len() - 1);
        single.filter(move |(_, place)| self.intersects(*place)).map(|(name, _)| *name)
    }

    /// Comma-separated names as the table spells them.
    fn parse(names: &str) -> Option<Context> {
        names.split(',').try_fold(Context(0), |set, name| {
            Some(set | Context::NAMES.iter().find(|(known, _)| *known == name)?.1)
        })
    }
}

impl BitOr for Context {
    type Output = Context;

    fn bitor(self, other: Context) -> Context {
        Context(self.0 | other.0)
    }
}

/// How many arguments a directive takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Args {
    /// Bit `n` is set when `n` arguments are right.
    Counts(u8),
    AtLeast(usize),
}

impl Args {
    pub const fn allow(self, count: usize) -> bool {
        match self {
            Args::Counts(set) => count < 8 && set & (1 << count) != 0,
            Args::AtLeast(least) => count >= least,
        }
    }

    /// `1`, `1,2`, `2+`.
    fn parse(text: &str) -> Option<Args> {
        if let Some(least) = text.strip_suffix('+') {
            return Some(Args::AtLeast(least.parse().ok()?));
        }
        let counts = text.split(',').try_fold(0, |set, count| {
            let count: u8 = count.parse().ok().filter(|count| *count < 8)?;
            Some(set | 1 << count)
        })?;
        Some(Args::Counts(counts))
    }
}

/// What nxr does with a directive or variable nginx has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    Supported,
    /// Taken without effect, for the reason given.
    Accepted(&'static str),
    /// Checked as nginx checks it, and refused once all else is known to be right, where it would have an effect.
    Checked,
    /// As if its module were not built in.
    No,
}

impl Support {
    fn parse(text: &'static str) -> Option<Support> {
        match text {
            "supported" => Some(Support::Supported),
            "checked" => Some(Support::Checked),
            "no" => Some(Support::No),
            _ => text.strip_prefix("accepted:").filter(|why| !why.is_empty()).map(Support::Accepted),
        }
    }
}

/// A directive of one module.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub module: &'static str,
    pub name: &'static str,
    pub contexts: Context,
    pub args: Args,
    pub block: bool,
    /// Whether the argument is `on` or `off`.
    pub flag: bool,
    /// Its arguments as the manual writes them; empty where the manual does not have it.
    pub syntax: &'static str,
    pub support: Support,
}

impl Row {
    fn parse(line: &'static str) -> Option<Row> {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[module, name, contexts, args, block, flag, syntax, _default, support] = fields.as_slice()
        else {
            return None;
        };
        Some(Row {
            module,
            name,
            contexts: Context::parse(contexts)?,
            args: Args::parse(args)?,
            block: block == "block",
            flag: flag == "on|off",
            syntax,
            support: Support::parse(support)?,
        })
    }

    fn is_built(&self) -> bool {
        self.support != Support::No
    }
}

/// A variable of one module; with `_` at the end of its name, all that begin so.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    pub scope: Scope,
    pub name: &'static str,
    pub module: &'static str,
    pub support: Support,
}

/// The half of nginx a variable belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Http,
    Stream,
}

impl Variable {
    fn parse(line: &'static str) -> Option<Variable> {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[scope, name, module, support] = fields.as_slice() else { return None };
        let scope = match scope {
            "http" => Scope::Http,
            "stream" => Scope::Stream,
            _ => return None,
        };
        Some(Variable { scope, name, module, support: Support::parse(support)? })
    }
}

fn lines(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.lines().skip(1).filter(|line| !line.is_empty())
}

static TABLE: LazyLock<Vec<Row>> = LazyLock::new(|| lines(DIRECTIVES).filter_map(Row::parse).collect());

static ROWS: LazyLock<HashMap<&'static [u8], Vec<Row>>> = LazyLock::new(|| {
    let mut rows: HashMap<&'static [u8], Vec<Row>> = HashMap::new();
    for row in &*TABLE {
        rows.entry(row.name.as_bytes()).or_default().push(*row);
    }
    rows
});

type Variables = HashMap<&'static [u8], Variable>;

static HTTP_VARIABLES: LazyLock<Variables> = LazyLock::new(|| variables_of(Scope::Http));
static STREAM_VARIABLES: LazyLock<Variables> = LazyLock::new(|| variables_of(Scope::Stream));

fn variables_of(scope: Scope) -> Variables {
    let rows = lines(VARIABLES).filter_map(Variable::parse).filter(|variable| variable.scope == scope);
    rows.map(|variable| (variable.name.as_bytes(), variable)).collect()
}

static THIRD_PARTY_ROWS: LazyLock<HashMap<&'static [u8], &'static str>> = LazyLock::new(|| {
    let rows = lines(THIRD_PARTY).filter_map(|line| line.split_once('\t'));
    rows.map(|(name, module)| (name.as_bytes(), module)).collect()
});

/// Every directive of that name, in whatever context, supported or not.
pub fn rows(name: &[u8]) -> &'static [Row] {
    ROWS.get(name).map_or(&[], Vec::as_slice)
}

/// The directive of that name in a context, supported or not.
pub fn row(context: Context, name: &[u8]) -> Option<&'static Row> {
    rows(name).iter().find(|row| row.contexts.intersects(context))
}

/// All directives, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Row> {
    TABLE.iter()
}

/// The variable of that name, or the family it belongs to (`arg_`, `http_`).
pub fn variable(scope: Scope, name: &[u8]) -> Option<&'static Variable> {
    let variables: &Variables = match scope {
        Scope::Http => &HTTP_VARIABLES,
        Scope::Stream => &STREAM_VARIABLES,
    };
    let family = || {
        let mut ends = memchr::memrchr_iter(b'_', name).map(|at| at + 1).filter(|end| *end < name.len());
        ends.find_map(|end| variables.get(&name[..end]))
    };
    variables.get(name).or_else(family)
}

/// The names of all variables, and of all beginnings of families.
pub fn variable_names() -> impl Iterator<Item = &'static str> {
    HTTP_VARIABLES.values().chain(STREAM_VARIABLES.values()).map(|variable| variable.name)
}

/// The module outside of nginx that has a directive of that name.
pub fn third_party(name: &[u8]) -> Option<&'static str> {
    THIRD_PARTY_ROWS.get(name).copied()
}

/// Finds a directive's row and checks its place, its terminator and the number of its arguments.
///
/// A row with [`Support::No`] comes back unchecked, since nginx without its module would not know the name:
/// the caller names the module and says `unknown directive`.
///
/// # Errors
/// nginx's words, without the position.
pub fn check(context: Context, directive: &Directive<'_>) -> Result<&'static Row, String> {
    check_built(context, directive, Row::is_built)
}

fn check_built(
    context: Context,
    directive: &Directive<'_>,
    is_built: impl Fn(&Row) -> bool,
) -> Result<&'static Row, String> {
    let name = directive.name();
    let rows = rows(name);
    let Some(row) = rows.iter().find(|row| row.contexts.intersects(context)) else {
        let Some(elsewhere) = rows.iter().find(|row| is_built(row)) else {
            return rows.first().ok_or_else(|| unknown(name));
        };
        return Err(format!("\"{}\" directive is not allowed here", elsewhere.name));
    };
    if !is_built(row) {
        return Ok(row);
    }
    if !row.block && directive.has_block() {
        return Err(format!("directive \"{}\" is not terminated by \";\"", row.name));
    }
    if row.block && !directive.has_block() {
        return Err(format!("directive \"{}\" has no opening \"{{\"", row.name));
    }
    if !row.args.allow(directive.len() - 1) {
        return Err(format!("invalid number of arguments in \"{}\" directive", row.name));
    }
    Ok(row)
}

/// The line that names the module of a directive, without a position.
pub fn lacks(name: &[u8], module: &str) -> String {
    let name = String::from_utf8_lossy(name);
    match all().any(|row| row.module == module && row.support == Support::Supported) {
        true => format!("\"{name}\" is a directive of {module} that nxr does not have"),
        false => format!("\"{name}\" is a directive of {module}, which nxr does not have"),
    }
}

/// `unknown directive "x"`, cut where nginx cuts its messages.
pub fn unknown(name: &[u8]) -> String {
    let message =
        [b"unknown directive \"", name.split(|byte| *byte == 0).next().unwrap_or_default(), b"\""].concat();
    String::from_utf8_lossy(&message[..message.len().min(MAX_MESSAGE)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::{Item, LoadOptions, parse_text};

    fn checked(context: Context, text: &str) -> Result<&'static str, String> {
        let tree = parse_text(b"conf", text.as_bytes(), &LoadOptions::default());
        match tree.items().next() {
            Some(Item::Directive(directive)) => {
                check_built(context, &directive, |_| true).map(|row| row.module)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_line_of_the_tables_is_read() {
        assert_eq!(all().count(), lines(DIRECTIVES).count());
        assert_eq!(HTTP_VARIABLES.len() + STREAM_VARIABLES.len(), lines(VARIABLES).count());
        assert_eq!(THIRD_PARTY_ROWS.len(), lines(THIRD_PARTY).count());
        // Those of nginx 1.31.5, and `ssl`, which it has no more.
        assert_eq!(lines(DIRECTIVES).count(), 784 + 1);
    }

    #[test]
    fn no_name_is_twice_in_a_context() {
        for rows in ROWS.values() {
            for (i, row) in rows.iter().enumerate() {
                for other in &rows[i + 1..] {
                    assert!(!row.contexts.intersects(other.contexts), "{}", row.name);
                }
            }
        }
    }

    #[test]
    fn third_party_names_are_not_nginx_names() {
        for name in THIRD_PARTY_ROWS.keys() {
            assert!(rows(name).is_empty(), "{}", String::from_utf8_lossy(name));
        }
        assert_eq!(third_party(b"more_set_headers"), Some("headers-more"));
        assert_eq!(third_party(b"server"), None);
    }

    #[test]
    fn the_context_chooses_among_modules() {
        assert_eq!(checked(Context::HTTP_LOCATION, "proxy_pass http://a;").as_deref(), Ok("ngx_http_proxy"));
        assert_eq!(checked(Context::STREAM_SERVER, "proxy_pass a;").as_deref(), Ok("ngx_stream_proxy"));
        assert_eq!(checked(Context::HTTP_UPSTREAM, "server a;").as_deref(), Ok("ngx_http_upstream"));
        assert_eq!(checked(Context::HTTP, "server {}").as_deref(), Ok("ngx_http_core"));
        for context in [Context::MAIN, Context::HTTP_SERVER_IF, Context::STREAM_UPSTREAM] {
            assert_eq!(checked(context, "include a;").as_deref(), Ok("ngx_conf"));
        }
    }

    #[test]
    fn errors_come_in_the_order_of_nginx() {
        fn error(context: Context, text: &str) -> String {
            checked(context, text).unwrap_err()
        }
        assert_eq!(error(Context::MAIN, "nothing { }"), "unknown directive \"nothing\"");
        assert_eq!(error(Context::MAIN, "Server;"), "unknown directive \"Server\"");
        assert_eq!(error(Context::MAIN, "'a\0b';"), "unknown directive \"a\"");
        let long = error(Context::MAIN, &format!("{};", "x".repeat(4000)));
        assert_eq!(long, format!("unknown directive \"{}", "x".repeat(1024 - 19)));
        assert_eq!(error(Context::MAIN, "server { }"), "\"server\" directive is not allowed here");
        assert_eq!(error(Context::EVENTS, "use a b { }"), "directive \"use\" is not terminated by \";\"");
        assert_eq!(error(Context::MAIN, "http a;"), "directive \"http\" has no opening \"{\"");
        assert_eq!(error(Context::MAIN, "http a {}"), "invalid number of arguments in \"http\" directive");
        assert_eq!(error(Context::MAIN, "daemon;"), "invalid number of arguments in \"daemon\" directive");
        assert_eq!(
            error(Context::MAIN, "user a b c d e f g h i;"),
            "invalid number of arguments in \"user\" directive"
        );
    }

    #[test]
    fn what_is_not_supported_comes_back_unchecked() {
        let tree = parse_text(b"conf", b"http a;", &LoadOptions::default());
        let Some(Item::Directive(directive)) = tree.items().next() else { panic!("no directive") };
        for context in [Context::MAIN, Context::EVENTS] {
            let row = check_built(context, &directive, |_| false);
            assert_eq!(row.map(|row| row.module), Ok("ngx_http"));
        }
    }

    #[test]
    fn argument_counts() {
        let counts =
            |text| (0..10).filter(|n| Args::parse(text).is_some_and(|args| args.allow(*n))).collect();
        let expect: [(&str, Vec<usize>); 3] =
            [("0,2", vec![0, 2]), ("1", vec![1]), ("2+", (2..10).collect())];
        for (text, expected) in expect {
            let counts: Vec<usize> = counts(text);
            assert_eq!(counts, expected);
        }
        assert_eq!(Args::parse("8"), None);
        assert_eq!(Args::parse(""), None);
    }

    #[test]
    fn variables_and_their_families() {
        let module = |scope, name: &str| variable(scope, name.as_bytes()).map(|variable| variable.name);
        assert_eq!(module(Scope::Http, "args"), Some("args"));
        assert_eq!(module(Scope::Http, "arg_a_b"), Some("arg_"));
        assert_eq!(module(Scope::Http, "upstream_http_x_a"), Some("upstream_http_"));
        assert_eq!(module(Scope::Stream, "args"), None);
        assert_eq!(module(Scope::Http, "mine"), None);
    }

    #[test]
    fn support_is_spelled_out() {
        assert_eq!(Support::parse("supported"), Some(Support::Supported));
        assert_eq!(Support::parse("accepted:no such knob"), Some(Support::Accepted("no such knob")));
        assert_eq!(Support::parse("accepted:"), None);
        assert_eq!(Support::parse("maybe"), None);
    }
}
