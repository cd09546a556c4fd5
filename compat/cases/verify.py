from harness import Suite
from harness.certs import PATHS

v = Suite("verify", http=r"""
    ssl_certificate %%CERTS%%/default.crt;
    ssl_certificate_key %%CERTS%%/default.key;
    ssl_client_certificate %%CERTS%%/ca.crt;
    ssl_verify_client optional;
    server { listen %%PORT_0%% ssl; ssl_verify_depth 5; location / { return 200 "$ssl_client_verify\n"; } }
    server { listen %%PORT_1%% ssl; ssl_verify_depth 0; location / { return 200 "$ssl_client_verify\n"; } }
    server { listen %%PORT_2%% ssl; ssl_verify_client optional_no_ca; ssl_client_certificate %%CERTS%%/backend.crt;
        location / { return 200 "$ssl_client_verify\n"; } }
""")
for name in PATHS:
    v.get(name, "/", tls={"cert": name}, port=0)
v.get("too deep", "/", tls={"cert": "path-good"}, port=1)
v.get("unknown CA", "/", tls={"cert": "path-good"}, port=2)
v.get("unknown CA, bad names", "/", tls={"cert": "path-bad-dns"}, port=2)
