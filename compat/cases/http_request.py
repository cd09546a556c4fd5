from harness import Suite, ok

s = Suite("request", http=r"""
    log_format sizes '$remote_addr "$request" $status $body_bytes_sent $request_length "$http_user_agent"';
    server {
        listen %%PORT_0%%;
        server_name localhost;
        client_header_buffer_size 1k;
        large_client_header_buffers 2 2k;
        access_log logs/sizes.log sizes;
        location / { return 200 "$request_method $uri $http_x_a\n"; }
        location /pass { proxy_pass http://%%app%%; }
    }
    server {
        listen %%PORT_1%%;
        underscores_in_headers on;
        ignore_invalid_headers off;
        client_header_timeout 1s;
        location / { return 200 "[$http_x_under]\n"; }
    }
    server { listen %%PORT_2%%; merge_slashes off; keepalive_timeout 1s 5s; keepalive_requests 3; location / { return 200 "ok\n"; } }
    server { listen %%PORT_3%%; keepalive_timeout 0; location / { return 200 "ok\n"; } }
""")
s.backend("app")

H = b"Host: localhost\r\n"
C = b"Connection: close\r\n"
for name, data in (
    ("no version is HTTP/0.9", b"GET /\r\n"),
    ("bad method", b"G@T / HTTP/1.1\r\n" + H + b"\r\n"),
    ("lower case method", b"get / HTTP/1.1\r\n" + H + b"\r\n"),
    ("method alone", b"GET\r\n\r\n"),
    ("no URI", b"GET HTTP/1.1\r\n" + H + b"\r\n"),
    ("URI without slash", b"GET foo HTTP/1.1\r\n" + H + b"\r\n"),
    ("version 2.0", b"GET / HTTP/2.0\r\n" + H + b"\r\n"),
    ("version 1.2", b"GET / HTTP/1.2\r\n" + H + C + b"\r\n"),
    ("version 1.", b"GET / HTTP/1.\r\n" + H + b"\r\n"),
    ("version 11.1", b"GET / HTTP/11.1\r\n" + H + b"\r\n"),
    ("version HTTPS/1.1", b"GET / HTTPS/1.1\r\n" + H + b"\r\n"),
    ("garbage after version", b"GET / HTTP/1.1 x\r\n" + H + b"\r\n"),
    ("spaces around the URI", b"GET   /x   HTTP/1.1\r\n" + H + C + b"\r\n"),
    ("tab in the URI", b"GET /a\tb HTTP/1.1\r\n" + H + b"\r\n"),
    ("control byte in the URI", b"GET /a\x01b HTTP/1.1\r\n" + H + b"\r\n"),
    ("NUL in the URI", b"GET /a\0b HTTP/1.1\r\n" + H + b"\r\n"),
    ("8-bit URI", b"GET /\xe4\xff HTTP/1.1\r\n" + H + C + b"\r\n"),
    ("bare LF line ends", b"GET /lf HTTP/1.1\nHost: localhost\nConnection: close\n\n"),
    ("empty lines before", b"\r\n\r\nGET /x HTTP/1.1\r\n" + H + C + b"\r\n"),
    ("binary garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    ("CONNECT", b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n"),
    ("TRACE", b"TRACE / HTTP/1.1\r\n" + H + b"\r\n"),
    ("no Host", b"GET / HTTP/1.1\r\n\r\n"),
    ("two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("bad Host", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("Host with spaces", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("Host with two dots", b"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n"),
    ("bad host in the URI", b"GET http://a_b/ HTTP/1.1\r\nHost: x\r\n" + C + b"\r\n"),
    ("header without colon", b"GET / HTTP/1.1\r\n" + H + C + b"Broken\r\n\r\n"),
    ("header with a space in its name", b"GET / HTTP/1.1\r\n" + H + C + b"X A: 1\r\n\r\n"),
    ("header with a space before the colon", b"GET / HTTP/1.1\r\n" + H + C + b"X-A : 1\r\n\r\n"),
    ("header with an underscore is dropped", b"GET /pass HTTP/1.1\r\n" + H + C + b"X_A: 1\r\nX-B: 2\r\n\r\n"),
    ("header with an empty name", b"GET / HTTP/1.1\r\n" + H + b": 1\r\n\r\n"),
    ("header with a control byte", b"GET / HTTP/1.1\r\n" + H + b"X-A: a\x00b\r\n\r\n"),
    ("header folding", b"GET /pass HTTP/1.1\r\n" + H + C + b"X-A: a\r\n b\r\n\r\n"),
    ("header starting with a space", b"GET / HTTP/1.1\r\n X-A: 1\r\n" + H + b"\r\n"),
    ("empty header value", b"GET /pass HTTP/1.1\r\n" + H + C + b"X-A:\r\nX-B:   \r\n\r\n"),
    ("spaces around the value", b"GET /pass HTTP/1.1\r\n" + H + C + b"X-A: \t  a  b \t \r\n\r\n"),
    ("8-bit header value", b"GET /pass HTTP/1.1\r\n" + H + C + b"X-A: \xc3\xbc\xff\r\n\r\n"),
    ("header name with odd characters", b"GET /pass HTTP/1.1\r\n" + H + C + b"X!A: 1\r\nX.B: 2\r\nX(C): 3\r\n\r\n"),
    ("bare CR in a header", b"GET / HTTP/1.1\r\n" + H + b"X-A: a\rb\r\n\r\n"),
    ("bad Content-Length", b"POST / HTTP/1.1\r\n" + H + b"Content-Length: abc\r\n\r\n"),
    ("negative Content-Length", b"POST / HTTP/1.1\r\n" + H + b"Content-Length: -1\r\n\r\n"),
    ("plus in Content-Length", b"POST / HTTP/1.1\r\n" + H + b"Content-Length: +1\r\n\r\nx"),
    ("huge Content-Length", b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 99999999999999999999\r\n\r\n"),
    ("two Content-Lengths", b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
    ("Content-Length and chunked", b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("unknown Transfer-Encoding", b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("identity Transfer-Encoding", b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: identity\r\n\r\n"),
    ("chunked in HTTP/1.0", b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("bad chunk size", b"POST /pass HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n"),
    ("chunk longer than said", b"POST /pass HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n"),
    ("huge chunk size", b"POST /pass HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff0\r\n"),
    ("chunk extensions and trailers", b"POST /pass HTTP/1.1\r\n" + H + C + b"Transfer-Encoding: chunked\r\n\r\n"
     b"3;a=b\r\nabc\r\n0003 ; x\r\ndef\r\n0\r\nX-T: 1\r\n\r\n"),
    ("Expect other", b"POST / HTTP/1.1\r\n" + H + C + b"Expect: something\r\nContent-Length: 1\r\n\r\nx"),
    ("long URI", b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n" + H + b"\r\n"),
    ("URI that just fits a large buffer", b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\n" + H + C + b"\r\n"),
    ("long header", b"GET / HTTP/1.1\r\n" + H + b"X-A: " + b"a" * 3000 + b"\r\n\r\n"),
    ("too many headers for the buffers", b"GET / HTTP/1.1\r\n" + H + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 400) for n in range(20)) + b"\r\n"),
    ("headers over several buffers", b"GET /pass HTTP/1.1\r\n" + H + C + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 350) for n in range(6)) + b"\r\n"),
):
    s.raw_case(name, data)
s.raw_case("client closes before the end of its headers", b"GET / HTTP/1.1\r\nHost: loc", half_close=True)
s.raw_case("client closes without a word", b"", half_close=True)
s.raw_case("client closes in the body", b"POST /pass HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc", half_close=True)
s.raw_case("request byte by byte", b"GET /slow HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\nConnection: close\r\n\r\n", cut=1)
s.raw_case("client_header_timeout", b"GET / HTTP/1.1\r\nHost: localhost\r\n", port=1)
s.raw_case("underscores_in_headers on", b"GET / HTTP/1.1\r\nHost: a\r\nX_Under: 1\r\nConnection: close\r\n\r\n", port=1)
s.raw_case("ignore_invalid_headers off", b"GET / HTTP/1.1\r\nHost: a\r\nX@Y: 1\r\nConnection: close\r\n\r\n", port=1)


@s.case("keep-alive, then close")
def _(c):
    conn = c.connect()
    conn.send(b"GET /1 HTTP/1.1\r\nHost: localhost\r\n\r\n").response()
    conn.send(b"HEAD /2 HTTP/1.1\r\nHost: localhost\r\n\r\n").response(head=True)
    conn.send(b"POST /3 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc").response()
    conn.send(b"GET /4 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").all()


@s.case("pipelining")
def _(c):
    conn = c.connect()
    conn.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % n for n in range(4)))
    for _ in range(4):
        conn.response()


@s.case("pipelining after a body, to the backend")
def _(c):
    conn = c.connect()
    conn.send(b"POST /pass/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
              b"POST /pass/2 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
              b"GET /pass/3 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    conn.response()
    conn.response()
    conn.all()


@s.case("HTTP/1.0 keep-alive")
def _(c):
    conn = c.connect()
    conn.send(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").response()
    conn.send(b"GET /b HTTP/1.0\r\n\r\n").all()


@s.case("keepalive_timeout with header, keepalive_requests")
def _(c):
    conn = c.connect(port=2)
    for _ in range(2):
        conn.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").response()
    conn.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").all()


@s.case("keepalive_timeout ends an idle connection")
def _(c):
    conn = c.connect(port=2)
    conn.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").response()
    conn.all()


@s.case("keepalive_timeout 0")
def _(c):
    c.connect(port=3).send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").all()


@s.case("error closes a kept-alive connection")
def _(c):
    conn = c.connect()
    conn.send(b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").response()
    conn.send(b"BAD\x00\r\n\r\n").all()


@s.case("100-continue")
def _(c):
    conn = c.connect()
    conn.send(b"POST /pass HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").response()
    conn.send(b"abc").response()


@s.case("client goes away while the backend works")
def _(c):
    c.connect().send(b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").response()


b = Suite("body", http=r"""
    server {
        listen %%PORT_0%%;
        server_name localhost;
        client_body_buffer_size 1k;
        location / { proxy_pass http://%%app%%; }
        location /unbuffered { proxy_request_buffering off; proxy_pass http://%%app%%; }
        location /http10 { proxy_http_version 1.0; proxy_pass http://%%app%%; }
        location /http10-unbuffered { proxy_http_version 1.0; proxy_request_buffering off; proxy_pass http://%%app%%; }
        location /max { client_max_body_size 10; proxy_pass http://%%app%%; }
        location /unlimited { client_max_body_size 0; proxy_pass http://%%app%%; }
        location /max-page { client_max_body_size 10; error_page 413 /too-big; proxy_pass http://%%app%%; }
        location /too-big { return 413 "too big\n"; }
        location /nobody { proxy_pass_request_body off; proxy_set_header Host x; proxy_set_header Connection ""; proxy_set_header Content-Length ""; proxy_pass http://%%app%%; }
        location /noheaders { proxy_pass_request_headers off; proxy_pass http://%%app%%; }
        location /setbody { proxy_set_body "own $request_method"; proxy_pass http://%%app%%; }
        location /method { proxy_method PUT; proxy_pass http://%%app%%; }
        location /variable { client_body_in_single_buffer on; client_body_buffer_size 16k; proxy_set_header Host x; proxy_set_header Connection ""; proxy_set_header X-Body $request_body; proxy_pass http://%%app%%; }
        location /timeout { client_body_timeout 1s; proxy_pass http://%%app%%; }
        location /temp { client_body_in_file_only clean; proxy_pass http://%%app%%; }
    }
""")
b.backend("app", {"*": ok("got it\n")})
BIG = "0123456789abcdef" * 5000
for where in ("/", "/unbuffered", "/http10", "/http10-unbuffered", "/nobody", "/noheaders", "/setbody", "/method", "/variable", "/temp"):
    b.get("POST " + where, where, "Content-Type: text/x", method="POST", body="a=1&b=2")
    b.raw_case("chunked " + where, b"POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
               b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n" % where.encode())
b.get("80000 bytes buffered in a file", "/unlimited", method="POST", body=BIG)
b.get("80000 bytes unbuffered", "/unbuffered", method="POST", body=BIG)
b.raw_case("80000 bytes chunked", b"POST /unlimited HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
           b"Transfer-Encoding: chunked\r\n\r\n13880\r\n" + BIG.encode() + b"\r\n0\r\n\r\n")
b.get("413 at once", "/max", method="POST", body="01234567890")
b.get("exactly the limit", "/max", method="POST", body="0123456789")
b.raw_case("413 while reading chunks", b"POST /max HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
           b"6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n")
b.get("413 with a page", "/max-page", method="POST", body="01234567890")
b.get("Expect with a 413", "/max", "Expect: 100-continue", method="POST", body="01234567890")
b.get("PUT with an empty body", "/", "Content-Length: 0", method="PUT")
b.get("DELETE", "/", method="DELETE")
b.get("GET with a body", "/", body="surprise")
b.raw_case("client_body_timeout", b"POST /timeout HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")


@b.case("body after a pause, unbuffered")
def _(c):
    conn = c.connect()
    conn.send(b"POST /unbuffered HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 6\r\n\r\nabc")
    c.wait_until(lambda: c.world.backends[0].conn_ids or c.world.backends[0].serial, 1)
    conn.send(b"def").all()


b.weight = s.weight = 200
