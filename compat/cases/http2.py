from harness import CLOSE, Suite, ok, reply

s = Suite("http2", http=r"""
    log_format h2 '"$request" $status $http2 $server_protocol $scheme $host';
    access_log logs/h2.log h2;
    ssl_certificate %%CERTS%%/a.crt;
    ssl_certificate_key %%CERTS%%/a.key;
    server { listen %%PORT_0%% ssl http2; server_name a.test;
        client_max_body_size 200k;
        root html;
        location / { return 200 "$server_protocol $request_method $uri $args $host $http_x_one\n"; }
        location /404 { return 404; }
        location /301 { return 301 /x; }
        location /204 { return 204; }
        location /file { }
        location /headers { add_header X-Mixed-Case Value; add_header X-Two 1; add_header X-Two 2; return 200 ok; }
        location /proxy { proxy_pass http://%%app%%; }
        location /cookies { return 200 "$http_cookie\n"; }
        location /trailer { add_trailer X-Trailer end; proxy_pass http://%%app%%; }
        location /small { client_max_body_size 5; proxy_pass http://%%app%%; }
    }
    server { listen %%PORT_0%% ssl http2; server_name b.test; ssl_certificate %%CERTS%%/b.crt; ssl_certificate_key %%CERTS%%/b.key; return 200 "b $host\n"; }
    server { listen %%PORT_1%% http2; server_name plain; location / { return 200 "h2c $server_protocol $scheme\n"; } }
""", files={"html/file": "0123456789" * 2000})
s.backend("app", {"/proxy/big": ok(b"x" * 100000), "/proxy/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                  "/proxy/close": [b"HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nclosed", CLOSE], "/proxy/304": b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
                  "/proxy/hop": ok("hop", "Connection: close", "Keep-Alive: x", "X-Up: 1"), "/proxy/cut": [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", 0.03, CLOSE],
                  "/proxy/500": reply("500 Custom", "five"), "/trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"})


def fields(path="/", *more, method="GET", authority="a.test", scheme="https"):
    return [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)] + [tuple(m.split(": ", 1)) for m in more]


def h2(name, *requests, port=0, plain=False, sni="a.test"):
    def run(c):
        tls = {} if plain else {"tls": {"alpn": ["h2"]}, "sni": sni}
        c.connect(port=port, **tls).h2(*[(r, b"", None) if isinstance(r, list) else r for r in requests])

    s.cases.append((name, run))


h2("GET", fields("/path?a=b", "x-one: 1"))
for path in ("/404", "/301", "/204", "/file", "/headers", "/trailer", "/proxy/x", "/proxy/big", "/proxy/chunked", "/proxy/close",
             "/proxy/304", "/proxy/hop", "/proxy/500"):
    h2("GET " + path, fields(path))
h2("HEAD", fields("/file", method="HEAD"))
h2("range", fields("/file", "range: bytes=1-3"))
h2("not modified", fields("/file", "if-modified-since: Tue, 14 Nov 2023 22:13:20 GMT"))
h2("several streams", fields("/1"), fields("/404"), fields("/3"))
h2("other server by :authority", fields("/", authority="b.test"), sni="b.test")
h2("Host instead of :authority", [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "a.test")])
h2("cookie crumbs are joined", fields("/cookies", "cookie: a=1", "cookie: b=2"))
h2("headers to the backend", fields("/proxy/h", "x-one: 1", "user-agent: ua", "cookie: a=1", "cookie: b=2", "te: trailers", "accept: */*"))
h2("POST with a length", (fields("/proxy/p", "content-length: 5", method="POST"), b"hello", None))
h2("POST without a length", (fields("/proxy/p", method="POST"), b"hello", None))
h2("POST of 100000 bytes", (fields("/proxy/p", "content-length: 60000", method="POST"), b"y" * 60000, None))
h2("POST too large", (fields("/small", "content-length: 10", method="POST"), b"0123456789", None))
h2("no path", [(":method", "GET"), (":scheme", "https"), (":authority", "a.test")])
h2("path with dots", fields("/a/../b//c?x=1"))
h2("unknown method", fields("/", method="FOO"))
h2("length and body differ", (fields("/proxy/p", "content-length: 9", method="POST"), b"hello", None))
h2("plain, prior knowledge", fields("/", authority="plain", scheme="http"), port=1, plain=True)
s.get("HTTP/1.1 beside h2", "/", host="a.test", tls={"alpn": ["http/1.1"]}, sni="a.test")
s.get("no ALPN is HTTP/1.1", "/", host="a.test", tls=True, sni="a.test")
