from harness import CLOSE, Suite, ok, reply

s = Suite("proxy", http=r"""
    map $arg_to $target { app %%app%%; default 127.0.0.1:%%app_PORT%%; }
    upstream group { server %%app%%; }
    server {
        listen %%PORT_0%%;
        server_name localhost;
        location /plain { proxy_pass http://%%app%%; }
        location /uri/ { proxy_pass http://%%app%%/base/; }
        location /uri-noslash/ { proxy_pass http://%%app%%/base; }
        location /group { proxy_pass http://group; }
        location /variable { proxy_pass http://$target; }
        location /variable-uri { proxy_pass http://$target/fixed?x=$arg_q; }
        location /request-uri { proxy_pass http://%%app%%$request_uri; }
        location ~ ^/regex/(.*)$ { proxy_pass http://%%app%%/r/$1; }
        location ~ ^/regex-plain/ { proxy_pass http://%%app%%; }
        location /rewritten/ { rewrite ^/rewritten/(.*)$ /x/$1 break; proxy_pass http://%%app%%/ignored/; }
        location /unix { proxy_pass http://%%sock%%; }
        location /unix-uri { proxy_pass http://%%sock%%:/base; }
        location /args/ { set $args "replaced=1"; proxy_pass http://%%app%%/a/; }
        location = /exact { proxy_pass http://%%app%%/other/path; }
        location /limit { limit_except GET { deny all; } proxy_pass http://%%app%%; }
        location /upstream-vars {
            add_header X-Up "$upstream_addr $upstream_status $upstream_response_length $upstream_http_x_app $upstream_cookie_sid";
            proxy_pass http://%%app%%;
        }
        location /defaults { proxy_set_header X-Set yes; proxy_pass http://%%app%%; }
        location /proxy-vars { proxy_set_header Host h; proxy_set_header Connection ""; proxy_set_header X-Vars "$proxy_host $proxy_port $proxy_add_x_forwarded_for"; proxy_pass http://group/; }
    }
    server {
        listen %%PORT_1%%;
        proxy_set_header Host $http_host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header Connection "";
        location /inherit { proxy_pass http://%%app%%; }
        location /replace { proxy_set_header Host fixed; proxy_set_header Connection ""; proxy_set_header Accept-Encoding ""; proxy_set_header X-New "a $scheme"; proxy_pass http://%%app%%; }
        location /case { proxy_set_header Host a; proxy_set_header Connection ""; proxy_set_header x-lower 1; proxy_set_header X-UPPER 2; proxy_pass http://%%app%%; }
        location /forwarded { proxy_set_header Host a; proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; proxy_pass http://%%app%%; }
        location /connection-close { proxy_set_header Host a; proxy_set_header Connection close; proxy_pass http://%%app%%; }
    }
""")
s.backend("app", {"/upstream-vars": ok("hi", "X-App: v1", "Set-Cookie: sid=abc; Path=/")})
s.backend("sock", path="app.sock")
for uri in ("/plain/a?b=c", "/uri/a?b=c", "/uri-noslash/a", "/uri/a%20b/%2f", "/uri", "/group/x", "/variable?to=app", "/variable/%41",
            "/variable-uri/x?q=1", "/request-uri/a%20b?c", "/regex/a/b?c=d", "/regex-plain/a%20b", "/rewritten/a?x=1", "/unix/x",
            "/unix-uri/x", "/args/x?y=1", "/exact?z=1", "/limit", "/upstream-vars", "/proxy-vars"):
    s.get(uri, uri)
s.get("limit_except", "/limit", method="POST", body="x")
ALL = ("User-Agent: compat", "Accept: */*", "Accept-Encoding: gzip", "X-Mixed-CASE: Value", "Cookie: a=1; b=2", "Cookie: c=3",
       "X-Twice: 1", "X-Twice: 2", "Authorization: Basic dTpw", "X-Forwarded-For: 10.0.0.1", "Upgrade-Insecure-Requests: 1",
       "Referer: http://r/", "If-None-Match: \"x\"", "Range: bytes=0-1", "TE: trailers", "Keep-Alive: timeout=5",
       "Upgrade: h2c")
s.get("Proxy-Connection is not passed", "/plain", "Proxy-Connection: keep-alive", "X-A: b")
s.get("defaults without any proxy_set_header", "/defaults", "X-A: b")
s.get("headers sent upstream", "/plain", *ALL)
for uri in ("/inherit", "/replace", "/case", "/forwarded", "/connection-close"):
    s.get("proxy_set_header " + uri, uri, *ALL, port=1)

r = Suite("response", http=r"""
    log_format up '$status $upstream_status $upstream_response_length $upstream_addr "$upstream_http_x_one" $body_bytes_sent';
    access_log logs/up.log up;
    server {
        listen %%PORT_0%%;
        server_name localhost;
        location / { proxy_pass http://%%app%%; }
        location /unbuffered/ { proxy_buffering off; proxy_pass http://%%app%%/; }
        location /http10/ { proxy_http_version 1.0; proxy_pass http://%%app%%/; }
        location /hide/ { proxy_hide_header X-One; proxy_hide_header Cache-Control; proxy_pass http://%%app%%/; }
        location /pass/ { proxy_pass_header Server; proxy_pass_header Date; proxy_pass_header X-Accel-Expires; proxy_pass http://%%app%%/; }
        location /ignore/ { proxy_ignore_headers X-Accel-Redirect X-Accel-Limit-Rate; proxy_pass http://%%app%%/; }
        location /small-buffer/ { proxy_buffer_size 1k; proxy_buffers 4 1k; proxy_busy_buffers_size 2k; proxy_pass http://%%app%%/; }
        location /redirect-default/ { proxy_pass http://%%app%%/; }
        location /redirect-off/ { proxy_redirect off; proxy_pass http://%%app%%/; }
        location /redirect-one/ { proxy_redirect http://%%app%%/ http://front.test/one/; proxy_pass http://%%app%%/; }
        location /redirect-regex/ { proxy_redirect ~^http://[^/]+/(.*)$ https://$host/re/$1; proxy_pass http://%%app%%/; }
        location /redirect-path/ { proxy_redirect / /prefixed/; proxy_pass http://%%app%%/; }
        location /redirect-many/ { proxy_pass http://%%app%%/; proxy_redirect default; proxy_redirect http://other.test/ /other/; }
        location /cookie/ {
            proxy_cookie_domain app.test front.test; proxy_cookie_domain ~\.?(\w+)\.old$ $1.new;
            proxy_cookie_path / /front/; proxy_cookie_path ~*^/API(.*)$ /v1$1;
            proxy_cookie_flags sid secure httponly samesite=strict; proxy_cookie_flags ~^t nosecure;
            proxy_pass http://%%app%%/;
        }
        location /intercept/ { proxy_intercept_errors on; error_page 404 502 /handled; proxy_pass http://%%app%%/; }
        location /handled { return 200 "handled $upstream_status\n"; }
        location /internal/ { internal; root html; }
        location @accel { return 200 "named $uri\n"; }
        location /force-ranges/ { proxy_force_ranges on; proxy_pass http://%%app%%/; }
        location /cut/ { error_page 502 /handled; proxy_pass http://%%app%%/; }
    }
""", files={"html/internal/file": "protected\n"})
HOST = "http://%%app%%"
BIG = b"0123456789abcdef" * 8192
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-One: 1\r\n\r\n5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n"
r.backend("app", {
    "/length": ok("hello", "X-One: 1", "x-lower: 2", "X-Two: 3", "X-Two: 4"),
    "/repeated": ok("hello", "X-One: 1", "X-One: 3"),
    "/chunked": CHUNKED,
    "/chunked-trailer": CHUNKED[:-2] + b"X-Trailer: t\r\n\r\n",
    "/close": [b"HTTP/1.1 200 OK\r\nX-One: 1\r\n\r\nuntil close", CLOSE],
    "/old": [b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold", CLOSE],
    "/http09": [b"just text, no status", CLOSE],
    "/204": b"HTTP/1.1 204 No Content\r\nX-One: 1\r\n\r\n",
    "/304": b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nX-One: 1\r\n\r\n",
    "/404": reply("404 Not Found", "own 404", "Content-Type: text/html"),
    "/500": reply("500 Oops My Text", "own 500"),
    "/299": reply("299 Unusual", "x"),
    "/noreason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi",
    "/emptyreason": b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi",
    "/standard": ok("hi", "Date: Thu, 01 Jan 2015 00:00:00 GMT", "Server: app/1", "Content-Type: text/x; charset=utf-8",
                    "Last-Modified: Thu, 01 Jan 2015 00:00:00 GMT", "ETag: \"e\"", "Cache-Control: max-age=1", "Vary: Accept",
                    "Set-Cookie: a=1", "Set-Cookie: b=2", "X-Accel-Expires: 5", "X-Pad: p", "Connection: keep-alive",
                    "Keep-Alive: timeout=3", "Accept-Ranges: bytes", "Content-Encoding: x", "Link: </a>", "WWW-Authenticate: Basic"),
    "/big": ok(BIG), "/big-chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n" + BIG + b"\r\n0\r\n\r\n",
    "/big-close": [b"HTTP/1.1 200 OK\r\n\r\n" + BIG, CLOSE],
    "/slow": [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc", 0.05, b"def"],
    "/slow-head": [b"HTTP/1.1 200 ", 0.02, b"OK\r\nContent-", 0.02, b"Length: 2\r\n\r", 0.02, b"\nhi"],
    "/redirect": lambda q: reply("302 Found", "", "Location: http://127.0.0.1:%d/login?a=b" % R_PORT(q)),
    "/redirect-path": reply("301 Moved Permanently", "", "Location: /login"),
    "/redirect-other": reply("302 Found", "", "Location: http://other.test/login"),
    "/refresh": lambda q: ok("", "Refresh: 5; url=http://127.0.0.1:%d/next" % R_PORT(q)),
    "/cookies": ok("", "Set-Cookie: sid=1; Domain=app.test; Path=/", "Set-Cookie: tok=2; path=/api/x; Secure; domain=.x.old",
                   "Set-Cookie: plain", "Set-Cookie: q=\"a;b\"; Path=/other; HttpOnly"),
    "/accel": reply("200 OK", "not shown", "X-Accel-Redirect: /internal/file", "X-One: kept?", "Set-Cookie: kept=1",
                    "Content-Type: text/x-accel"),
    "/accel-named": reply("200 OK", "not shown", "X-Accel-Redirect: @accel"),
    "/accel-buffering": ok("x", "X-Accel-Buffering: no", "X-Accel-Charset: utf-8"),
    "/cut-length": [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", 0.05, CLOSE],
    "/cut-chunked": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", CLOSE],
    "/cut-head": [b"HTTP/1.1 200 OK\r\nContent-Le", CLOSE],
    "/nothing": [CLOSE],
    "/bad-status": [b"HTTP/1.1 abc\r\n\r\n", CLOSE],
    "/bad-header": [b"HTTP/1.1 200 OK\r\nX One: 1\r\nBroken\r\nContent-Length: 2\r\n\r\nhi", CLOSE],
    "/bad-header-nul": [b"HTTP/1.1 200 OK\r\nX-One: a\0b\r\nContent-Length: 2\r\n\r\nhi", CLOSE],
    "/bad-chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", CLOSE],
    "/both": [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", CLOSE],
    "/two-lengths": [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", CLOSE],
    "/bad-length": [b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhi", CLOSE],
    "/extra": [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more", CLOSE],
    "/extra-head": [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", CLOSE],
    "/long-header": ok("x", "X-Long: " + "a" * 2000),
    "/lf": [b"HTTP/1.1 200 OK\nX-One: 1\nContent-Length: 2\n\nhi", CLOSE],
    "/ranges": ok("0123456789", "Content-Type: text/plain", "Last-Modified: Thu, 01 Jan 2015 00:00:00 GMT"),
    "/100": b"HTTP/1.1 100 Continue\r\n\r\n" + ok("hi"),
})


def R_PORT(request):
    import re
    return int(re.search(rb"Host: 127\.0\.0\.1:(\d+)", request.head).group(1))


for path in ("length", "chunked", "chunked-trailer", "close", "old", "http09", "204", "304", "404", "500", "299", "noreason",
             "emptyreason", "standard", "big", "slow", "slow-head", "accel", "accel-named",
             "accel-buffering", "repeated", "cut-length", "cut-chunked", "cut-head", "nothing", "bad-status", "bad-header", "bad-header-nul",
             "bad-chunk", "extra", "lf", "ranges"):
    r.get(path, "/" + path)
for path in ("length", "chunked", "close", "204", "big", "slow", "cut-length", "nothing", "404"):
    r.get("unbuffered " + path, "/unbuffered/" + path)
for path in ("length", "chunked", "standard", "304", "close"):
    r.get("HEAD " + path, "/" + path, method="HEAD")
for path in ("chunked", "close", "length"):
    r.get("HTTP/1.0 client, " + path, "/" + path, version="1.0")
r.get("HTTP/1.0 to the backend", "/http10/length")
r.get("proxy_hide_header", "/hide/length")
r.get("proxy_hide_header of a known one", "/hide/standard")
r.get("proxy_pass_header", "/pass/standard")
r.get("proxy_ignore_headers", "/ignore/accel")
r.get("header larger than proxy_buffer_size", "/small-buffer/long-header")
r.get("body larger than all buffers", "/small-buffer/big")
for kind in ("default", "off", "one", "regex", "path", "many"):
    for path in ("redirect", "redirect-path", "redirect-other"):
        r.get("proxy_redirect %s, %s" % (kind, path), "/redirect-%s/%s" % (kind, path))
r.get("proxy_redirect in Refresh", "/redirect-one/refresh")
r.get("proxy_cookie_*", "/cookie/cookies")
r.get("intercepted 404", "/intercept/404")
r.get("intercepted 500 has no page", "/intercept/500")
r.get("502 with a page", "/cut/nothing")
r.get("proxy_force_ranges", "/force-ranges/ranges", "Range: bytes=2-4")
r.get("range on a proxied response", "/ranges", "Range: bytes=2-4")
r.get("If-Modified-Since on a proxied response", "/ranges", "If-Modified-Since: Thu, 01 Jan 2015 00:00:00 GMT")


@r.case("keep-alive to the client with a length, chunks, and a close-delimited answer")
def _(c):
    conn = c.connect()
    for path in (b"length", b"chunked", b"204", b"close"):
        conn.send(b"GET /" + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n").response()


r.weight = 150

# How a long body is cut into chunks depends on the moment; the log of this suite does not count bytes.
g = Suite("response-long", http=r"""
    log_format short '$request $status';
    server {
        listen %%PORT_0%%;
        access_log logs/short.log short;
        location / { proxy_pass http://%%app%%; }
        location /unbuffered/ { proxy_buffering off; proxy_pass http://%%app%%/; }
        
        location /file/ { proxy_buffers 2 4k; proxy_busy_buffers_size 4k; proxy_max_temp_file_size 64k; proxy_pass http://%%app%%/; }
        location /static { root html; output_buffers 2 8k; sendfile off; }
        location /sendfile { root html; sendfile on; tcp_nopush on; }
    }
""", files={"html/static": "static line\n" * 30000, "html/sendfile": "static line\n" * 30000})
g.backend("app", {
    "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n" + BIG + b"\r\n0\r\n\r\n",
    "/many-chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
        b"%x\r\n%s\r\n" % (n, b"x" * n) for n in range(1, 300)) + b"0\r\n\r\n",
    "/close": [b"HTTP/1.1 200 OK\r\n\r\n" + BIG, CLOSE],
    "*": ok(BIG),
})
for uri in ("/length", "/chunked", "/many-chunks", "/close", "/unbuffered/length", "/unbuffered/chunked", "/unbuffered/close",
            "/unbuffered/many-chunks", "/file/length", "/file/close", "/file/chunked", "/static", "/sendfile"):
    g.get(uri, uri)
g.get("HTTP/1.0 client, chunked", "/chunked", version="1.0")
