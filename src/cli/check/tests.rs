use super::*;
use std::path::PathBuf;

/// Surveys a text as the configuration of a folder of its own.
fn surveyed(text: &str) -> (Survey, String) {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("nxr-check-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("c");
    std::fs::write(&file, text).unwrap();
    let survey = survey(&Options {
        conf_file: file.clone(),
        conf_prefix: folder.join(""),
        prefix: folder.join(""),
        parameters: None,
        testing: true,
        error_log: None,
        pid: PathBuf::from("/p/pid"),
    });
    std::fs::remove_dir_all(folder).unwrap();
    (survey, file.display().to_string())
}

fn told(text: &str) -> Vec<(Kind, String, u32, u32, Option<String>)> {
    let (survey, _) = surveyed(text);
    let tell = |f: Finding| (f.kind, f.message, f.place.line, f.place.column, f.hint);
    survey.findings.into_iter().map(tell).collect()
}

#[test]
fn it_goes_on_after_the_first_error() {
    let text = "events {}\nhttp {\n  server {\n    listn 80;\n    root;\n    gzip maybe;\n    location / {\n      \
                grpc_pass 127.0.0.1:9;\n    }\n  }\n}\n";
    let found = told(text);
    let expected = [
        (Kind::Error, "unknown directive \"listn\"", 4, 5, Some("did you mean \"listen\"?")),
        (Kind::Error, "invalid number of arguments in \"root\" directive", 5, 5, Some("syntax: root path")),
        (
            Kind::Error,
            "invalid value \"maybe\" in \"gzip\" directive, it must be \"on\" or \"off\"",
            6,
            10,
            None,
        ),
        (Kind::Lacking, "\"grpc_pass\" is a directive of ngx_http_grpc, which nxr does not have", 8, 7, None),
    ];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(kind, message, line, column, hint)| {
            (kind, message.into(), line, column, hint.map(String::from))
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn places_that_nginx_does_not_name_are_found() {
    let found = told("events {}\nhttp { server { listen 127.0.0.1:8080;\n return 200 $remote_adr; } }");
    assert_eq!(found.len(), 1, "{found:?}");
    let hint = Some("did you mean \"$remote_addr\"?".to_string());
    assert_eq!(found[0], (Kind::Error, "unknown \"remote_adr\" variable".into(), 3, 13, hint));
}

#[test]
fn what_is_right_runs() {
    let (survey, file) = surveyed("events { accept_mutex on; }\nhttp { server { listen 127.0.0.1:8080; } }");
    assert!(!refuses(&survey), "{:?}", survey.findings);
    assert!(text::render(&file, &survey, false).ends_with(&format!("{file} runs on nxr\n")));
    assert!(json::render(&file, &survey).contains("\"starts\": true"));
    assert_eq!(survey.findings[0].kind, Kind::Ignored);
}

#[test]
fn text_shows_the_line_and_a_caret() {
    let (survey, file) = surveyed("events {}\n\thttp a { }\n");
    let shown = text::render(&file, &survey, false);
    assert!(shown.contains(&format!(" --> {file}:2:2\n  |\n2 |  http a {{ }}\n  |  ^^^^\n")), "{shown}");
    assert!(text::render(&file, &survey, true).contains("\x1b[31merror\x1b[0m: "));
    let json = json::render(&file, &survey);
    assert!(
        json.contains("\"line\": 2, \"column\": 2, \"length\": 4, \"text\": \"\\thttp a { }\""),
        "{json}"
    );
}

#[test]
fn syntax_errors_are_findings() {
    let found = told("events {}\nhttp {\n");
    assert_eq!(found[0].1, "unexpected end of file, expecting \"}\"");
    assert_eq!(found[0].2, 3);
}
