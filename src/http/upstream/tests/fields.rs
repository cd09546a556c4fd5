//! Which fields of a response pass, and as what.

use super::*;

#[test]
fn redirects_and_cookies_are_put_in_the_clients_terms() {
    let answer = |to: SocketAddr, path: &str| {
        format!(
            "HTTP/1.1 302 Found\r\nLocation: http://{to}{path}\r\nRefresh: 1; url=http://{to}{path}\r\n\
             Set-Cookie: a=b; Path=/up/x; domain=.up.test\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let own = Arc::new(Mutex::new(None));
    let addr = own.clone();
    let backend = Backend::new(move |_, stream| {
        let to: SocketAddr = addr.lock().unwrap().unwrap();
        stream.write_all(answer(to, "/up/x").as_bytes()).is_ok()
    });
    *own.lock().unwrap() = Some(backend.addr);
    let site = Site::new(&format!(
        "server {{ LISTEN absolute_redirect off;
           location / {{ proxy_pass http://{0}/up/; proxy_cookie_path /up/ /; proxy_cookie_flags a secure samesite=lax;
                         proxy_cookie_domain up.test down.test; }}
           location /off {{ proxy_pass http://{0}; proxy_redirect off; }}
           location /regex {{ proxy_pass http://{0}; proxy_redirect ~^http://[^/]+/up(/.*)$ /re$1; }} }}",
        backend.addr
    ));
    let first = site.get("/");
    assert_eq!((first.field("location"), first.field("refresh")), (Some("/x"), Some("1; url=/x")));
    assert_eq!(first.field("set-cookie"), Some("a=b; Path=/x; domain=.down.test; Secure; SameSite=Lax"));
    let off = format!("http://{}/up/x", backend.addr);
    assert_eq!(site.get("/off").field("location"), Some(off.as_str()));
    assert_eq!(site.get("/regex").field("location"), Some("/re/x"));
}

#[test]
fn fields_for_the_proxy_are_hidden_and_obeyed() {
    let backend = Backend::new(|request, stream| {
        let answer = match request.split(' ').nth(1) {
            Some("/inside") => {
                "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /there?a=b\r\nSet-Cookie: c=d\r\nX-No: x\r\nContent-Length: 0\r\n\r\n"
            }
            Some("/error") => "HTTP/1.1 404 Nope\r\nContent-Length: 2\r\n\r\nno",
            _ => {
                "HTTP/1.1 200 Fine\r\nServer: s\r\nDate: d\r\nX-Accel-Expires: 1\r\nX-Pad: p\r\nX-B: c\r\nContent-Length: 0\r\n\r\n"
            }
        };
        stream.write_all(answer.as_bytes()).is_ok()
    });
    let site = Site::new(&format!(
        "server {{ LISTEN location / {{ proxy_pass http://{0}; proxy_hide_header X-B; proxy_pass_header Server; }}
           location /there {{ internal; return 200 \"there $args\"; }}
           location /error {{ proxy_pass http://{0}; proxy_intercept_errors on; error_page 404 /there; }} }}",
        backend.addr
    ));
    let plain = site.get("/");
    assert!(plain.head.starts_with("HTTP/1.1 200 Fine"), "{}", plain.head);
    assert_eq!(plain.field("server"), Some("s"));
    for hidden in ["x-accel-expires", "x-pad", "x-b"] {
        assert_eq!(plain.field(hidden), None);
    }
    assert_ne!(plain.field("date"), Some("d"));
    let inside = site.get("/inside");
    assert_eq!((inside.status, inside.text().as_str()), (200, "there a=b"));
    assert_eq!((inside.field("set-cookie"), inside.field("x-no")), (Some("c=d"), None));
    assert_eq!(site.get("/error").text(), "there ");
}
