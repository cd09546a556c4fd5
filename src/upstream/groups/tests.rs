//! What `upstream` blocks may say, and which groups come of it.

use super::*;
use crate::conf::grammar::Context;
use crate::conf::url::{self, Use};
use crate::upstream::testing;
use crate::{conf::Build, syntax};

/// Reads what may stand in an http block.
fn read(text: &str) -> Result<Build, String> {
    let mut cf = testing::build_conf();
    let tree = syntax::parse_text(b"f", text.as_bytes(), &syntax::LoadOptions::default());
    let read = cf.items(tree.items(), Context::HTTP).and_then(|()| cf.http.upstreams.finish(&time()));
    let read = read.and_then(|()| cf.zones.check());
    read.map(|()| cf).map_err(|fault| fault.text(b"", ""))
}

fn time() -> RunTime {
    RunTime { stream: false, resolver: None, timeout: 30_000 }
}

fn fault(text: &str) -> String {
    read(text).err().unwrap_or_default()
}

fn pass(cf: &mut Build, text: &str) -> Result<GroupId, String> {
    let to = Use { default_port: 80, uri_part: true, no_resolve: true, ..Use::default() };
    let url = url::parse(text.as_bytes(), &to).unwrap();
    cf.http.upstreams.add_implicit(&url, " in f:9").map_err(|fault| fault.text(b"", " in f:9"))
}

/// Text, and the first fault in it.
const FAULTS: &[(&str, &str)] = &[
    ("upstream u { }", "no servers are inside upstream in f:1"),
    ("upstream u {\n server 127.0.0.1;\n}\nupstream U {}", "duplicate upstream \"U\" in f:4"),
    ("upstream u { server 127.0.0.1 weight=0; }", "invalid parameter \"weight=0\" in f:1"),
    ("upstream u { server 127.0.0.1 weight=a; }", "invalid parameter \"weight=a\" in f:1"),
    ("upstream u { server 127.0.0.1 max_conns=-1; }", "invalid parameter \"max_conns=-1\" in f:1"),
    ("upstream u { server 127.0.0.1 fail_timeout=x; }", "invalid parameter \"fail_timeout=x\" in f:1"),
    ("upstream u { server 127.0.0.1 slow_start=1s; }", "invalid parameter \"slow_start=1s\" in f:1"),
    ("upstream u { server 127.0.0.1 route=; }", "route is empty in f:1"),
    ("upstream u { server 127.0.0.1 service=; }", "service is empty in f:1"),
    ("upstream u { server a service=b; }", "service upstream \"a\" requires \"resolve\" parameter in f:1"),
    ("upstream u { server a:1 service=b resolve; }", "service upstream \"a:1\" may not have port in f:1"),
    (
        "upstream u { server 1.2.3.4 service=b resolve; }",
        "service upstream \"1.2.3.4\" requires domain name in f:1",
    ),
    (
        "upstream u { ip_hash; server 127.0.0.1 backup; }",
        "balancing method does not support parameter \"backup\" in f:1",
    ),
    ("upstream u { server 127.0.0.1:0; }", "invalid port in upstream \"127.0.0.1:0\" in f:1"),
    (
        "upstream u { server no.such.host.invalid; }",
        "host not found in upstream \"no.such.host.invalid\" in f:1",
    ),
    ("upstream u {\nserver 127.0.0.1 backup; }", "no servers in upstream \"u\" in f:1"),
    ("upstream u { hash $uri x; }", "invalid parameter \"x\" in f:1"),
    ("upstream u { random three; }", "invalid parameter \"three\" in f:1"),
    ("upstream u { random two least_time; }", "invalid parameter \"least_time\" in f:1"),
    ("upstream u { least_time connect; }", "invalid value \"connect\" in f:1"),
    ("upstream u { least_time header x; }", "invalid parameter \"x\" in f:1"),
    ("upstream u { least_time header; least_time header; }", "\"least_time\" directive is duplicate in f:1"),
    ("upstream u { keepalive x; }", "invalid value \"x\" in \"keepalive\" directive in f:1"),
    ("upstream u { keepalive 1 x; }", "invalid parameter \"x\" in f:1"),
    ("upstream u { keepalive 1; keepalive 2; }", "\"keepalive\" directive is duplicate in f:1"),
    ("upstream u { keepalive_requests x; }", "\"keepalive_requests\" directive invalid number in f:1"),
    (
        "upstream u { server a resolve; }",
        "resolving names at run time requires upstream \"u\" in f:1 to be in shared memory",
    ),
    (
        "upstream u { zone z 64k; server a resolve; }",
        "no resolver defined to resolve names at run time in upstream \"u\" in f:1",
    ),
    ("upstream u { zone z 1k; }", "zone \"z\" is too small in f:1"),
    ("upstream u { zone z x; }", "invalid zone size \"x\" in f:1"),
    ("upstream u { server 127.0.0.1; zone z; }", "zero size shared memory zone \"z\""),
    (
        "upstream u { server 127.0.0.1; zone z 64k; zone z 128k; }",
        "the size 131072 of shared memory zone \"z\" conflicts with already declared size 65536 in f:1",
    ),
    ("upstream u { sticky x y; }", "unknown parameter \"x\" in f:1"),
    ("upstream u { sticky route x; }", "invalid variable name \"x\" in f:1"),
    ("upstream u { sticky cookie a b; }", "unknown parameter \"b\" in f:1"),
    ("upstream u { sticky cookie a path=; }", "\"sticky\" directive no value for \"path\" in f:1"),
    (
        "upstream u { sticky cookie a samesite=x; }",
        "\"sticky\" directive invalid \"samesite\" parameter value in f:1",
    ),
    ("upstream u { sticky route $; }", "invalid variable name \"$\" in f:1"),
    (
        "upstream u { sticky learn create=$a; }",
        "\"sticky\" directive \"lookup\" parameter is not specified in f:1",
    ),
    (
        "upstream u { sticky learn lookup=$a; }",
        "\"sticky\" directive \"create\" parameter is not specified in f:1",
    ),
    (
        "upstream u { sticky learn lookup=$a create=$b; }",
        "\"sticky\" directive \"zone\" parameter is not specified in f:1",
    ),
    (
        "upstream u { sticky learn lookup=a; }",
        "\"sticky\" directive missing variable in the \"lookup\" parameter in f:1",
    ),
    ("upstream u { sticky learn zone=a; }", "\"sticky\" directive zone size is not specified in f:1"),
    ("upstream u { sticky learn zone=:1m; }", "\"sticky\" directive zone name is not specified in f:1"),
    ("upstream u { sticky learn zone=a:x; }", "\"sticky\" directive invalid zone size in f:1"),
    ("upstream u { sticky learn zone=a:1k; }", "\"sticky\" directive zone is too small in f:1"),
    ("upstream u { sticky learn timeout=0; }", "\"sticky\" directive invalid timeout in f:1"),
    (
        "upstream u { server 127.0.0.1; sticky learn zone=a:1m lookup=$a create=$b; }
         upstream v { sticky learn zone=a:1m lookup=$a create=$b; }",
        "sticky zone \"a\" is already used in upstream \"u\" in f:2",
    ),
    (
        "upstream u { server 127.0.0.1; zone a 1m; sticky learn zone=a:1m lookup=$a create=$b; }",
        "the shared memory zone \"a\" is already declared for a different use in f:1",
    ),
    ("upstream u { sticky route $a; sticky route $a; }", "\"sticky\" directive is duplicate in f:1"),
];

#[test]
fn faults_have_nginx_words() {
    for (text, words) in FAULTS {
        assert_eq!(fault(text), *words, "{text}");
    }
}

#[test]
fn servers_of_stream_need_ports_and_know_no_routes() {
    use crate::upstream::directives::{self, Place};
    struct Streaming;
    impl Place for Streaming {
        const STREAM: bool = true;
        const CONTEXT: Context = Context::STREAM_UPSTREAM;
        fn groups(cf: &mut Build) -> &mut Groups {
            &mut cf.http.upstreams
        }
        fn template(cf: &mut Build, text: &[u8]) -> Outcome<crate::value::Template> {
            cf.http.template(text)
        }
        fn variable(cf: &mut Build, name: &[u8]) -> crate::value::VarId {
            cf.http.vars.index(name)
        }
    }
    let read = |text: &str| {
        let mut cf = testing::build_conf();
        let tree = syntax::parse_text(b"f", text.as_bytes(), &Default::default());
        let Some(syntax::Item::Directive(d)) = tree.items().next() else { return "no directive".into() };
        let read = match d.name() {
            b"server" => directives::server::<Streaming>(&mut cf, &d),
            _ => directives::least_time::<Streaming>(&mut cf, &d),
        };
        read.map_or_else(|fault| fault.text(d.name(), d.at()), |()| "ok".into())
    };
    assert_eq!(read("server 1;"), "no port in upstream \"1\" in f:1");
    assert_eq!(read("server 127.0.0.1:1 route=a;"), "invalid parameter \"route=a\" in f:1");
    assert_eq!(read("server 127.0.0.1:1 backup;"), "ok");
    assert_eq!(read("server unix:/tmp/s;"), "ok");
    assert_eq!(read("least_time first_byte inflight;"), "ok");
    assert_eq!(read("least_time header;"), "invalid value \"header\" in f:1");
}

#[test]
fn in_stream_a_port_makes_another_name() {
    let groups = &mut Groups::default();
    let url = |text: &[u8]| url::parse(text, &Use { no_resolve: true, ..Use::default() }).unwrap();
    let bare = groups.add_implicit_stream(&url(b"name"), " in f:1").unwrap();
    let port = groups.add_implicit_stream(&url(b"name:81"), " in f:2").unwrap();
    assert_ne!(bare, port);
    assert_eq!(groups.add_implicit_stream(&url(b"NAME"), " in f:3"), Ok(bare));
}

#[test]
fn a_method_may_be_redefined_with_a_warning() {
    let cf = read("upstream u { sticky route $a;\n ip_hash;\nserver 127.0.0.1; }").unwrap();
    let warnings: Vec<_> = cf.messages.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(warnings, ["load balancing method redefined in f:2"]);
    let group = cf.http.upstreams.find(b"U", 80, true).unwrap();
    assert!(matches!(group.method, Method::IpHash) && group.sticky.is_none());
    let cf = read("upstream u { ip_hash; sticky route $a; server 127.0.0.1; }").unwrap();
    assert!(cf.messages.is_empty());
    assert!(cf.http.upstreams.iter().next().unwrap().sticky.is_some());
}

#[test]
fn a_block_keeps_32_connections_unless_told_otherwise() {
    let cf = read(
        "upstream a { server 127.0.0.1; }
         upstream b { server 127.0.0.1; keepalive 5; keepalive_timeout 3s; keepalive_requests 7; }
         upstream c { server 127.0.0.1; keepalive 0; }",
    )
    .unwrap();
    let kept: Vec<_> = cf
        .http
        .upstreams
        .iter()
        .map(|g| g.keepalive.map(|k| (k.limit, k.local, k.requests, k.timeout, k.time)))
        .collect();
    let expected = [Some((32, true, 1000, 60_000, 3_600_000)), Some((5, false, 7, 3000, 3_600_000)), None];
    assert_eq!(kept, expected);
}

#[test]
fn an_address_is_a_group_unless_a_block_has_its_name() {
    let mut cf = testing::build_conf();
    let later = pass(&mut cf, "later").unwrap();
    let a = pass(&mut cf, "127.0.0.1:81").unwrap();
    assert_eq!(pass(&mut cf, "127.0.0.1:81/uri"), Ok(a));
    let b = pass(&mut cf, "127.0.0.1:82").unwrap();
    let unix = pass(&mut cf, "unix:/tmp/s:/uri").unwrap();
    assert!(a != b && unix != b);
    let tree = syntax::parse_text(b"f", b"upstream LATER { server 127.0.0.1:1; }", &Default::default());
    cf.items(tree.items(), Context::HTTP).unwrap();
    assert_eq!(pass(&mut cf, "later:80").unwrap_err(), "upstream \"later\" may not have port 80 in f:9");
    assert_eq!(pass(&mut cf, "Later/x"), Ok(later));
    cf.http.upstreams.finish(&time()).unwrap();
    let groups = &cf.http.upstreams;
    let peers = |id| groups.get(id).peers().map(|p| p.name.to_string()).collect::<Vec<_>>();
    assert_eq!(peers(later), ["127.0.0.1:1"]);
    assert_eq!(peers(a), ["127.0.0.1:81"]);
    assert_eq!(peers(unix), ["unix:/tmp/s"]);
    assert!(groups.get(a).keepalive.is_none() && groups.get(later).keepalive.is_some());
    assert_eq!(
        groups.find(b"127.0.0.1", 82, false).unwrap().peers().next().unwrap().name.as_ref(),
        "127.0.0.1:82"
    );
    assert!(groups.find(b"127.0.0.1", 80, true).is_none());
    assert!(groups.find(b"later", 80, true).is_some());
}

#[test]
fn a_block_may_not_take_the_name_of_an_address_with_port() {
    let mut cf = testing::build_conf();
    pass(&mut cf, "x:81").unwrap();
    let tree = syntax::parse_text(b"f", b"upstream x { server 127.0.0.1:1; }", &Default::default());
    let fault = cf.items(tree.items(), Context::HTTP).unwrap_err().text(b"", "");
    assert_eq!(fault, "upstream \"x\" may not have port 81 in f:9");
}

#[test]
fn a_name_nobody_knows_is_told_where_it_was_used() {
    let mut cf = testing::build_conf();
    pass(&mut cf, "no.such.host.invalid").unwrap();
    let fault = cf.http.upstreams.finish(&time()).unwrap_err().text(b"", "");
    assert_eq!(fault, "host not found in upstream \"no.such.host.invalid\" in f:9");
}
