from harness import CLOSE, ECHO, RESET, Suite, ok, reply

s = Suite("upstream", http=r"""
    log_format up '"$request" $status $upstream_status $upstream_addr $upstream_bytes_received';
    access_log logs/up.log up;
    upstream rr { server %%one%% max_fails=0; server %%two%% max_fails=0; }
    upstream weighted { server %%one%% weight=3; server %%two%%; }
    upstream backup { server %%dead%% max_fails=0; server %%one%% backup; }
    upstream down { server %%one%% down; server %%two%%; }
    upstream alldead { server %%dead%% max_fails=0; server %%dead2%% max_fails=0; }
    upstream failed { server %%dead%%; server %%one%%; }
    upstream alldown { server %%dead%% down; }
    upstream next { server %%dead%% max_fails=0; server %%one%% max_fails=0; }
    upstream next-http { server %%bad%% max_fails=0 weight=100; server %%one%% max_fails=0; }
    upstream hashed { hash $arg_k; server %%one%%; server %%two%%; }
    upstream consistent { hash $arg_k consistent; server %%one%%; server %%two%%; }
    upstream iphash { ip_hash; server %%one%%; server %%two%%; }
    upstream least { least_conn; server %%one%%; server %%two%%; }
    upstream kept { server %%pool%%; keepalive 4; }
    upstream kept2 { server %%pool%%; keepalive 1; keepalive_requests 2; }
    server {
        listen %%PORT_0%%;
        server_name localhost;
        location /rr { proxy_pass http://rr; }
        location /weighted { proxy_pass http://weighted; }
        location /backup { proxy_pass http://backup; }
        location /down { proxy_pass http://down; }
        location /alldead { proxy_pass http://alldead; }
        location /failed { proxy_pass http://failed; }
        location /alldown { proxy_pass http://alldown; }
        location /hashed { proxy_pass http://hashed; }
        location /consistent { proxy_pass http://consistent; }
        location /iphash { proxy_pass http://iphash; }
        location /least { proxy_pass http://least; }
        location /dead { proxy_pass http://%%dead%%; }
        location /dead-unix { proxy_pass http://unix:%%PREFIX%%/nosuch.sock; }
        location /dead-uri/ { proxy_pass http://%%dead%%/x/; }
        location /next { proxy_pass http://next; }
        location /next-off { proxy_next_upstream off; proxy_pass http://next; }
        location /next-tries { proxy_next_upstream_tries 1; proxy_pass http://next; }
        location /next-502/ { proxy_next_upstream http_502 http_404; proxy_pass http://next-http/; }
        location /next-error/ { proxy_pass http://next-http/; }
        location /next-invalid/ { proxy_next_upstream error invalid_header; proxy_pass http://next-http/; }
        location /next-nonidem/ { proxy_next_upstream error http_502 non_idempotent; proxy_pass http://next-http/; }
        location /timeout { proxy_read_timeout 300ms; proxy_pass http://%%slow%%; }
        location /timeout-page { proxy_read_timeout 300ms; error_page 504 =200 /late; proxy_pass http://%%slow%%; }
        location /late { return 200 "late\n"; }
        location /timeout-next { proxy_read_timeout 300ms; proxy_next_upstream timeout; proxy_pass http://slow-first; }
        location /variable-unknown { set $up nosuch; proxy_pass http://$up; }
        location /variable-bad { set $up ""; proxy_pass http://$up; }
        location /kept { proxy_pass http://kept; }
        location /kept2 { proxy_pass http://kept2; }
        location /no-keep { proxy_set_header Host a; proxy_set_header Connection close; proxy_pass http://kept; }
    }
    upstream slow-first { server %%slow%% max_fails=0; server %%slow2%% max_fails=0; }
""")
s.backend("one", {"*": lambda q: ok("one %s\n" % q.method)})
s.backend("two", {"*": ok("two\n")})
s.backend("dead", kind="refused")
s.backend("dead2", kind="refused")
s.backend("bad", {"/502": reply("502 Bad Gateway", "bad 502"), "/404": reply("404 Not Found", "bad 404"), "/close": [CLOSE],
                  "/reset": [RESET], "/invalid": [b"rubbish\r\n\r\n", CLOSE], "/half": [b"HTTP/1.1 200 OK\r\nConten", CLOSE],
                  "/500": reply("500 Internal Server Error", "bad 500")})
s.backend("slow", {"*": [1.0, ok("slow\n")]})
s.backend("slow2", {"*": ok("quick\n")})
s.backend("pool", {"/kept/close": reply("200 OK", "bye", "Connection: close")}, conns=True)


def several(name, count, uri):
    @s.case(name)
    def _(c):
        for number in range(count):
            c.send(uri + "?k=%d" % number)


several("round robin", 4, "/rr")
several("weights", 8, "/weighted")
several("hash", 6, "/hashed")
several("consistent hash", 6, "/consistent")
several("ip_hash", 3, "/iphash")
several("least_conn", 3, "/least")
several("a failed server is left out", 3, "/failed")
several("kept connections", 3, "/kept")
several("keepalive_requests", 5, "/kept2")
for uri in ("/backup", "/down", "/alldown", "/dead", "/dead?a=b", "/dead-unix", "/dead-uri/y?z", "/next", "/next-502/404",
            "/next-502/500", "/timeout", "/timeout-page", "/timeout-next", "/variable-unknown", "/variable-bad", "/no-keep"):
    s.get(uri, uri)


@s.case("all dead")
def _(c):
    c.send("/alldead")


@s.case("next_upstream off and tries")
def _(c):
    for uri in ("/next-off", "/next-off", "/next-tries", "/next-tries"):
        c.send(uri)


# The first server of this upstream gets every request of a case that comes first after a start, by its weight.
for uri in ("/next-error/close", "/next-error/reset", "/next-error/half", "/next-error/invalid", "/next-invalid/invalid", "/next-502/502"):
    s.get(uri, uri)
s.get("POST is not repeated", "/next-502/502", method="POST", body="x")
s.get("POST is repeated with non_idempotent", "/next-nonidem/502", method="POST", body="x")
s.get("POST to a dead server goes to the next", "/next", method="POST", body="abc")
s.get("HEAD to a dead server", "/dead", method="HEAD")


@s.case("the backend closes its kept connection")
def _(c):
    c.send("/kept/close")
    c.send("/kept/a")
    c.send("/kept/b")


@s.case("parallel requests take parallel connections")
def _(c):
    conns = [c.connect() for _ in range(2)]
    for conn in conns:
        conn.send(b"GET /kept HTTP/1.1\r\nHost: a\r\n\r\n").response()


s.weight = 300

w = Suite("websocket", http=r"""
    log_format ws '"$request" $status $body_bytes_sent';
    map $http_upgrade $connection_upgrade { default upgrade; '' close; }
    access_log logs/ws.log ws;
    server {
        listen %%PORT_0%%;
        location / {
            proxy_pass http://%%ws%%;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_read_timeout 1s;
        }
    }
    server { listen %%PORT_1%% ssl; ssl_certificate %%CERTS%%/a.crt; ssl_certificate_key %%CERTS%%/a.key;
        location / { proxy_pass http://%%ws%%; proxy_set_header Host $host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; }
    }
""")
SWITCH = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
w.backend("ws", {"/echo": [SWITCH, ECHO], "/refused": reply("403 Forbidden", "no"), "/greet": [SWITCH + b"hello", ECHO],
                 "/bye": [SWITCH + b"bye", CLOSE]})


def upgrade(uri):
    return (b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n" % uri)


@w.case("70000 bytes echoed")
def _(c):
    conn = c.connect()
    conn.send(upgrade(b"/echo")).response()
    for _ in range(7):
        conn.send(b"0123456789" * 1000).exactly(10000)
    conn.close()


@w.case("over TLS")
def _(c):
    conn = c.connect(port=1, tls=True, sni="a.test")
    conn.send(upgrade(b"/echo")).response()
    conn.send(b"ping").exactly(4)
    conn.close()


@w.case("data right behind the request")
def _(c):
    conn = c.connect()
    conn.send(upgrade(b"/echo") + b"early").response()
    conn.exactly(5)
    conn.close()


@w.case("the backend speaks first and the client too")
def _(c):
    conn = c.connect()
    conn.send(upgrade(b"/greet")).response()
    conn.exactly(5).send(b"hi").exactly(2)
    conn.close()


@w.case("the backend closes")
def _(c):
    c.connect().send(upgrade(b"/bye")).all()


@w.case("idle beyond proxy_read_timeout")
def _(c):
    conn = c.connect()
    conn.send(upgrade(b"/echo")).response()
    conn.all_raw()


w.raw_case("refused by the backend", upgrade(b"/refused").replace(b"Upgrade\r\nSec", b"Upgrade, close\r\nSec"))
w.get("plain request on the same location", "/plain")
w.weight = 200
