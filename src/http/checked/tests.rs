use crate::http::testing::{emerg, loads};

/// What is said of a text, positions left out.
fn said(text: &str) -> String {
    let line = emerg(text);
    line.split(" in /").next().unwrap_or_default().to_string()
}

#[test]
fn preparations_are_taken() {
    for text in [
        "fastcgi_param A $uri; fastcgi_param B '' if_not_empty; server { fastcgi_index i; }",
        "fastcgi_cache_path c levels=1:2 keys_zone=z:1m inactive=1h max_size=1g use_temp_path=off;
         server { fastcgi_cache z; fastcgi_cache_key $uri; fastcgi_cache_valid 200 any 1m; }",
        "server { proxy_cache_key $uri; proxy_no_cache $arg_a; }",
        "ssi off; ssi_types a/b; dav_methods off; dav_access user:rw all:r; slice 0;",
        "uwsgi_modifier1 255; grpc_set_header A $host; memcached_bind 127.0.0.1 transparent; tunnel_bind off;",
    ] {
        assert!(loads(text), "{text}: {}", emerg(text));
    }
}

#[test]
fn what_switches_a_module_on_is_refused_last() {
    let passed = "location / { grpc_pass 127.0.0.1:9; }";
    assert_eq!(said(&format!("server {{ {passed} }}")), "unknown directive \"grpc_pass\"");
    assert_eq!(said(&format!("server {{ {passed} bogus; }}")), "unknown directive \"bogus\"");
    assert_eq!(said(&format!("server {{ {passed} root $no; }}")), "unknown \"no\" variable");
    assert_eq!(
        said("server { location / { scgi_pass 127.0.0.1:9; scgi_pass 127.0.0.1:9; } }"),
        "\"scgi_pass\" directive is duplicate"
    );
    let cached = "proxy_cache_path c keys_zone=z:1m; server { location / { proxy_cache z; proxy_pass http://127.0.0.1:9; } }";
    assert_eq!(said(cached), "unknown directive \"proxy_cache\"");
    let cached =
        "fastcgi_cache_path c keys_zone=z:1m; server { location / { fastcgi_cache z; PASS 127.0.0.1:9; } }";
    assert_eq!(said(&cached.replace("PASS", "fastcgi_pass")), "unknown directive \"fastcgi_cache\"");
    assert!(loads(&cached.replace("PASS", "scgi_pass")));
    for both in ["proxy_store on; proxy_cache z;", "proxy_cache z; proxy_store on;"] {
        assert!(said(both).contains("is incompatible with \"proxy_"), "{both}");
    }
    assert_eq!(said("server { ssi on; }"), "unknown directive \"ssi\"");
}

#[test]
fn words_are_those_of_nginx() {
    for (text, words) in [
        ("grpc_buffer_size a;", "\"grpc_buffer_size\" directive invalid value"),
        ("scgi_cache_min_uses a;", "\"scgi_cache_min_uses\" directive invalid number"),
        ("uwsgi_modifier2 256;", "value must be between 0 and 255"),
        ("memcached_next_upstream http_404;", "invalid value \"http_404\""),
        ("tunnel_next_upstream error; tunnel_bind a;", "invalid address \"a\""),
        (
            "fastcgi_store a; fastcgi_cache b;",
            "\"fastcgi_cache\" directive is incompatible with \"fastcgi_store\"",
        ),
        (
            "fastcgi_cache b; fastcgi_store a;",
            "\"fastcgi_store\" directive is incompatible with \"fastcgi_cache\"",
        ),
        ("fastcgi_param a b c;", "invalid parameter \"c\""),
        ("fastcgi_split_path_info a;", "pattern \"a\" must have 2 captures"),
        ("proxy_cache_valid 99 1m;", "invalid status \"99\""),
        ("proxy_cache_valid 200 x;", "invalid time value \"x\""),
        ("proxy_cache_path a b;", "invalid parameter \"b\""),
        ("proxy_cache_path a max_size=x;", "invalid max_size value \"max_size=x\""),
        ("proxy_cache_path a levels=3;", "invalid \"levels\" \"levels=3\""),
        ("proxy_cache_path a inactive=1;", "\"proxy_cache_path\" must have \"keys_zone\" parameter"),
        ("proxy_cache_path a keys_zone=z:1;", "keys zone \"keys_zone=z:1\" is too small"),
        ("fastcgi_temp_path a 0;", "\"fastcgi_temp_path\" directive invalid value"),
        ("server { location / { fastcgi_pass a; } }", "no port in upstream \"a\""),
        ("server { scgi_cache z; }", "\"scgi_cache\" zone \"z\" is unknown"),
        ("fastcgi_buffers 1 4k; server { }", "there must be at least 2 \"fastcgi_buffers\""),
    ] {
        assert_eq!(said(text), words, "{text}");
    }
}

#[test]
fn settings_of_the_http_block_matter_where_a_server_has_them() {
    assert!(loads("uwsgi_buffers 1 4k; proxy_buffers 1 4k;"));
    assert!(loads("scgi_buffers 1 4k; server { scgi_buffers 8 4k; }"));
    assert!(loads("proxy_buffers 1 4k; server { proxy_buffers 8 4k; }"));
    assert_eq!(said("proxy_buffers 1 4k; server { }"), "there must be at least 2 \"proxy_buffers\"");
}
