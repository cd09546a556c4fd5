from harness import CLOSE, ECHO, Suite, ok
from harness.backends import collect, once
from harness.suite import request

s = Suite("ipv6", http=r"""
    log_format v6 '$remote_addr $server_addr $server_port "$request" $status $upstream_addr $scheme $http2';
    access_log logs/v6.log v6;
    ssl_certificate %%CERTS%%/a.crt;
    ssl_certificate_key %%CERTS%%/a.key;
    map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
    upstream both { server %%six%%; server %%four%%; }
    server { listen [::1]:%%PORT_0%%; server_name localhost;
        location / { return 200 "$remote_addr $server_addr $server_port $host $binary_remote_addr\n"; }
        location /redirect { return 301 /x; }
        location /proxy { proxy_set_header Host $host; proxy_set_header Connection ""; proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_pass http://%%six%%; }
        location /default-host { proxy_pass http://%%six%%; }
        location /literal { proxy_pass http://[::1]:%%six_PORT%%/other; }
        location /variable { set $to [::1]:%%six_PORT%%; proxy_pass http://$to; }
        location /dead { proxy_pass http://%%dead%%; }
        location /both { proxy_pass http://both; }
        location /redirected { proxy_pass http://%%six%%; }
        location /socket { proxy_pass http://%%ws%%; proxy_set_header Host $host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; }
        location /denied { deny ::1; }
        location /allowed { allow ::1/128; deny all; return 200 no; }
        location /net { allow 2001:db8::/32; deny all; }
        location /real { set_real_ip_from ::1; real_ip_header X-Real-IP; return 200 "$remote_addr $realip_remote_addr\n"; }
    }
    server { listen [::1]:%%PORT_0%%; server_name other; return 200 "other $server_name\n"; }
    server { listen %%PORT_1%%; listen [::]:%%PORT_1%%; server_name twice; return 200 "$remote_addr $server_addr\n"; }
    server { listen [::]:%%PORT_2%% ipv6only=off; return 200 "$remote_addr $server_addr\n"; }
    server { listen [::1]:%%PORT_3%% ssl http2; server_name a.test; location / { return 200 "$remote_addr $server_protocol $ssl_server_name\n"; }
        location /proxy { proxy_pass http://%%six%%; } }
    server { listen [::1]:%%PORT_3%% ssl http2; server_name b.test; ssl_certificate %%CERTS%%/b.crt; ssl_certificate_key %%CERTS%%/b.key; return 200 "b $remote_addr\n"; }
    server { listen [::1]:%%PORT_4%% proxy_protocol; set_real_ip_from ::1; real_ip_header proxy_protocol; return 200 "$remote_addr $remote_port $proxy_protocol_addr $realip_remote_addr\n"; }
""")
s.backend("six", {"*": ok("six"), "/redirected": b"HTTP/1.1 302 Found\r\nLocation: http://%%six%%/there\r\nContent-Length: 0\r\n\r\n"}, address="::1")
s.backend("four", {"*": ok("four")})
s.backend("dead", kind="refused", address="::1")
s.backend("ws", {"*": [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", ECHO]}, address="::1")

for uri in ("/a", "/redirect", "/proxy", "/default-host", "/literal", "/variable", "/dead", "/redirected", "/denied", "/allowed", "/net"):
    s.get(uri, uri, address="::1")
s.get("Host is an address", "/a", host="[::1]:80", address="::1")
s.get("other server", "/a", host="other", address="::1")
s.get("X-Real-IP", "/real", "X-Real-IP: 2001:db8::7", address="::1")
s.get("X-Forwarded-For", "/proxy", "X-Forwarded-For: 2001:db8::1", address="::1")
s.get("two listeners, IPv4", "/", port=1)
s.get("two listeners, IPv6", "/", port=1, address="::1")
s.get("one for both, IPv4", "/", port=2)
s.get("one for both, IPv6", "/", port=2, address="::1")
s.get("https", "/", host="a.test", port=3, tls=True, sni="a.test", address="::1")
s.get("https, other name", "/", host="b.test", port=3, tls=True, sni="b.test", address="::1")
s.get("PROXY protocol", "/", port=4, prefix=b"PROXY TCP6 2001:db8::1 2001:db8::2 1111 2222\r\n", address="::1")
s.get("POST", "/proxy", method="POST", body="x" * 70000, address="::1")
s.raw_case("malformed", b"GET / HTTP/1.1\r\nHost a\r\n\r\n", address="::1")
s.raw_case("HTTP/0.9", b"GET /a\r\n", address="::1")


@s.case("peers of both families")
def _(c):
    for _ in range(2):
        c.send("/both", address="::1")


@s.case("keep-alive and pipelining")
def _(c):
    conn = c.connect(address="::1")
    conn.send(b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\nGET /proxy HTTP/1.1\r\nHost: localhost\r\n\r\n").response()
    conn.response()
    conn.send(request("/a")).all()


@s.case("websocket")
def _(c):
    conn = c.connect(address="::1")
    conn.send(b"GET /socket HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").response()
    for _ in range(7):
        conn.send(b"0123456789" * 1000).exactly(10000)
    conn.close()


def h2(name, path, *more, authority="a.test", method="GET", body=b""):
    @s.case(name)
    def _(c):
        fields = [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path), *more]
        c.connect(port=3, tls={"alpn": ["h2"]}, sni=authority, address="::1").h2((fields, body, None))


h2("h2", "/")
h2("h2, other name", "/", authority="b.test")
h2("h2, proxied", "/proxy", method="POST", body=b"hello")

t = Suite("ipv6-stream", stream=r"""
    log_format basic '$remote_addr $server_addr $protocol $status $bytes_sent $bytes_received "$upstream_addr"';
    access_log logs/stream.log basic;
    map $ssl_preread_server_name $route { a.test %%six%%; default %%four%%; }
    server { listen [::1]:%%PORT_0%%; proxy_pass %%six%%; }
    server { listen [::1]:%%PORT_1%%; proxy_pass %%four%%; }
    server { listen [::1]:%%PORT_2%%; return "$remote_addr $server_addr $binary_remote_addr\n"; }
    server { listen [::1]:%%PORT_3%%; deny ::1; proxy_pass %%six%%; }
    server { listen [::1]:%%PORT_4%%; proxy_pass %%dead%%; }
    server { listen [::1]:%%PORT_5%%; proxy_protocol on; proxy_pass %%tell%%; }
    server { listen [::1]:%%PORT_6%% proxy_protocol; set_real_ip_from ::1; return "$remote_addr $proxy_protocol_port $realip_remote_addr"; }
    server { listen [::1]:%%PORT_7%%; ssl_preread on; proxy_pass $route; }
    server { listen [::1]:%%PORT_8%% ssl; ssl_certificate %%CERTS%%/a.crt; ssl_certificate_key %%CERTS%%/a.key; proxy_pass %%six%%; }
    server { listen %%PORT_9%%; proxy_pass [::1]:%%six_PORT%%; }
    server { listen %%PORT_10%%; listen [::]:%%PORT_10%%; return "$remote_addr $server_addr\n"; }
""")
t.backend("six", kind="echo", address="::1")
t.backend("four", kind="echo")
t.backend("dead", kind="refused", address="::1")
t.backend("tell", kind="raw", script=once(b"told you\n", mark=b"hello\n"), address="::1")


def echo(name, port, data, **options):
    @t.case(name)
    def _(c):
        conn = c.connect(port=port, **options)
        conn.send(data).exactly(len(data))
        conn.close()


echo("to IPv6", 0, b"x" * 70000, address="::1")
echo("to IPv4", 1, b"x" * 70000, address="::1")
echo("from IPv4 to IPv6", 9, b"hello")
echo("TLS", 8, b"hello", tls=True, sni="a.test", address="::1")
t.tcp("return", port=2, address="::1")
t.tcp("denied", b"x", port=3, address="::1")
t.tcp("refused", b"x", port=4, address="::1")


@t.case("PROXY to the backend")
def _(c):
    c.connect(port=5, address="::1").send(b"hello\n").all_raw()


t.tcp("PROXY from the client", b"PROXY TCP6 2001:db8::1 2001:db8::2 1111 2222\r\nx", port=6, address="::1")
t.tcp("two listeners, IPv4", port=10)
t.tcp("two listeners, IPv6", port=10, address="::1")

# 1.31 leaves a ClientHello in the socket while it looks at it, and counts it; 1.22 does not count it.
p = Suite("ipv6-passthrough", mask=[(rb"(bytes from/to \w+):\d+/\d+", rb"\1:N/N")], stream=r"""
    map $ssl_preread_server_name $route { a.test %%a%%; default %%b%%; }
    access_log off;
    server { listen [::1]:%%PORT_0%%; ssl_preread on; proxy_pass $route; }
""")
p.backend("a", {"*": ok("a")}, tls={"name": "a"}, address="::1")
p.backend("b", {"*": ok("b")}, tls={"name": "b"})
for name in ("a.test", "b.test", "unknown.test", None):
    p.get("SNI %s" % name, "/", host=name or "x", tls=True, sni=name, address="::1")
