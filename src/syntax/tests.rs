//! nginx's lexing, quirk by quirk, and what holds for any text.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn parse(source: impl AsRef<[u8]>) -> Tree {
    parse_text(b"conf", source.as_ref(), &LoadOptions::default())
}

/// The tree in one line: words in `<>`, blocks in `{}`, errors after `!`.
fn show(items: Items<'_>) -> String {
    let one = |item| match item {
        Item::Error(error) => format!("!{error}"),
        Item::Directive(directive) => {
            let words: String =
                (0..directive.len()).map(|i| format!("<{}>", text(directive.arg(i)))).collect();
            let block = directive.block().map(|items| format!("{{{}}}", show(items))).unwrap_or_default();
            let raw = directive.raw().map(|raw| format!("{{{{{}}}}}", text(raw))).unwrap_or_default();
            let files = directive.included().map(|items| format!("[{}]", show(items))).unwrap_or_default();
            format!("{words}{block}{raw}{files}")
        }
    };
    items.map(one).collect::<Vec<_>>().join(" ")
}

fn shown(source: impl AsRef<[u8]>) -> String {
    show(parse(source).items())
}

#[track_caller]
fn gives(source: &str, expected: &str) {
    assert_eq!(shown(source), expected, "{source:?}");
}

#[test]
fn words_and_blocks() {
    gives("a b  c;\td{e f;}g;", "<a><b><c> <d>{<e><f>} <g>");
    gives("a{}", "<a>{}");
    gives("a { b { c; } d; } e;", "<a>{<b>{<c>} <d>} <e>");
    gives("", "");
    gives(" \r\n\t", "");
}

#[test]
fn carriage_return_is_white_space() {
    gives("a b\r\nc;\r\n", "<a><b><c>");
    gives("a\rb;", "<a><b>");
    gives("\"a\"\r;", "<a>");
}

#[test]
fn quotes_count_only_at_the_start_of_a_word() {
    gives("a 'b c' \"d;e\";", "<a><b c><d;e>");
    gives("a b\"c d\"e;", "<a><b\"c><d\"e>");
    gives("a '';", "<a><>");
    gives("a 'it''s';", "!unexpected \"'\" in conf:1");
    gives("a \"{}\" 'x\ny';", "<a><{}><x\ny>");
    gives("a \"b'c\" 'd\"e';", "<a><b'c><d\"e>");
}

#[test]
fn what_may_follow_a_quoted_word() {
    gives("a 'b';", "<a><b>");
    gives("a 'b'{}", "<a><b>{}");
    gives("if ('b') {}", "<if><('b')>{}");
    gives("if ( 'b') {}", "<if><(><b><)>{}");
    gives("if ( 'b')x {}", "<if><(><b><)x>{}");
    gives("a\n'b'c;", "!unexpected \"c\" in conf:2");
    gives("a 'b'}", "!unexpected \"}\" in conf:1");
    gives("a 'b'#\n;", "!unexpected \"#\" in conf:1");
}

#[test]
fn escapes() {
    gives(r#"a "\"" '\'' \";"#, r#"<a><"><'><">"#);
    gives(r"a \\ \t\r\n;", "<a><\\><\t\r\n>");
    gives(r"a \d\.\$ '\d\ ';", r"<a><\d\.\$><\d\ >");
    gives(r"a b\ c d\;e f\{g;", r"<a><b\ c><d\;e><f\{g>");
    gives(r"a '\\';", r"<a><\>");
    gives("a b\\\nc;", "<a><b\\\nc>");
}

#[test]
fn a_brace_after_a_dollar_opens_no_block() {
    gives("a ${b} x${c}y;", "<a><${b}><x${c}y>");
    gives("a ${{b;", "<a><${{b>");
    gives("a $b{}", "<a><$b>{}");
    gives(r"a \${}", r"<a><\$>{}");
    gives("a $;", "<a><$>");
}

#[test]
fn braces_in_words() {
    gives(
        "location ~ ^/\\d{2}$ { }",
        "<location><~><^/\\d>{<2}$>{} !unexpected end of file, expecting \"}\" in conf:1}",
    );
    gives("location ~ '^/\\d{2}$' { }", "<location><~><^/\\d{2}$>{}");
    gives("a b};", "<a><b}>");
    gives("a b}c;", "<a><b}c>");
}

#[test]
fn comments_begin_only_at_the_start_of_a_word() {
    gives("a # b; \"\nc;#d\n#e", "<a><c>");
    gives("a b#c;", "<a><b#c>");
    gives("# only", "");
    gives("a; #\r\n b;", "<a> <b>");
}

#[test]
fn errors_stand_where_they_are() {
    gives(";", "!unexpected \";\" in conf:1");
    gives("a;\n{", "<a> !unexpected \"{\" in conf:2");
    gives("a b }", "!unexpected \"}\" in conf:1");
    gives("a;\n}\nb;", "<a> !unexpected \"}\" in conf:2");
    gives("a;\n\nb", "<a> !unexpected end of file, expecting \";\" or \"}\" in conf:3");
    gives("a b\n", "!unexpected end of file, expecting \";\" or \"}\" in conf:2");
    gives("a 'b;\n", "!unexpected end of file, expecting \";\" or \"}\" in conf:2");
    gives("a 'b'", "!unexpected end of file, expecting \";\" or \"}\" in conf:1");
    gives("a # b", "!unexpected end of file, expecting \";\" or \"}\" in conf:1");
    gives("a \\", "!unexpected end of file, expecting \";\" or \"}\" in conf:1");
    gives("a {\nb;\n", "<a>{<b> !unexpected end of file, expecting \"}\" in conf:3}");
    gives("a { b { c", "<a>{<b>{!unexpected end of file, expecting \";\" or \"}\" in conf:1}}");
    gives("a { ; } b;", "<a>{!unexpected \";\" in conf:1}");
}

/// Words, quotes and comments of exactly the size that fits the buffer, and one more.
#[test]
fn words_have_a_limit() {
    let started = "!too long parameter \"xxxxxxxxxx...\" started in conf:2";
    let x = |count: usize| "x".repeat(count);
    let ok = |source: String| assert!(!shown(&source).contains('!'), "{}", source.len());
    ok(format!("\n{};", x(4095)));
    assert_eq!(shown(format!("\n{};\n", x(4096))), started);
    ok(format!("\n{} ;", x(4094)));
    assert_eq!(shown(format!("\n{} ;", x(4095))), started);
    ok(format!("\n'{}';", x(4094)));
    assert_eq!(shown(format!("\n'{}';", x(4095))), started);
    ok(format!("\n'{}' ;", x(4093)));
    assert_eq!(shown(format!("\n'{}' ;", x(4094))), started);
    let quoted =
        |quote| format!("!too long parameter, probably missing terminating \"{quote}\" character in conf:2");
    assert_eq!(shown(format!("a\n'{}\n';", x(4096))), quoted('\''));
    assert_eq!(shown(format!("\n\"{}\n\n\"; ", x(4096))), quoted('"'));
    // The end of the file comes before the end of the buffer.
    let eof = "!unexpected end of file, expecting \";\" or \"}\" in conf:2";
    assert_eq!(shown(format!("\n{}", x(4096))), eof);
    assert_eq!(shown(format!("\n'{}", x(4096))), eof);
    assert_eq!(shown(format!("\n{}", x(4097))), started);
}

#[test]
fn comments_have_the_limit_too() {
    let comment = |count: usize| format!("\n#{}\na;", "x".repeat(count));
    assert_eq!(shown(comment(4094)), "<a>");
    assert_eq!(shown(comment(4095)), "!too long parameter \"#xxxxxxxxx...\" started in conf:2");
    assert_eq!(shown(comment(5000)), "!too long parameter \"#xxxxxxxxx...\" started in conf:2");
    assert_eq!(shown(format!("#{}", "x".repeat(4095))), "");
}

#[test]
fn blanks_have_no_limit() {
    let blank = " \n".repeat(5000);
    assert_eq!(shown(format!("a{blank}b{blank};")), "<a><b>");
}

#[test]
fn positions() {
    let tree = parse("a\n  bb 'c\nd'\n  ;\nx {\ny\n{ z; }\n\n}\n");
    let directives: Vec<_> = tree.items().filter_map(directive).collect();
    let a = directives[0];
    assert_eq!((a.at().to_string(), a.end().to_string()), (" in conf:4".into(), " in conf:4".into()));
    let place = |word: Word<'_>| (word.line(), word.column(), word.quoted);
    assert_eq!([0, 1, 2].map(|i| place(a.word(i))), [(1, 1, false), (2, 3, false), (2, 6, true)]);
    assert_eq!(a.word(2).text, b"c\nd");
    let x = directives[1];
    assert_eq!((x.at().line(), x.end().line()), (5, 9));
    let y = x.block().and_then(|mut items| items.find_map(directive)).unwrap();
    assert_eq!((y.at().line(), y.word(0).line(), y.end().line()), (7, 6, 7));
    assert_eq!(a.word(9).text, b"");
    assert_eq!(a.arg(9), b"");
    assert_eq!(a.args().collect::<Vec<_>>(), [&b"bb"[..], b"c\nd"]);
}

fn directive(item: Item<'_>) -> Option<Directive<'_>> {
    match item {
        Item::Directive(directive) => Some(directive),
        Item::Error(_) => None,
    }
}

#[test]
fn the_command_line() {
    let show = |source: &str| show(parse_str(source.as_bytes(), &LoadOptions::default()).items());
    assert_eq!(show("daemon off; user 'a b';"), "<daemon><off> <user><a b>");
    assert_eq!(show("a; b"), "<a> !unexpected end of parameter, expecting \";\" in command line");
    assert_eq!(show("a {}"), "!block directives are not supported in -g option in command line");
    assert_eq!(show("}"), "!unexpected \"}\" in command line");
    let long = "x".repeat(5000);
    assert_eq!(show(&format!("{long} a;")), format!("<{long}><a>"));
}

#[test]
fn lua_is_taken_as_it_is() {
    gives("content_by_lua_block { x = '}' -- }\n } b;", "<content_by_lua_block>{{ x = '}' -- }\n }} <b>");
    gives("set_by_lua_block $a {{}}", "<set_by_lua_block><$a>{{{}}}");
    let tree = parse("l { a_by_lua_block {\n\n} b\n; }");
    assert_eq!(show(tree.items()), "<l>{<a_by_lua_block>{{\n\n}} <b>}");
    let l = tree.items().find_map(directive).unwrap();
    let lines: Vec<_> = l
        .block()
        .unwrap()
        .filter_map(directive)
        .map(|inner| (inner.at().line(), inner.end().line()))
        .collect();
    assert_eq!(lines, [(1, 3), (4, 4)]);
    gives(
        "a_by_lua_block {\n {",
        "<a_by_lua_block>{{\n {}} !unexpected end of file, expecting \"}\" in conf:2",
    );
}

#[test]
fn nesting_ends_in_an_error_not_in_an_overflow() {
    let opts = LoadOptions::default();
    let deep = "a {".repeat(1_000_000);
    let tree = parse_text(b"conf", deep.as_bytes(), &opts);
    assert!(show(tree.items()).contains("!too many nested blocks in conf:1"));
    let fits = "a {".repeat(opts.max_depth) + &"}".repeat(opts.max_depth);
    assert!(!shown(fits).contains('!'));
}

/// A file of map entries, the largest there are, costs little more than itself.
#[test]
fn the_tree_is_small() {
    let text: String = (0..20_000).map(|i| format!("    host{i}.example.com backend{i};\n")).collect();
    let tree = parse(format!("map $host $backend {{\n{text}}}\n"));
    let source = &tree.sources[0];
    let size = source.nodes.capacity() * size_of_val(&source.nodes[0])
        + source.words.capacity() * size_of_val(&source.words[0])
        + source.cooked_text.capacity();
    assert!(size < 3 * text.len() / 2, "{size} for {}", text.len());
}

// === includes ===

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str, files: &[(&str, &str)]) -> Dir {
        let dir = std::env::temp_dir().join(format!("nxr-syntax-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (file, text) in files {
            fs::write(dir.join(file), text).unwrap();
        }
        Dir(dir)
    }

    fn load(&self) -> Tree {
        let prefix = format!("{}/", self.0.display());
        load(&self.0.join("main"), &LoadOptions::new(prefix))
    }

    /// The tree with this directory's path taken out.
    fn show(&self, tree: &Tree) -> String {
        show(tree.items()).replace(&format!("{}/", self.0.display()), "")
    }

    fn names(&self, tree: &Tree) -> Vec<String> {
        let name = |path: &[u8]| Path::new(&text(path)).strip_prefix(&self.0).unwrap().display().to_string();
        tree.files().map(|(path, _)| name(path)).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn includes_stand_below_their_directive() {
    let dir = Dir::new(
        "include",
        &[
            ("main", "include one;\nh { include *.conf; include one; }\ninclude none*;"),
            ("one", "a;\ninclude two;"),
            ("two", "b;"),
            ("z.conf", "z;"),
            ("y.conf", "y;\n}"),
        ],
    );
    let tree = dir.load();
    let one = "<include><one>[<a> <include><two>[<b>]]";
    assert_eq!(
        dir.show(&tree),
        format!(
            "{one} <h>{{<include><*.conf>[<y> !unexpected \"}}\" in y.conf:2 <z>] {one}}} <include><none*>[]"
        )
    );
    assert_eq!(dir.names(&tree), ["main", "one", "two", "y.conf", "z.conf"]);
}

#[test]
fn files_that_cannot_be_read() {
    let dir = Dir::new("unread", &[("main", "a;\nb {\n include none; }\ninclude dir;")]);
    fs::create_dir_all(dir.0.join("dir")).unwrap();
    let tree = dir.load();
    assert_eq!(
        dir.show(&tree),
        "<a> <b>{<include><none>[!open() \"none\" failed (2: No such file or directory) in main:3]} \
         <include><dir>[!pread() \"dir\" failed (21: Is a directory)]"
    );
    let missing = load(&dir.0.join("missing"), &LoadOptions::default());
    let path = dir.0.join("missing").display().to_string();
    assert_eq!(show(missing.items()), format!("!open() \"{path}\" failed (2: No such file or directory)"));
    let device = load(Path::new("/dev/zero"), &LoadOptions::default());
    assert_eq!(show(device.items()), "");
}

#[test]
fn include_cycles_end() {
    let dir = Dir::new(
        "cycle",
        &[("main", "include one;"), ("one", "a;\n\ninclude two;"), ("two", "b;\ninclude one;")],
    );
    assert_eq!(
        dir.show(&dir.load()),
        "<include><one>[<a> <include><two>[<b> <include><one>\
         [!open() \"one\" failed (24: Too many open files) in two:2]]]"
    );
}

#[test]
fn depth_counts_through_includes() {
    let files: Vec<(String, String)> =
        (0..10).map(|i| (format!("f{i}"), format!("a {{ include f{}; }}", i + 1))).collect();
    let mut files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
    // The second way to f5 is longer than the first.
    files.extend([("f10", "z;"), ("main", "include f5; include f0;")]);
    let dir = Dir::new("depth", &files);
    let load = |max_depth| {
        let opts = LoadOptions { max_depth, ..LoadOptions::new(format!("{}/", dir.0.display())) };
        dir.show(&load(&dir.0.join("main"), &opts))
    };
    assert!(!load(21).contains('!'), "{}", load(21));
    let cut = load(15);
    let (first, second) = cut.split_once("<include><f0>").unwrap();
    assert!(!first.contains('!') && second.contains("(24: Too many open files) in f4:1"), "{cut}");
}

#[test]
fn relative_names_take_the_prefix_as_it_is() {
    let dir = Dir::new("prefix", &[("main", "include a\\tb;"), ("x-one", "a;")]);
    let opts = LoadOptions::new(format!("{}/x-", dir.0.display()));
    assert_eq!(show(parse_str(b"include one;", &opts).items()), "<include><one>[<a>]");
}

// === any text ===

/// What a tree says, positions and quotes left out; errors are dropped.
fn meaning(items: Items<'_>, out: &mut Vec<Vec<u8>>) {
    for directive in items.filter_map(directive) {
        out.extend((0..directive.len()).map(|i| [b"w", directive.arg(i)].concat()));
        out.extend(directive.raw().map(|raw| [b"r", raw].concat()));
        if let Some(block) = directive.block() {
            out.push(b"{".to_vec());
            meaning(block, out);
            out.push(b"}".to_vec());
        }
        out.push(b";".to_vec());
    }
}

fn meaning_of(tree: &Tree) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    meaning(tree.items(), &mut out);
    out
}

/// Text made of the pieces that matter, so that much of it parses.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "a",
        "bc",
        " ",
        "\n",
        "\r",
        ";",
        "; ",
        "{",
        "}",
        "\"",
        "'",
        "\\",
        "$",
        "${",
        "#",
        "\\t",
        "\\n",
        ")",
        "(",
        "a b;",
        "x {",
        "'q r'",
        "y_by_lua_block {",
        "--",
        "[[",
        "]]",
        "\u{e9}",
        "\t",
        "t",
        "r",
        "n",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat().into_bytes())
}

fn has_unclosed_raw(mut items: Items<'_>) -> bool {
    items.any(|item| {
        directive(item).is_some_and(|d| d.is_unclosed_raw() || d.block().is_some_and(has_unclosed_raw))
    })
}

fn round_trips(source: &[u8]) {
    let first = parse(source);
    let printed = print(&first);
    let second = parse(&printed);
    assert_eq!(meaning_of(&first), meaning_of(&second), "{}", text(&printed));
    if !has_unclosed_raw(first.items()) {
        assert!(!show(second.items()).contains(" in conf:"), "{}", text(&printed));
    }
    assert_eq!(print(&second), printed);
}

proptest! {
    #[test]
    fn printing_keeps_the_meaning(source in pieces()) {
        round_trips(&source);
    }

    #[test]
    fn any_words_print_and_parse_back(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6)) {
        let mut source = Vec::new();
        for word in &words {
            source.push(b'"');
            for byte in word {
                if matches!(byte, b'"' | b'\\') {
                    source.push(b'\\');
                }
                source.push(*byte);
            }
            source.extend_from_slice(b"\" ");
        }
        source.push(b';');
        let tree = parse(&source);
        let read = tree.items().find_map(directive).map(|d| (0..d.len()).map(|i| d.arg(i).to_vec()).collect::<Vec<_>>());
        prop_assert_eq!(read.as_ref(), Some(&words));
        round_trips(&source);
    }

    #[test]
    fn any_bytes_parse(source in prop::collection::vec(any::<u8>(), 0..300)) {
        round_trips(&source);
        let _ = parse_str(&source, &LoadOptions::default()).items().count();
        round_trips(&[b"a_by_lua_block {", &source[..]].concat());
    }
}
