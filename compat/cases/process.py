import os
import signal

from harness import CheckSuite, Suite

s = Suite("reload", http=r"""
    server { listen %%PORT_0%%; location / { return 200 "one\n"; } location /gen { access_log off; return 200 1; }
        location /slow { proxy_pass http://%%slow%%; } }
""")
s.backend("slow", {"*": [0.4, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nslow\n"]})
s.backend("unused")


def change(c, old, new):
    path = os.path.join(c.world.prefix.path, "nginx.conf")
    with open(path, encoding="latin-1") as text:
        config = text.read()
    if old not in config:
        raise AssertionError("%r is not in the configuration" % old)
    with open(path, "w", encoding="latin-1") as out:
        out.write(config.replace(old, new))


@s.case("HUP with a new configuration")
def _(c):
    c.send("/")
    change(c, 'return 200 "one\\n"; } location /gen { access_log off; return 200 1; }',
           'return 200 "two\\n"; } location /gen { access_log off; return 200 2; }')
    c.server.signal(signal.SIGHUP)
    c.wait_steadily(lambda: c.quietly("/gen") == b"2")
    c.send("/")


@s.case("a request that runs is finished by the old worker")
def _(c):
    conn = c.connect().send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    c.wait_until(lambda: c.world.backends[0].records)
    change(c, "return 200 2;", "return 200 3;")
    c.server.signal(signal.SIGHUP)
    c.wait_steadily(lambda: c.quietly("/gen") == b"3")
    conn.response()
    conn.all()


@s.case("an idle connection is closed by the reload")
def _(c):
    conn = c.connect().send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    conn.response()
    change(c, "return 200 3;", "return 200 4;")
    c.server.signal(signal.SIGHUP)
    conn.all()
    c.wait_steadily(lambda: c.quietly("/gen") == b"4")


@s.case("a broken configuration changes nothing")
def _(c):
    change(c, "return 200 4;", "return 200 5; nonsense;")
    c.server.signal(signal.SIGHUP)
    error = os.path.join(c.world.prefix.path, "logs", "error.log")
    c.wait_until(lambda: b"nonsense" in open(error, "rb").read())
    c.note("text", c.quietly("/gen").decode())
    change(c, "return 200 5; nonsense;", "return 200 4;")


@s.case("-s reload")
def _(c):
    change(c, "return 200 4;", "return 200 6;")
    c.command("-s", "reload")
    c.wait_steadily(lambda: c.quietly("/gen") == b"6")


@s.case("USR1 opens the logs again")
def _(c):
    logs = os.path.join(c.world.prefix.path, "logs")
    os.rename(os.path.join(logs, "access.log"), os.path.join(logs, "access.log.1"))
    c.server.signal(signal.SIGUSR1)
    c.wait_until(lambda: os.path.exists(os.path.join(logs, "access.log")))
    c.wait_until(lambda: c.quietly("/rotated") and os.path.getsize(os.path.join(logs, "access.log")) > 0)


k = CheckSuite("command-line")
k.args("-v", "-v")
k.args("-t", "-t", "-c", "nginx.conf", "-e", "stderr", conf="pid nginx.pid;\nevents { }\n")
k.args("-t -q", "-t", "-q", "-c", "nginx.conf", "-e", "stderr", conf="pid nginx.pid;\nevents { }\n")
k.args("-T", "-T", "-c", "nginx.conf", "-e", "stderr", conf="pid nginx.pid;\n# a comment\nevents { worker_connections 16; }\n")
k.args("-g adds", "-t", "-c", "nginx.conf", "-e", "stderr", "-g", "nonsense on;", conf="pid nginx.pid;\nevents { }\n")
k.args("-g duplicate", "-t", "-c", "nginx.conf", "-e", "stderr", "-g", "pid x.pid;", conf="pid nginx.pid;\nevents { }\n")
k.args("no such file", "-t", "-c", "nosuch.conf", "-e", "stderr")
k.args("invalid option", "-x")
k.args("not an option", "start")
k.args("-c without a file", "-c")
k.args("-s without a signal", "-s")
k.args("-s with an unknown signal", "-s", "restart")
k.args("-s quit without a process", "-s", "quit", "-c", "nginx.conf", "-e", "stderr", conf="pid nginx.pid;\nevents { }\n")
k.args("-g without directives", "-g")
k.args("-e without a file", "-e")

t = CheckSuite("check")
t.conf("minimal", "events { }\n")
t.conf("minimal http", "events { }\nhttp {\n server { listen 127.0.0.1:18080; }\n}\n")
t.conf("no events", "worker_processes 1;\n")
for name, text in (
    ("unknown directive", "nosuch on;"), ("not allowed here", "location / { }"), ("empty server", "server { }"), ("missing semicolon", "keepalive_timeout 5\n"),
    ("too few arguments", "keepalive_timeout;"), ("too many arguments", "sendfile on off;"), ("bad flag", "sendfile yes;"),
    ("bad size", "client_max_body_size 1x;"), ("bad time", "client_body_timeout soon;"), ("duplicate", "sendfile on;\nsendfile off;"),
    ("unknown variable", "server { return 200 $nosuchvariable; }"), ("invalid variable name", "server { return 200 $; }"),
    ("bad regex", "server { location ~ ( { } }"), ("duplicate location", "server { location /a { } location /a { } }"),
    ("nested location outside", "server { location /a { location /b { } } }"),
    ("named location inside", "server { location /a { location @b { } } }"),
    ("location modifier", "server { location ?? /a { } }"), ("missing brace", "server { location / { }"),
    ("brace too many", "server { } }"), ("quote open", "server { return 200 \"open; }"),
    ("bad quote end", "server { return 200 \"a\"b; }"), ("host not found", "upstream u { server no.such.host.invalid; }"),
    ("no servers in upstream", "upstream u { }"), ("bad upstream parameter", "upstream u { server 127.0.0.1 weight=0; }"),
    ("unknown upstream parameter", "upstream u { server 127.0.0.1 nosuch=1; }"),
    ("duplicate upstream", "upstream u { server 127.0.0.1; } upstream u { server 127.0.0.1; }"),
    ("listen port", "server { listen 99999; }"), ("listen parameter", "server { listen 80 nosuch; }"),
    ("duplicate listen", "server { listen 127.0.0.1:18081; listen 127.0.0.1:18081; }"),
    ("duplicate default server", "server { listen 127.0.0.1:18081 default_server; } server { listen 127.0.0.1:18081 default_server; }"),
    ("conflicting names", "server { listen 127.0.0.1:18081; server_name a; } server { listen 127.0.0.1:18081; server_name a; }"),
    ("bad proxy_pass", "server { location / { proxy_pass 127.0.0.1; } }"),
    ("proxy_pass URI in a regex", "server { location ~ x { proxy_pass http://127.0.0.1/x; } }"),
    ("proxy_pass twice", "server { location / { proxy_pass http://127.0.0.1; proxy_pass http://127.0.0.1; } }"),
    ("ssl without certificate", "server { listen 127.0.0.1:18443 ssl; }"),
    ("certificate missing", "server { listen 127.0.0.1:18443 ssl; ssl_certificate nosuch.crt; ssl_certificate_key nosuch.key; }"),
    ("unknown log format", "access_log logs/a.log nosuch;"), ("duplicate log format", "log_format a x; log_format a y;"),
    ("bad map", "map $a { }"), ("map duplicate", "map $host $a { a 1; a 2; }"), ("map bad regex", "map $host $a { ~( 1; }"),
    ("bad allow", "allow 1.2.3;"), ("low bits", "allow 10.0.0.1/8;"), ("bad error_page", "error_page abc /x;"),
    ("error_page below 300", "error_page 200 /x;"), ("return code", "server { return abc; }"), ("return large code", "server { return 1000; }"),
    ("rewrite without target", "server { rewrite ^/a; }"), ("rewrite bad flag", "server { rewrite ^ /a nosuch; }"),
    ("if condition", "server { if $host { } }"), ("if operator", "server { if ($host ?= a) { } }"),
    ("set without dollar", "server { set a b; }"), ("alias in named", "server { location @a { alias /x; } }"),
    ("root twice", "server { root a; root b; }"), ("alias after root", "server { location / { root a; alias b; } }"),
    ("limit_req zone unknown", "server { limit_req zone=nosuch; }"), ("limit_req without rate", "limit_req_zone $host zone=a;"),
    ("zone too small", "limit_req_zone $host zone=a:1k rate=1r/s;"), ("add_header alone", "add_header X;"),
    ("expires value", "expires soon;"), ("charset of include", "include nosuch.conf;"), ("include of nothing by glob", "include nosuch/*.conf;"),
    ("types", "types { text/html html html; }"), ("server_name regex", "server { server_name ~(; }"),
    ("resolver address", "resolver nosuch.host.invalid;"), ("keepalive before method", "upstream u { keepalive 2; server 127.0.0.1; least_conn; }"),
    ("proxy_cookie_flags", "proxy_cookie_flags a nosuch;"), ("real_ip_header", "set_real_ip_from nosuch.invalid;"),
    ("satisfy", "satisfy both;"), ("try_files one argument", "server { try_files /a; }"), ("gzip_comp_level", "gzip_comp_level 10;"),
):
    t.conf(name, "events { }\nhttp {\n%s\n}\n" % text)
for name, text in (
    ("stream", "server { listen 127.0.0.1:18090; proxy_pass 127.0.0.1:1; }"), ("stream no port in proxy_pass", "server { listen 127.0.0.1:18090; proxy_pass 127.0.0.1; }"),
    ("stream no port in listen", "server { listen 127.0.0.1; proxy_pass 127.0.0.1:1; }"),
    ("stream no listen", "server { proxy_pass 127.0.0.1:1; }"), ("stream http directive", "server { listen 18090; location / { } }"),
    ("stream unknown variable", "server { listen 18090; return $nosuch; }"), ("stream duplicate proxy_pass", "server { listen 18090; proxy_pass 127.0.0.1:1; proxy_pass 127.0.0.1:1; }"),
    ("stream upstream without port", "upstream u { server 127.0.0.1; } server { listen 18090; proxy_pass u; }"),
):
    t.conf(name, "events { }\nstream {\n%s\n}\n" % text)
t.conf("include relative to the configuration", "events { }\ninclude conf.d/*.inc;\n", {"conf.d/a.inc": "nosuch a;\n"})
t.conf("error in an included file", "events { }\nhttp {\ninclude sub.inc;\n}\n", {"sub.inc": "server {\n listen 18099;\n\n bad;\n}\n"})
t.conf("include of itself", "events { }\ninclude self.inc;\n", {"self.inc": "worker_rlimit_core 1k; worker_rlimit_core 1k;\n"})
t.conf("user as argument list", "user nobody nogroup more;\nevents { }\n")
t.conf("worker_processes value", "worker_processes some;\nevents { }\n")
t.conf("events twice", "events { }\nevents { }\n")
t.conf("error_log level", "events { }\nhttp {\nerror_log logs/x.log nosuch;\n}\n")
t.conf("binary in the file", "events { }\nhttp {\n\x00\x01\n}\n")
t.conf("CRLF line ends", "events { }\r\nhttp {\r\n  sendfile on;\r\n}\r\n")
t.conf("comment at the end", "events { }\n# no newline")
t.conf("long word", "events { }\nhttp { add_header X %s; }\n" % ("a" * 5000))
