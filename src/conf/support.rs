//! That `grammar/directives.tsv` says of each directive what the code does with it.

use std::collections::HashSet;
use std::path::Path;

use super::build::{commands, setter};
use super::grammar::{self, Row, Support};

/// What is handled by the tree itself.
fn is_built_in(row: &Row) -> bool {
    row.module == "ngx_conf"
}

/// A row is `supported` when some module has a setter for it, `accepted:REASON` when it has no effect (then a setter
/// may check its arguments), `checked` when its arguments are checked before it is refused, and `no` otherwise.
///
/// With NXR_WRITE_SUPPORT=1 in the environment the test corrects the last column of the table by the setters there
/// are; rows that say `accepted:` are left alone. Build and test again afterwards: the table is part of the library.
#[test]
fn the_table_says_what_there_is() {
    let wrong: Vec<&Row> = grammar::all()
        .filter(|row| {
            let has = is_built_in(row) || setter(row).is_some();
            match row.support {
                Support::Supported => !has,
                Support::Accepted(_) => false,
                Support::Checked => !has && crate::http::checked::kind(row).is_none(),
                Support::No => has,
            }
        })
        .collect();
    if std::env::var_os("NXR_WRITE_SUPPORT").is_some() {
        return rewrite();
    }
    let wrong: Vec<String> = wrong.iter().map(|row| format!("{} {}", row.module, row.name)).collect();
    assert!(wrong.is_empty(), "run with NXR_WRITE_SUPPORT=1: {wrong:?}");
}

#[test]
fn every_setter_has_a_row() {
    let rows: HashSet<(&str, &str)> = grammar::all().map(|row| (row.module, row.name)).collect();
    for module in commands() {
        for (name, _) in module.setters {
            assert!(rows.contains(&(module.module, *name)), "{} {name}", module.module);
        }
    }
}

fn rewrite() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("grammar/directives.tsv");
    let table = std::fs::read_to_string(&path).unwrap();
    let mut lines = table.lines();
    let mut out = format!("{}\n", lines.next().unwrap());
    for line in lines {
        let (rest, support) = line.rsplit_once('\t').unwrap();
        let fields: Vec<&str> = rest.split('\t').collect();
        let row = grammar::rows(fields[1].as_bytes()).iter().find(|row| row.module == fields[0]).unwrap();
        let support = match support {
            accepted if accepted.starts_with("accepted:") => accepted,
            "checked" => "checked",
            _ if is_built_in(row) || setter(row).is_some() => "supported",
            _ => "no",
        };
        out += &format!("{rest}\t{support}\n");
    }
    std::fs::write(path, out).unwrap();
}

const BEGIN: &str = "<!-- made from grammar/directives.tsv: do not edit -->\n";
const END: &str = "<!-- end of what is made -->\n";

/// The README's list of what is supported is the table's. With NXR_WRITE_SUPPORT=1 the test writes it anew.
#[test]
fn the_readme_says_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = readme.split_once(BEGIN).expect("the README has a place for the list");
    let (list, tail) = rest.split_once(END).expect("the list in the README has an end");
    let wanted = listed();
    if std::env::var_os("NXR_WRITE_SUPPORT").is_some() {
        return std::fs::write(&path, format!("{head}{BEGIN}{wanted}{END}{tail}")).unwrap();
    }
    assert!(list == wanted, "run with NXR_WRITE_SUPPORT=1");
}

/// A table with a line a module: directives that work, those taken without effect, those that are missing.
fn listed() -> String {
    let mut rows: Vec<&Row> = grammar::all().collect();
    rows.sort_by_key(|row| (row.module, row.name));
    let mut modules: Vec<&str> = Vec::new();
    for row in &rows {
        if !modules.contains(&row.module) {
            modules.push(row.module);
        }
    }
    let mut out =
        String::from("\n| module | supported | taken, no effect | not yet |\n| --- | --- | --- | --- |\n");
    let mut absent = Vec::new();
    for module in modules {
        let names = |want: fn(&Support) -> bool| {
            let own = rows.iter().filter(|row| row.module == module && want(&row.support));
            own.map(|row| format!("`{}`", row.name)).collect::<Vec<_>>().join(" ")
        };
        let supported = names(|s| matches!(s, Support::Supported));
        let accepted = names(|s| matches!(s, Support::Accepted(_)));
        if supported.is_empty() && accepted.is_empty() {
            absent.push(format!("`{module}`"));
            continue;
        }
        let missing = names(|s| matches!(s, Support::No | Support::Checked));
        out += &format!("| {module} | {supported} | {accepted} | {missing} |\n");
    }
    out += &format!("\nNot there at all: {}.\n\n", absent.join(", "));
    out
}

/// The functions in the README's picture, and the rooms they are said to be in.
#[test]
fn the_readmes_picture_has_the_codes_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let picture = readme.split("```mermaid").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let mut sources = String::new();
    let mut folders = vec![root.join("src/http")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => sources += &std::fs::read_to_string(path).unwrap(),
            }
        }
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = 0;
    for (at, _) in picture.match_indices("()") {
        let name = picture[..at].rsplit(|c| !is_name(c)).next().unwrap();
        assert!(
            sources.contains(&format!("fn {name}(")) || sources.contains(&format!("fn {name}<")),
            "{name}"
        );
        found += 1;
    }
    for path in picture.split(|c: char| !is_name(c) && c != ':').filter(|word| word.starts_with("http::")) {
        let file = format!("src/{}", path.trim_end_matches(':').replace("::", "/"));
        let file = root.join(file);
        assert!(file.with_extension("rs").exists() || file.join("mod.rs").exists(), "{path}");
        found += 1;
    }
    assert!(found > 15, "the picture has {found} names");
}
