"""Two whole sites as people write them: TLS in front of an application, and TLS passed through by name."""

from harness import ECHO, Suite, ok
from harness.client import in_records

s = Suite("site-behind-tls", http=r"""
    upstream application { server %%app%%; keepalive 10; }
    map $http_upgrade $connection_upgrade_keepalive { default upgrade; '' ''; }
    server {
        listen %%PORT_0%%;
        server_name a.test;
        return 301 https://$host$request_uri;
    }
    server {
        listen %%PORT_1%% ssl http2;
        server_name a.test;
        ssl_certificate %%CERTS%%/a.crt;
        ssl_certificate_key %%CERTS%%/a.key;
        add_header Strict-Transport-Security "max-age=63072000" always;
        location / {
            proxy_pass https://application;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade_keepalive;
        }
    }
""")
s.backend("app", {"/ws": [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", ECHO],
                  "/login": ok("<form>", "Content-Type: text/html; charset=utf-8", "Set-Cookie: session=1; HttpOnly; Path=/", "Vary: Cookie"),
                  "/missing": b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope"}, tls={}, conns=True)
A = {"tls": {"alpn": ["http/1.1"]}, "sni": "a.test", "port": 1, "host": "a.test"}
s.get("http is sent to https", "/if/flow/?next=%2F", host="a.test")
s.get("page over https", "/login", "Cookie: a=b", "User-Agent: browser", **A)
s.get("404 keeps HSTS", "/missing", **A)
s.get("form", "/login", "X-Forwarded-For: 192.0.2.7", "Content-Type: application/x-www-form-urlencoded", method="POST", body="u=a&p=b", **A)


@s.case("websocket over https")
def _(c):
    conn = c.connect(port=1, tls={"alpn": ["http/1.1"]}, sni="a.test")
    conn.send(b"GET /ws HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n").response()
    conn.send(b"frame").exactly(5)
    conn.close()


@s.case("page over HTTP/2")
def _(c):
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/login"), ("cookie", "x=1")]
    for path in ("/login", "/missing"):
        c.connect(port=1, tls={"alpn": ["h2"]}, sni="a.test").h2((fields[:3] + [(":path", path)] + fields[4:], b"", None))


@s.case("several requests on one connection use one connection to the application")
def _(c):
    conn = c.connect(port=1, tls={"alpn": ["http/1.1"]}, sni="a.test")
    for path in (b"/a", b"/b", b"/c"):
        conn.send(b"GET " + path + b" HTTP/1.1\r\nHost: a.test\r\n\r\n").response()
    conn.close()


t = Suite("site-passthrough", http=r"""
    server {
        listen %%PORT_1%% ssl http2;
        server_name a.test;
        ssl_certificate %%CERTS%%/a.crt;
        ssl_certificate_key %%CERTS%%/a.key;
        location / { proxy_pass http://%%cloud%%/; }
    }
    server {
        listen %%PORT_2%%;
        server_name x.b.test;
        location .well-known { proxy_pass http://%%pbx_http%%/.well-known; }
        location /.well-known { proxy_pass http://%%pbx_http%%/.well-known; }
    }
""", stream=r"""
    map $ssl_preread_server_name $name { x.b.test pbx; default inside; }
    upstream pbx { server %%pbx%%; }
    upstream inside { server 127.0.0.1:%%PORT_1%%; }
    server { listen %%PORT_0%%; proxy_pass $name; ssl_preread on; }
""", mask=[(rb"(bytes from/to \w+):\d+/\d+", rb"\1:N/N")])
t.backend("pbx", {"*": ok("pbx speaks TLS itself\n")}, tls={"name": "b"})
t.backend("pbx_http")
t.backend("cloud")
t.get("passed through by name", "/", tls=True, sni="x.b.test", host="x.b.test")
t.get("to the own https server by default", "/files?x", tls=True, sni="a.test", host="a.test")
t.get("without a name", "/", tls=True, host="a.test")
t.get("ClientHello in three records", "/", tls=True, sni="x.b.test", host="x.b.test", first_flight=in_records(3))
t.get("challenge file", "/.well-known/acme-challenge/token", host="x.b.test", port=2)
t.get("nothing else on port 80", "/", host="x.b.test", port=2)


@t.case("HTTP/2 through the pass-through")
def _(c):
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/h2")]
    c.connect(tls={"alpn": ["h2"]}, sni="a.test").h2((fields, b"", None))
