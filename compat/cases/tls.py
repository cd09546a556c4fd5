import ssl

from harness import Suite, ok
from harness.backends import once

s = Suite("tls", http=r"""
    log_format tls '"$request" $status $ssl_protocol $ssl_server_name "$ssl_client_s_dn" $ssl_client_verify $https $scheme $ssl_session_reused';
    access_log logs/tls.log tls;
    ssl_certificate %%CERTS%%/default.crt;
    ssl_certificate_key %%CERTS%%/default.key;
    server { listen %%PORT_0%% ssl; server_name default.test; location / { return 200 "default $server_name $ssl_server_name\n"; } }
    server { listen %%PORT_0%% ssl; server_name a.test www.a.test; ssl_certificate %%CERTS%%/a.crt; ssl_certificate_key %%CERTS%%/a.key;
        location / { return 200 "a $server_name $ssl_server_name $https $scheme $server_port\n"; }
        location /redirect { return 301 /other; }
        location /proxy { proxy_set_header Host $host; proxy_set_header Connection ""; proxy_set_header X-Forwarded-Proto $scheme; proxy_pass http://%%app%%; }
    }
    server { listen %%PORT_0%% ssl; server_name *.b.test; ssl_certificate %%CERTS%%/b.crt; ssl_certificate_key %%CERTS%%/b.key;
        add_header Strict-Transport-Security "max-age=63072000" always;
        location / { return 200 "b $server_name\n"; } location /404 { return 404; } }
    server { listen %%PORT_1%% ssl; server_name strict; ssl_reject_handshake on; }
    server { listen %%PORT_1%% ssl; server_name a.test; location / { return 200 "only a\n"; } }
    server { listen %%PORT_2%% ssl; ssl_client_certificate %%CERTS%%/ca.crt; ssl_verify_client on;
        location / { return 200 "$ssl_client_verify $ssl_client_s_dn $ssl_client_i_dn $ssl_client_serial\n"; } }
    server { listen %%PORT_3%% ssl; ssl_client_certificate %%CERTS%%/ca.crt; ssl_verify_client optional;
        location / { return 200 "$ssl_client_verify $ssl_client_s_dn\n"; }
        location /cert { return 200 "$ssl_client_escaped_cert $ssl_client_fingerprint $ssl_client_v_end\n"; } }
    server { listen %%PORT_4%% ssl; ssl_protocols TLSv1.2; location / { return 200 "$ssl_protocol\n"; } }
    server { listen %%PORT_5%%; listen %%PORT_6%% ssl; server_name both.test; location / { return 200 "$scheme $https $server_port\n"; } location /r { return 302 /x; } }
    server { listen %%PORT_7%% ssl; error_page 497 https://$host:%%PORT_7%%$request_uri; location / { return 200 ok; } }
    server { listen %%PORT_8%% ssl proxy_protocol; location / { return 200 "$proxy_protocol_addr $ssl_server_name\n"; } }
""")
s.backend("app")
for sni in ("a.test", "www.a.test", "x.b.test", "unknown.test", None):
    s.get("SNI %s" % sni, "/", host=sni or "nothing.test", tls=True, sni=sni)
s.get("SNI and Host differ", "/", host="x.b.test", tls=True, sni="a.test")
s.get("redirect keeps https and port", "/redirect", host="a.test", tls=True, sni="a.test")
s.get("proxied", "/proxy", host="a.test", tls=True, sni="a.test")
s.get("header always", "/404", host="x.b.test", tls=True, sni="x.b.test")
s.get("http/1.1 by ALPN", "/", tls={"alpn": ["http/1.1"]}, sni="a.test")
s.get("ALPN nobody knows", "/", tls={"alpn": ["foo"]}, sni="a.test")
s.get("TLS 1.2 client", "/", tls={"maximum": ssl.TLSVersion.TLSv1_2}, sni="a.test")
s.get("TLS 1.2 server", "/", tls=True, sni="a.test", port=4)
s.get("plain HTTP on the https port", "/", port=0)
s.get("plain HTTP on the https port with error_page 497", "/x?y", port=7)
s.raw_case("garbage on the https port", b"\x80\x00garbage\r\n\r\n", half_close=True)
s.raw_case("nothing on the https port", b"", half_close=True)
s.get("ssl_reject_handshake", "/", tls=True, sni="nosuch.test", port=1)
s.get("ssl_reject_handshake, known name", "/", tls=True, sni="a.test", port=1)
s.get("client certificate", "/", tls={"cert": "client"}, port=2)
s.get("client certificate missing", "/", tls={"maximum": ssl.TLSVersion.TLSv1_2}, port=2)
s.get("client certificate optional, given", "/", tls={"cert": "client"}, port=3)
s.get("client certificate optional, missing", "/", tls=True, port=3)
s.get("client certificate in variables", "/cert", tls={"cert": "client"}, port=3)
s.get("both ports, plain", "/r", host="both.test", port=5)
s.get("both ports, TLS", "/r", host="both.test", tls=True, port=6)
s.get("PROXY protocol before TLS", "/", tls=True, sni="a.test", port=8, prefix=b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")


@s.case("keep-alive over TLS")
def _(c):
    conn = c.connect(tls=True, sni="a.test")
    for _ in range(2):
        conn.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").response()
    conn.send(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").all()


p = Suite("tls-upstream", http=r"""
    proxy_ssl_session_reuse off;
    upstream secure { server %%tls%%; }
    server {
        listen %%PORT_0%%;
        server_name localhost;
        location / { proxy_pass https://%%tls%%; }
        location /name { proxy_pass https://secure; proxy_ssl_server_name on; proxy_ssl_name backend.test; }
        location /verify { proxy_pass https://secure; proxy_ssl_verify on; proxy_ssl_trusted_certificate %%CERTS%%/ca.crt; proxy_ssl_name backend.test; }
        location /verify-name { proxy_pass https://secure; proxy_ssl_verify on; proxy_ssl_trusted_certificate %%CERTS%%/ca.crt; proxy_ssl_name wrong.test; }
        location /mutual { proxy_pass https://%%mutual%%; proxy_ssl_certificate %%CERTS%%/client.crt; proxy_ssl_certificate_key %%CERTS%%/client.key; }
        location /plain { proxy_pass https://%%plain%%; }
        location /reversed { proxy_pass http://%%tls%%; }
    }
""")
p.backend("tls", {"*": ok("secure\n", "Location: /x")}, tls={})
p.backend("mutual", {"*": ok("mutual\n")}, tls={"client_ca": True})
p.backend("plain", kind="raw", script=once(b"HTTP/1.1 400 No TLS\r\n\r\n"))
for uri in ("/", "/name", "/verify", "/verify-name", "/mutual", "/plain"):
    p.get(uri, uri)
p.get("POST", "/", method="POST", body="payload" * 1000)

v = Suite("tls-variables", http=r"""
    log_format tls '"$request" $status $ssl_server_name "$ssl_client_s_dn"';
    access_log logs/tls.log tls;
    map $ssl_server_name $pair { a.test a; ~b\.test$ b; mixed.test b; default nosuch; }
    map $uri $own { ~^/(.+)$ $1; }
    server { listen %%PORT_0%% ssl; ssl_certificate %%CERTS%%/$pair.crt; ssl_certificate_key %%CERTS%%/$pair.key;
        location / { return 200 "$ssl_server_name\n"; } }
    server { listen %%PORT_1%% ssl; server_name one; ssl_certificate %%CERTS%%/$server_port.crt; ssl_certificate_key %%CERTS%%/a.key; }
    server { listen %%PORT_1%% ssl; server_name mixed.test; ssl_certificate %%CERTS%%/a.crt; ssl_certificate_key %%CERTS%%/$pair.key; }
    server { listen %%PORT_2%% ssl proxy_protocol; ssl_certificate %%CERTS%%/$proxy_protocol_port.crt; ssl_certificate_key %%CERTS%%/a.key; }
    server {
        listen %%PORT_3%%;
        proxy_ssl_session_reuse off;
        proxy_ssl_certificate %%CERTS%%/$own.crt;
        proxy_ssl_certificate_key %%CERTS%%/$own.key;
        location / { proxy_pass https://%%mutual%%; }
        location /none { proxy_ssl_certificate $nothing; proxy_pass https://%%tls%%; }
        set $nothing "";
    }
""")
v.backend("tls", {"*": ok("secure\n")}, tls={})
v.backend("mutual", {"*": ok("mutual\n")}, tls={"client_ca": True})
for sni in ("a.test", "x.b.test", "nosuch.test", None):
    v.get("certificate by name, SNI %s" % sni, "/", host=sni or "nothing.test", tls=True, sni=sni)
v.get("certificate by name, TLS 1.2", "/", host="a.test", tls={"maximum": ssl.TLSVersion.TLSv1_2}, sni="a.test")
v.get("no such file", "/", port=1, tls=True, sni="one")
v.get("a key of another certificate", "/", port=1, tls=True, sni="mixed.test")
v.get("by PROXY protocol", "/", port=2, tls=True, sni="a.test", prefix=b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
for uri in ("/client", "/a", "/nosuch", "/none"):
    v.get("to the upstream, %s" % uri, uri, port=3)
