from harness import Suite

# The server under test is its own responder: whatever is asked, it says what stands in a file.
RESPONDER = """
    server { listen %%PORT_0%%; access_log off; root %%CERTS%%; types { } default_type application/ocsp-response;
        location /good/ { rewrite ^ /good.ocsp break; }
        location /revoked/ { rewrite ^ /revoked.ocsp break; }
        location /unknown/ { rewrite ^ /unknown.ocsp break; }
        location /other/ { rewrite ^ /other.ocsp break; }
        location /unentitled/ { rewrite ^ /unentitled.ocsp break; }
        location /later/ { rewrite ^ /later.ocsp break; }
        location /typed/ { default_type text/html; rewrite ^ /good.ocsp break; }
        location /missing/ { return 404 ""; }
    }
"""
SAYS = ("good", "revoked", "unknown", "other", "unentitled", "later", "typed", "missing")
#: what is said of a responder, by port from 9 on
OTHERS = {
    "no URL": "",
    "refused": "ssl_ocsp_responder http://%%closed%%/;",
    "closed at once": "ssl_ocsp_responder http://%%silent%%/;",
    "no HTTP": "ssl_ocsp_responder http://%%babbling%%/;",
    "off": "ssl_ocsp off;",
    "leaf": "ssl_ocsp leaf; ssl_ocsp_cache shared:statuses:64k; ssl_ocsp_responder http://%%silent%%/a/b;",
}
RESPONDERS = {name: "ssl_ocsp_responder http://127.0.0.1:%%%%PORT_0%%%%/%s;" % name for name in SAYS}
RESPONDERS.update(OTHERS)

s = Suite("ocsp", http=r"""
    log_format v "$status $ssl_client_verify";
    access_log logs/v.log v;
    ssl_certificate %%CERTS%%/default.crt;
    ssl_certificate_key %%CERTS%%/default.key;
    ssl_client_certificate %%CERTS%%/ca.crt;
    ssl_verify_client optional;
    ssl_ocsp on;
""" + RESPONDER + "".join(
    'server { listen %%%%PORT_%d%%%% ssl; %s location / { return 200 "$ssl_client_verify\\n"; } }\n' % (number, line)
    for number, line in enumerate(RESPONDERS.values(), 1)))
s.backend("closed", kind="refused")
s.backend("silent", kind="raw", script=lambda conn, record: record(conn.recv(4096)))
s.backend("babbling", kind="raw", script=lambda conn, record: (record(conn.recv(4096)), conn.sendall(b"hello\n")))
for number, name in enumerate(RESPONDERS, 1):
    s.get(name, "/", tls={"cert": "client"}, port=number)
s.get("no certificate", "/", tls=True, port=2)
