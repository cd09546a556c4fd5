import ssl

from harness import Suite
from harness.backends import collect, once
from harness.client import client_hello, in_bytes, in_records

LOG = r"""log_format basic '$remote_addr $protocol $status $bytes_sent $bytes_received "$upstream_addr" $upstream_bytes_sent $upstream_bytes_received';
    access_log logs/stream.log basic;"""

s = Suite("stream", stream=LOG + r"""
    upstream group { server %%one%%; server %%two%%; }
    upstream half-dead { server %%dead%% max_fails=0; server %%echo%% max_fails=0; }
    upstream standby { server %%dead%% max_fails=0; server %%echo%% backup; }
    map $remote_addr $route { 127.0.0.2 two; default one; }
    map $server_port $by_port { default nothing; }
    server { listen %%PORT_0%%; proxy_pass %%echo%%; }
    server { listen %%PORT_1%%; proxy_pass %%tell%%; }
    server { listen %%PORT_2%%; proxy_pass %%dead%%; }
    server { listen %%PORT_3%%; proxy_pass half-dead; }
    server { listen %%PORT_4%%; return "$remote_addr $server_addr $protocol $server_port\n"; }
    server { listen %%PORT_5%%; deny 127.0.0.2; allow all; proxy_pass %%echo%%; }
    server { listen %%PORT_6%%; set $answer "set:$remote_addr"; return $answer; }
    server { listen %%PORT_7%%; proxy_protocol on; proxy_pass %%tell2%%; }
    server { listen %%PORT_8%% proxy_protocol; set_real_ip_from 127.0.0.0/8; return "$remote_addr $proxy_protocol_addr $proxy_protocol_port $realip_remote_addr"; }
    server { listen %%PORT_9%%; proxy_timeout 300ms; proxy_pass %%silent%%; }
    server { listen %%PORT_10%%; proxy_pass standby; }
    server { listen %%PORT_11%%; proxy_next_upstream off; proxy_pass half-dead; }
    server { listen %%PORT_12%%; proxy_pass group; }
    server { listen %%PORT_13%%; set $target %%echo%%; proxy_pass $target; }
    server { listen %%PORT_14%%; set $target nosuch; proxy_pass $target; }
    server { listen %%PORT_15%%; access_log logs/off.log basic if=$empty; set $empty ""; return quiet; }
    server { listen %%PORT_16%%; access_log off; return "nothing is logged"; }
    server { listen %%PORT_17%%; proxy_pass %%greeter%%; }
    server { listen %%PORT_18%%; proxy_upload_rate 1m; proxy_download_rate 10m; proxy_buffer_size 4k; proxy_pass %%echo%%; }
    server { listen %%PORT_19%% proxy_protocol; proxy_pass %%echo%%; }
    server { listen %%PORT_20%%; limit_conn per 1; proxy_pass %%echo%%; }
    server { listen %%PORT_21%%; proxy_half_close on; proxy_pass %%at_end%%; }
    limit_conn_zone $binary_remote_addr zone=per:1m;
""")
s.backend("echo", kind="echo")
s.backend("tell", kind="raw", script=once(b"told you\n", mark=b"\n"))
s.backend("dead", kind="refused")
s.backend("one", kind="raw", script=once(b"one\n"))
s.backend("two", kind="raw", script=once(b"two\n"))
s.backend("silent", kind="raw", script=collect())
s.backend("at_end", kind="raw", script=collect(b"told you\n"))
s.backend("greeter", kind="raw", script=collect(b"220 ready\r\n", first=True))


def echo(name, port, data, **options):
    @s.case(name)
    def _(c):
        conn = c.connect(port=port, **options)
        conn.send(data).exactly(len(data))
        conn.close()


def told(name, port, data=b"hello\n", **options):
    @s.case(name)
    def _(c):
        c.connect(port=port, **options).send(data).all_raw()


echo("echo", 0, b"hello")
echo("binary", 0, bytes(range(256)))
echo("100000 bytes", 0, b"0123456789" * 10000)
echo("upload and download rates", 18, b"0123456789" * 1000)
echo("next server when one is refused", 3, b"again")
echo("backup", 10, b"standby")
echo("variable", 13, b"by variable")
echo("allowed", 5, b"let me in")
echo("limit_conn, one", 20, b"one")
told("the backend closes", 1)
told("refused", 2, b"")
told("return", 4, b"")
told("deny", 5, b"", source="127.0.0.2")
told("set", 6, b"")
s.backend("tell2", kind="raw", script=once(b"told you\n", mark=b"data\n"))
told("proxy_protocol to the backend", 7, b"data\n")
told("proxy_protocol from the client", 8, b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 2222\r\n")
told("proxy_protocol v2 from the client", 8, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 2, 4, 87, 8, 174]))
told("proxy_protocol broken", 8, b"hello there\r\n")
told("proxy_timeout", 9, b"anyone?")
told("no such upstream", 14, b"")
told("access_log if", 15, b"")
told("access_log off", 16, b"")
echo("proxy_protocol, client closes at once", 19, b"")


@s.case("proxy_protocol stripped, data behind it")
def _(c):
    conn = c.connect(port=19)
    conn.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 2222\r\nrest").exactly(4)
    conn.close()


@s.case("round robin")
def _(c):
    for _ in range(4):
        c.connect(port=12).send(b"x").all_raw()


@s.case("next_upstream off")
def _(c):
    for _ in range(2):
        c.connect(port=11).half_close().all_raw()


@s.case("the backend speaks first")
def _(c):
    conn = c.connect(port=17).until(b"\r\n")
    conn.send(b"QUIT\r\n").half_close().all_raw()


@s.case("half-close by the client")
def _(c):
    c.connect(port=9).send(b"last words\n").half_close().all_raw()


@s.case("proxy_half_close")
def _(c):
    c.connect(port=21).send(b"last words\n").half_close().all_raw()


@s.case("limit_conn, the second")
def _(c):
    first = c.connect(port=20)
    first.send(b"a").exactly(1)
    c.connect(port=20).all_raw()
    first.close()


s.weight = 100

# An ECDSA signature is 70 to 72 bytes long, so that TLS that is only passed on has no fixed length.
LENGTHS = [(rb"(bytes from/to \w+):\d+/\d+", rb"\1:N/N")]

v = Suite("preread", mask=LENGTHS, stream=r"""
    log_format pre '$ssl_preread_server_name|$ssl_preread_alpn_protocols|$ssl_preread_protocol|$status|$upstream_addr';
    access_log logs/pre.log pre;
    map $ssl_preread_server_name $by_name { hostnames; a.test up-a; *.b.test up-b; default up-default; }
    map $ssl_preread_alpn_protocols $by_alpn { ~\bh2\b up-a; "acme-tls/1" up-b; default up-default; }
    map $ssl_preread_protocol $by_protocol { "" up-plain; default up-a; }
    upstream up-a { server %%tls_a%%; }
    upstream up-b { server %%tls_b%%; }
    upstream up-default { server %%tls_default%%; }
    upstream up-plain { server %%plain%%; }
    server { listen %%PORT_0%%; ssl_preread on; proxy_pass $by_name; }
    server { listen %%PORT_1%%; ssl_preread on; proxy_pass $by_alpn; }
    server { listen %%PORT_2%%; ssl_preread on; proxy_pass $by_protocol; }
    server { listen %%PORT_3%%; ssl_preread on; preread_timeout 300ms; proxy_pass $by_name; }
    server { listen %%PORT_4%%; ssl_preread on; preread_buffer_size 64; proxy_pass $by_name; }
    server { listen %%PORT_5%%; ssl_preread on; return "$ssl_preread_server_name $ssl_preread_alpn_protocols $ssl_preread_protocol\n"; }
""")
v.backend("tls_a", kind="echo", tls={"name": "a", "alpn": ("h2", "http/1.1")})
v.backend("tls_b", kind="echo", tls={"name": "b"})
v.backend("tls_default", kind="echo", tls={"name": "default"})
v.backend("plain", kind="echo")


def secure(name, port=0, sni="a.test", alpn=(), **options):
    @v.case(name)
    def _(c):
        conn = c.connect(port=port, tls={"alpn": list(alpn)}, sni=sni, **options)
        conn.send(b"ping").exactly(4)
        conn.close()


secure("a.test")
secure("wildcard", sni="x.b.test")
secure("upper case", sni="A.TEST")
secure("default", sni="other.test")
secure("no name", sni=None)
secure("ALPN h2", 1, alpn=("h2", "http/1.1"))
secure("ALPN acme", 1, alpn=("acme-tls/1",))
secure("ALPN none", 1)
secure("by protocol", 2)
secure("ClientHello over three records", first_flight=in_records(3))
secure("ClientHello over ten records", sni="x.b.test", first_flight=in_records(10))
secure("ClientHello in single bytes", first_flight=in_bytes(1))
secure("ClientHello in pieces of seven", sni="x.b.test", first_flight=in_bytes(7))
secure("ClientHello larger than the buffer", 4)


@v.case("plain text goes its own way")
def _(c):
    conn = c.connect(port=2)
    conn.send(b"SSH-2.0-test\r\n").exactly(14)
    conn.close()


@v.case("plain text to the default")
def _(c):
    c.connect().send(b"GET / HTTP/1.1\r\n\r\n").all_raw()


@v.case("variables")
def _(c):
    hello = client_hello(c.certs.client_context(alpn=["h2", "x"]), "name.test")
    c.connect(port=5).send(hello).all_raw()


@v.case("TLS 1.2 ClientHello")
def _(c):
    hello = client_hello(c.certs.client_context(maximum=ssl.TLSVersion.TLSv1_2), "name.test")
    c.connect(port=5).send(hello).all_raw()


@v.case("client closes before its ClientHello ends")
def _(c):
    hello = client_hello(c.certs.client_context(), "name.test")
    c.connect().send(hello[:50]).half_close().all_raw()


@v.case("preread_timeout")
def _(c):
    c.connect(port=3).send(b"\x16\x03\x01").all_raw()


t = Suite("stream-tls", mask=LENGTHS, stream=r"""
    log_format t '$ssl_protocol $ssl_server_name $status "$ssl_client_s_dn" $ssl_client_verify';
    access_log logs/t.log t;
    ssl_protocols TLSv1.2 TLSv1.3;
    proxy_ssl_session_reuse off;
    ssl_certificate %%CERTS%%/default.crt;
    ssl_certificate_key %%CERTS%%/default.key;
    server { listen %%PORT_0%% ssl; proxy_pass %%echo%%; }
    server { listen %%PORT_1%%; proxy_ssl on; proxy_pass %%tls_a%%; }
    server { listen %%PORT_2%% ssl; proxy_ssl on; proxy_ssl_server_name on; proxy_ssl_name a.test; proxy_ssl_verify on; proxy_ssl_trusted_certificate %%CERTS%%/ca.crt; proxy_pass %%tls_a%%; }
    server { listen %%PORT_3%%; proxy_ssl on; proxy_ssl_name wrong.test; proxy_ssl_verify on; proxy_ssl_trusted_certificate %%CERTS%%/ca.crt; proxy_pass %%tls_a%%; }
    server { listen %%PORT_4%% ssl; ssl_verify_client on; ssl_client_certificate %%CERTS%%/ca.crt; return "$ssl_client_verify $ssl_client_s_dn\n"; }
    server { listen %%PORT_5%% ssl; return "$ssl_server_name $ssl_protocol $ssl_preread_server_name\n"; }
    server { listen %%PORT_6%%; proxy_ssl on; proxy_protocol on; proxy_pass %%tls_raw%%; }
""")
t.backend("echo", kind="echo")
t.backend("tls_a", kind="echo", tls={"name": "a"})
t.backend("tls_raw", kind="raw", script=once(b"plain, not TLS", mark=b"\x16\x03"))


def terminated(name, port, data=b"through", **options):
    @t.case(name)
    def _(c):
        conn = c.connect(port=port, **options)
        conn.send(data).exactly(len(data))
        conn.close()


terminated("TLS from the client", 0, tls=True, sni="a.test")
terminated("TLS to the backend", 1)
terminated("TLS on both sides", 2, tls=True)
terminated("70000 bytes through TLS on both sides", 2, b"0123456789" * 7000, tls=True)
t.tcp("client certificate", port=4, tls={"cert": "client"})
t.tcp("variables", port=5, tls=True, sni="name.test")


@t.case("the backend's certificate has another name")
def _(c):
    c.connect(port=3).send(b"x").all_raw()


@t.case("the backend does not speak TLS")
def _(c):
    c.connect(port=6).send(b"x").all_raw()


@t.case("plain bytes to a TLS port")
def _(c):
    c.connect(port=0).send(b"GET / HTTP/1.1\r\n\r\n").all_raw()


v = Suite("stream-tls-variables", mask=LENGTHS, stream=r"""
    log_format t '$ssl_server_name $status "$ssl_client_s_dn" $ssl_client_verify';
    access_log logs/t.log t;
    proxy_ssl_session_reuse off;
    map $ssl_server_name $pair { a.test a; ~b\.test$ b; default nosuch; }
    map $server_port $own { %%PORT_2%% client; %%PORT_3%% nosuch; }
    server { listen %%PORT_0%% ssl; ssl_certificate %%CERTS%%/$pair.crt; ssl_certificate_key %%CERTS%%/$pair.key; return "$ssl_server_name\n"; }
    server { listen %%PORT_1%% ssl; ssl_certificate %%CERTS%%/a.crt; ssl_certificate_key %%CERTS%%/$pair.key; return "$ssl_server_name\n"; }
    server { listen %%PORT_2%%; listen %%PORT_3%%; proxy_ssl on; proxy_ssl_certificate %%CERTS%%/$own.crt; proxy_ssl_certificate_key %%CERTS%%/$own.key; proxy_pass %%mutual%%; }
""")
v.backend("mutual", kind="echo", tls={"client_ca": True})
for sni in ("a.test", "x.b.test", "nosuch.test", None):
    v.tcp("certificate by name, SNI %s" % sni, tls=True, sni=sni)
v.tcp("a key of another certificate", port=1, tls=True, sni="x.b.test")


@v.case("a certificate for the upstream")
def _(c):
    conn = c.connect(port=2)
    conn.send(b"through").exactly(7)
    conn.close()


@v.case("no certificate for the upstream")
def _(c):
    c.connect(port=3).send(b"x").all_raw()
