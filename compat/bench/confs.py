"""Configurations: what nginx and nxr read (the same text), what HAProxy reads for the same work, and the backend's.

Each `nginx_*` takes a `Place` and returns (inside of http {}, inside of stream {}); each `haproxy_*` returns the
sections after `defaults`.
"""

import os
import subprocess
from dataclasses import dataclass

from procs import BenchError

KIB_TEXT = "x" * 1023 + "\\n"
IDLE = "600s"
MANY = 100_000_000


@dataclass
class Place:
    """Ports and files one server's configuration names."""

    front: int  # where the load goes
    own: int  # a second listener of the same server
    plain: int  # backend: HTTP
    tls: int  # backend: HTTPS
    sink: int  # backend: takes uploads
    certs: str  # folder with {ec,rsa,rsa4096}.{crt,key,pem}


def make_certificates(folder):
    os.makedirs(folder, exist_ok=True)
    kinds = {
        "ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        "rsa": ["-newkey", "rsa:2048"],
        "rsa4096": ["-newkey", "rsa:4096"],
    }
    for name, key in kinds.items():
        path = os.path.join(folder, name)
        done = subprocess.run(
            ["openssl", "req", "-x509", *key, "-nodes", "-keyout", path + ".key", "-out", path + ".crt", "-days", "3650",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            capture_output=True, text=True)
        if done.returncode:
            raise BenchError("openssl made no certificate: " + done.stderr.strip()[-200:])
        with open(path + ".pem", "w") as both:  # HAProxy reads certificate and key from one file
            for part in (".crt", ".key"):
                with open(path + part) as file:
                    both.write(file.read())


# === frames ===


def build_lines(build, as_root):
    """Lines a particular nginx build needs (`build`: what -V printed); none change what is measured."""
    main, http = [], []
    if "--with-stream=dynamic" in build:
        modules = next((w[15:] for w in build.split() if w.startswith("--modules-path=")), "/usr/lib/nginx/modules")
        main.append(f"load_module {modules}/ngx_stream_module.so;")
    if as_root:
        main.append("user nobody nogroup;")
    else:
        for kind in ("fastcgi", "uwsgi", "scgi"):  # compiled-in folders only root may use
            if f"--http-{kind}-temp-path=" in build:
                http.append(f"{kind}_temp_path temp/{kind};")
    return main, http


def nginx_frame(extra, http="", stream="", workers=1):
    main, in_http = extra
    text = "\n".join([*main, f"worker_processes {workers};", "daemon off;", "pid server.pid;",
                      "events { worker_connections 8192; }"])
    if http:
        text += f"""
http {{
    access_log off;
    client_body_temp_path temp/body;
    proxy_temp_path temp/proxy;
    {" ".join(in_http)}
    keepalive_requests {MANY};
    keepalive_timeout {IDLE};
    client_max_body_size 0;
{http}
}}"""
    if stream:
        text += f"\nstream {{\n{stream}\n}}"
    return text + "\n"


def haproxy_frame(sections, as_root, workers=1):
    who = "user nobody\n    group nogroup" if as_root else ""
    return f"""global
    nbthread {workers}
    maxconn 4096
    {who}
defaults
    mode http
    http-reuse always
    maxconn 4000
    timeout connect 5s
    timeout client {IDLE}
    timeout server {IDLE}
    timeout http-keep-alive {IDLE}
{sections}
"""


def backend(p, root):
    """The backend: 1 KiB at every path, files under /file/; the same over TLS."""
    answers = f'location / {{ return 200 "{KIB_TEXT}"; }} location /file/ {{ root {root}; }}'
    return f"""
    sendfile on; tcp_nopush on; default_type text/plain;
    server {{ listen 127.0.0.1:{p.plain}; {answers} }}
    server {{ listen 127.0.0.1:{p.tls} ssl; {certificate(p, "ec")} {answers} }}
"""


# === nginx and nxr ===

HEADERS = """
            proxy_http_version 1.1;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade_keepalive;"""
MAP = "    map $http_upgrade $connection_upgrade_keepalive { default upgrade; '' ''; }\n"


def certificate(p, kind):
    return f"ssl_certificate {p.certs}/{kind}.crt; ssl_certificate_key {p.certs}/{kind}.key; ssl_protocols TLSv1.3;"


def proxying(p, listen, upstream_port, scheme="http", more=""):
    return f"""{MAP}
    upstream app {{ server 127.0.0.1:{upstream_port}; keepalive 256; keepalive_requests {MANY}; keepalive_timeout {IDLE}; }}
    server {{
        listen 127.0.0.1:{p.front}{listen};
        {certificate(p, "ec") if "ssl" in listen else ""}
        location / {{
            proxy_pass {scheme}://app;{HEADERS}{more}
        }}
    }}"""


def nginx_http(p):
    return proxying(p, "", p.plain), ""


def nginx_https(p):
    return proxying(p, " ssl", p.plain), ""


def nginx_https_https(p):
    # Debian's nginx leaves TLS 1.3 to an upstream out of its defaults; nginx has it since 1.23.4.
    return proxying(p, " ssl", p.tls, "https", "\n            proxy_ssl_protocols TLSv1.3;"), ""


def nginx_h2(p):
    return proxying(p, " ssl http2", p.plain), ""


def nginx_upload(p):
    return proxying(p, "", p.sink), ""


def nginx_upload_unbuffered(p):
    return proxying(p, "", p.sink, more="\n            proxy_request_buffering off;"), ""


def nginx_gzip(p):
    """A page to compress, of the same folder as the backend's files."""
    root = os.path.join(os.path.dirname(p.certs), "root")
    return f"""    gzip on; gzip_comp_level 9; gzip_types *;
    server {{ listen 127.0.0.1:{p.front}; location / {{ root {root}; try_files /file/page =404; }} }}""", ""


def nginx_301(p):
    return f"    server {{ listen 127.0.0.1:{p.front}; return 301 https://$host$request_uri; }}", ""


def tls_answer(p, port, kind):
    """A TLS listener that answers at once and keeps no sessions, so that each handshake is a full one."""
    return f"""    server {{ listen 127.0.0.1:{port} ssl; {certificate(p, kind)}
        ssl_session_tickets off; ssl_session_cache none;
        location / {{ return 200 "ok\\n"; }} }}"""


def nginx_handshake(kind):
    return lambda p: (tls_answer(p, p.front, kind), "")


def nginx_stream(port):
    return lambda p: ("", f"    server {{ listen 127.0.0.1:{p.front}; proxy_pass 127.0.0.1:{getattr(p, port)}; }}")


def preread(p, target):
    """The name decides: localhost (what the load asks for) to `target`, any other name elsewhere."""
    return f"""    map $ssl_preread_server_name $name {{ localhost wanted; pbx.example.com other; default other; }}
    upstream wanted {{ server 127.0.0.1:{target}; }}
    upstream other {{ server 127.0.0.1:{p.plain}; }}
    server {{ listen 127.0.0.1:{p.front}; proxy_pass $name; ssl_preread on; }}"""


def nginx_passthrough(p):
    return "", preread(p, p.tls)


def nginx_preread_own(p):
    return tls_answer(p, p.own, "ec"), preread(p, p.own)


def nginx_home_server(p):
    """A home server's file: names passed through to a telephone system, the rest to its own TLS listener."""
    http = f"""
    server {{
        listen 127.0.0.1:{p.own} ssl http2;
        server_name cloud.example.com;
        ssl_certificate {p.certs}/ec.crt;
        ssl_certificate_key {p.certs}/ec.key;
        location / {{ proxy_pass http://127.0.0.1:{p.plain}/; }}
    }}
    server {{
        listen 127.0.0.1:{p.sink};
        server_name pbx.example.com;
        location /.well-known/ {{ proxy_pass http://127.0.0.1:{p.plain}/.well-known/; }}
    }}"""
    stream = f"""
    map $ssl_preread_server_name $name {{ pbx.example.com pbx; default own; }}
    upstream pbx {{ server 127.0.0.1:{p.tls}; }}
    upstream own {{ server 127.0.0.1:{p.own}; }}
    server {{ listen 127.0.0.1:{p.front}; proxy_pass $name; ssl_preread on; }}"""
    return http, stream


def nginx_everyday(p, root):
    """What benchmarks leave out and servers have: logs, files, rewrites, compression, fields of their own."""
    return f"""{MAP}
    types {{ text/html html; text/css css; }}
    gzip on; gzip_types text/plain text/css; gzip_min_length 256; gzip_vary on;
    upstream app {{ server 127.0.0.1:{p.plain}; keepalive 256; keepalive_timeout {IDLE}; }}
    server {{
        listen 127.0.0.1:{p.front};
        server_name cloud.example.com localhost;
        access_log logs/access.log combined;
        root {root};
        rewrite ^/old/(.*)$ /$1;
        location / {{ proxy_pass http://app;{HEADERS}
            proxy_set_header X-Real-IP $remote_addr;
            add_header Strict-Transport-Security "max-age=31536000" always; }}
        location ~ \\.(html|css)$ {{ expires 1h; error_page 404 = @none; }}
        location @none {{ return 200 "none\\n"; }}
    }}""", ""


def nginx_5000(p):
    """5,000 servers, two locations each, one of them a regex."""
    servers = [f"""    server {{
        listen 127.0.0.1:{p.front};
        server_name site{n}.example.com;
        location / {{ proxy_pass http://127.0.0.1:{p.plain}; proxy_set_header Host $host; }}
        location ~ ^/api/v{n}/[a-z]+\\.json$ {{ proxy_pass http://127.0.0.1:{p.plain}; }}
    }}""" for n in range(5000)]
    return "    server_names_hash_max_size 65536; server_names_hash_bucket_size 128;\n" + "\n".join(servers), ""


# === HAProxy ===

# For bulk its best setting, not its default: asked for outright, it splices (`splice-auto` hardly ever does here).
SPLICE = "option splice-request\n    option splice-response"


def _http_frontend(p, bind, server, more=""):
    return f"""frontend front
    bind 127.0.0.1:{p.front}{bind}
    option forwardfor
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    {more}
    default_backend app
backend app
    {more}
    server app 127.0.0.1:{server}
"""


def _bind_tls(p, kind="ec", more=""):
    return f" ssl crt {p.certs}/{kind}.pem ssl-min-ver TLSv1.3{more}"


def haproxy_http(p):
    return _http_frontend(p, "", p.plain)


def haproxy_http_bulk(p):
    return _http_frontend(p, "", p.plain, SPLICE)


def haproxy_https(p):
    return _http_frontend(p, _bind_tls(p, more=" alpn http/1.1"), p.plain)


def haproxy_https_https(p):
    return _http_frontend(p, _bind_tls(p, more=" alpn http/1.1"), f"{p.tls} ssl verify none")


def haproxy_h2(p):
    return _http_frontend(p, _bind_tls(p, more=" alpn h2,http/1.1"), p.plain)


def haproxy_upload(p):
    return _http_frontend(p, "", p.sink, SPLICE)


def haproxy_301(p):
    return f"frontend front\n    bind 127.0.0.1:{p.front}\n    http-request redirect scheme https code 301\n"


def _tls_answer(p, port, kind):
    return f"""frontend answer
    bind 127.0.0.1:{port}{_bind_tls(p, kind, " no-tls-tickets")}
    http-request return status 200 content-type text/plain string "ok\\n"
"""


NO_SESSIONS = "global\n    tune.ssl.cachesize 0\n"  # a second global section adds to the first


def haproxy_handshake(kind):
    return lambda p: NO_SESSIONS + _tls_answer(p, p.front, kind)


def haproxy_stream(port, more=""):
    return lambda p: f"""frontend front
    mode tcp
    {more}
    bind 127.0.0.1:{p.front}
    default_backend app
backend app
    mode tcp
    {more}
    server app 127.0.0.1:{getattr(p, port)}
"""


def _preread(p, target, more=""):
    return f"""frontend front
    mode tcp
    {more}
    bind 127.0.0.1:{p.front}
    tcp-request inspect-delay 5s
    tcp-request content accept if {{ req.ssl_hello_type 1 }}
    use_backend wanted if {{ req.ssl_sni -i localhost }}
    default_backend other
backend wanted
    mode tcp
    {more}
    server wanted 127.0.0.1:{target}
backend other
    mode tcp
    server other 127.0.0.1:{p.plain}
"""


def haproxy_passthrough(p):
    return _preread(p, p.tls)


def haproxy_passthrough_bulk(p):
    return _preread(p, p.tls, SPLICE)


def haproxy_preread_own(p):
    return NO_SESSIONS + _tls_answer(p, p.own, "ec") + _preread(p, p.own)


def haproxy_home_server(p):
    return f"""frontend names
    mode tcp
    bind 127.0.0.1:{p.front}
    tcp-request inspect-delay 5s
    tcp-request content accept if {{ req.ssl_hello_type 1 }}
    use_backend pbx if {{ req.ssl_sni -i pbx.example.com }}
    default_backend own
backend pbx
    mode tcp
    server pbx 127.0.0.1:{p.tls}
backend own
    mode tcp
    server own 127.0.0.1:{p.own}
frontend cloud
    bind 127.0.0.1:{p.own} ssl crt {p.certs}/ec.pem alpn h2,http/1.1
    default_backend app
frontend plain
    bind 127.0.0.1:{p.sink}
    acl known path_beg /.well-known/
    http-request return status 404 unless known
    default_backend app
backend app
    server app 127.0.0.1:{p.plain}
"""
