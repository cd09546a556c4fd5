//! Early hints.

use super::*;

fn hinting(hints: &'static str) -> Backend {
    Backend::says(&format!("{hints}{}", ok("end")))
}

fn answer(site: &Site, version: &str) -> String {
    site.raw(&format!("GET / HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

const HINTS: &str = "HTTP/1.1 103 Early\r\nLink: </a.css>\r\nX-Pad: 1\r\nContent-Length: 7\r\n\r\n";

#[test]
fn hints_are_passed_on_where_the_location_wants_them() {
    let backend = hinting(HINTS);
    let site = backend.site("early_hints $http_wants 0; access_log access.log combined;");
    assert!(answer(&site, "1.1").starts_with("HTTP/1.1 200 OK\r\n"));
    let wanted = "GET / HTTP/1.1\r\nHost: x\r\nWants: 1\r\nConnection: close\r\n\r\n";
    let told = site.raw(wanted);
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nContent-Length: 7\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(told.starts_with(hints), "{told}");
    assert!(told.ends_with("\r\nContent-Length: 3\r\nConnection: close\r\n\r\nend"), "{told}");
}

#[test]
fn old_clients_see_none_and_empty_hints_are_not_sent() {
    let site = hinting(HINTS).site("early_hints 1;");
    assert!(answer(&site, "1.0").starts_with("HTTP/1.1 200 OK\r\n"));
    let empty = hinting("HTTP/1.1 103 \r\nDate: x\r\n\r\n").site("early_hints 1;");
    assert!(answer(&empty, "1.1").starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn hints_alone_are_no_response_and_too_many_are_logged() {
    let alone = Backend::new(|_, stream| {
        let _ = stream.write_all(HINTS.as_bytes());
        false
    });
    let site = alone.site("early_hints 1;");
    let told = answer(&site, "1.1");
    assert!(told.starts_with("HTTP/1.1 103 Early Hints\r\n"), "{told}");
    assert!(told.contains("HTTP/1.1 502 Bad Gateway\r\n"), "{told}");

    let long: &'static str = HINTS.repeat(20).leak();
    let site = hinting(long).site("early_hints 1; proxy_buffer_size 1k;");
    let told = answer(&site, "1.1");
    assert!(told.matches("103 Early Hints").count() < 20, "{told}");
    assert!(told.contains("HTTP/1.1 200 OK\r\n"), "{told}");
    assert!(site.log().contains("[info] ") && site.log().contains("upstream sent too big early hints"));
}
