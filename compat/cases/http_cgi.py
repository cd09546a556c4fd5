"""FastCGI, SCGI and uwsgi: what servers are told, and what clients get."""

from harness import CLOSE, Suite
from harness.cgi import STDERR, STDOUT, END_REQUEST, end, fastcgi, record, scgi, stdout, uwsgi

TEXT = b"Content-Type: text/plain\r\n\r\n"

REPLIES = {
    "/status": stdout(b"Status: 404 Not There\r\nX-A: b\r\n\r\nnothing") + end(),
    "/no-content": stdout(b"Status: 204 No Content\r\n\r\n") + end(),
    "/location": stdout(b"Location: http://elsewhere/x\r\n\r\n") + end(),
    "/location-path": stdout(b"Location: /path\r\nStatus: 301 Moved\r\n\r\n") + end(),
    "/bad-status": stdout(b"Status: what\r\n\r\n") + end(),
    "/bad-field": stdout(b"Good: a\r\nBad\x01field: b\r\n\r\n") + end(),
    "/twice": stdout(b"Date: today\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nx") + end(),
    "/small-records": stdout(b"X-Long: " + b"v" * 50 + b"\r\n" + TEXT + b"0123456789" * 20, 7, 1) + end(),
    "/long": stdout(b"Content-Length: 300000\r\n" + TEXT + b"0123456789" * 30000) + end(),
    "/length": stdout(b"Content-Length: 5\r\n\r\n12345") + end(),
    "/too-long": stdout(b"Content-Length: 5\r\n\r\n1234567") + end(),
    "/accel": stdout(b"X-Accel-Redirect: /inside?a=b\r\nSet-Cookie: c=d\r\nX-Gone: e\r\n\r\nunseen") + end(),
    "/hidden": stdout(b"X-Hide: a\r\nX-Keep: b\r\nX-Accel-Expires: 5\r\nServer: own\r\nDate: now\r\n\r\nx") + end(),
    "/stderr": record(STDERR, b"PHP message: oops. \n") + stdout(TEXT + b"fine") + record(STDERR, b"later\n") + end(),
    "/caught": record(STDERR, b"PHP Fatal error: x\n") + stdout(TEXT + b"unseen") + end(),
    "/much-stderr": record(STDERR, b"m" * 9000) + stdout(TEXT + b"fine") + end(),
    "/empty": [CLOSE],
    "/empty-stdout": end(),
    "/only-end": record(END_REQUEST, bytes(8)),
    "/version": [bytes([2, STDOUT, 0, 1, 0, 0, 0, 0]), CLOSE],
    "/type": [record(9), CLOSE],
    "/id": [bytes([1, STDOUT, 0, 2, 0, 0, 0, 0]), CLOSE],
    "/half-head": [record(STDOUT, b"Content-Type: text/plain\r\n"), CLOSE],
    "/no-end": [stdout(TEXT + b"body"), CLOSE],
    "/big-head": stdout(b"X-Big: " + b"h" * 9000 + b"\r\n\r\nx") + end(),
    "/echo": lambda params, body: stdout(b"Content-Length: %d\r\n%s%s" % (len(body), TEXT, body)) + end(),
}

s = Suite("fastcgi", http=r"""
    upstream kept { server %%app%%; keepalive 2; }
    upstream next { server %%dead%% max_fails=0; server %%app%% max_fails=0; }
    fastcgi_param URI $request_uri;
    server {
        listen %%PORT_0%%;
        server_name localhost;
        location / { fastcgi_pass %%app%%; }
        location /inside { return 200 "inside $args\n"; }
        location /params/ {
            fastcgi_index index.php;
            fastcgi_split_path_info ^(.+\.php)(/.*)$;
            fastcgi_param SCRIPT_NAME $fastcgi_script_name;
            fastcgi_param PATH_INFO $fastcgi_path_info;
            fastcgi_param EMPTY "";
            fastcgi_param ABSENT $arg_absent if_not_empty;
            fastcgi_param HTTP_X_OWN mine;
            fastcgi_param HTTP_X_GONE "";
            fastcgi_param CONTENT_LENGTH $content_length;
            fastcgi_param LONG %%LONG%%;
            fastcgi_pass %%app%%;
        }
        location /no-fields { fastcgi_param HTTP_HOST $host; fastcgi_param URI $request_uri; fastcgi_pass_request_headers off; fastcgi_pass %%app%%; }
        location /no-body { fastcgi_pass_request_body off; fastcgi_pass %%app%%; }
        location /hidden { fastcgi_hide_header X-Hide; fastcgi_pass_header X-Accel-Expires; fastcgi_pass %%app%%; }
        location /caught { fastcgi_catch_stderr "PHP Fatal"; fastcgi_pass %%app%%; }
        location /kept { fastcgi_keep_conn on; fastcgi_pass kept; }
        location /not-kept { fastcgi_pass kept; }
        location /next { fastcgi_pass next; }
        location /next-off { fastcgi_next_upstream off; fastcgi_pass next; }
        location /variable { set $to %%app%%; fastcgi_pass $to; }
        location /variable-bad { set $to ""; fastcgi_pass $to; }
        location /unbuffered { rewrite ^/unbuffered(.*)$ $1 break; fastcgi_buffering off; fastcgi_pass %%app%%; }
        location /intercepted {
            error_page 404 /missing; fastcgi_intercept_errors on; fastcgi_param URI /status; fastcgi_pass %%app%%;
        }
        location /missing { return 200 "missing\n"; }
        location /streamed { fastcgi_request_buffering off; fastcgi_param URI /echo; fastcgi_pass %%app%%; }
        location /if { if ($arg_x) { set $y 1; } fastcgi_pass %%app%%; location /if/in { fastcgi_param A b; } }
    }
""".replace("%%LONG%%", "l" * 300))
s.backend("app", kind="raw", script=fastcgi(REPLIES))
s.backend("dead", kind="refused")

for uri in REPLIES:
    s.get(uri[1:], uri, *(["X-Field: v", "cookie: c=d"] if uri == "/echo" else []))
s.get("script", "/params/x.php/more/path?q=r", "X-Own: theirs", "x-gone: a", "X-Under-Score: b")
s.get("index", "/params/", "User-Agent: me")
s.get("empty parameter", "/params/?absent=here")
s.get("HEAD", "/long", method="HEAD")
s.get("POST", "/echo", method="POST", body=b"some body")
s.get("POST of many records", "/echo", method="POST", body=b"0123456789" * 20000)
s.get("POST that is streamed", "/streamed", method="POST", body=b"0123456789" * 20000)
s.get("fields are not passed", "/no-fields", "X-Field: v")
s.get("body is not passed", "/no-body", method="POST", body=b"unsent")
s.get("dead peer", "/next")
s.get("dead peer and no other", "/next-off")
s.get("address in a variable", "/variable")
s.get("no address in a variable", "/variable-bad")
s.get("error page", "/intercepted")
s.get("unbuffered", "/unbuffered/long")
s.get("if", "/if?x=1")
s.get("nested location", "/if/in")
s.raw_case("HTTP/1.0", b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
s.raw_case("chunked body", b"POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
           b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")


@s.case("kept connections")
def _(c):
    for uri in ("/kept", "/kept/a", "/not-kept"):
        c.send(uri)


PLAIN = {
    "/status": b"Status: 404 Not There\r\nX-A: b\r\n\r\nnothing",
    "/status-line": b"HTTP/1.1 201 Made\r\nX-A: b\r\n\r\nthing",
    "/location": b"Location: http://elsewhere/x\r\n\r\n",
    "/bad-status": b"Status: what\r\n\r\n",
    "/length": b"Content-Length: 5\r\n\r\n12345",
    "/too-long": b"Content-Length: 5\r\n\r\n1234567",
    "/too-short": b"Content-Length: 9\r\n\r\n12345",
    "/empty": b"",
    "/long": b"Content-Length: 300000\r\n" + TEXT + b"0123456789" * 30000,
    "/accel": b"X-Accel-Redirect: /inside?a=b\r\n\r\nunseen",
}

for name, server in (("scgi", scgi), ("uwsgi", uwsgi)):
    s = Suite(name, http=r"""
        server {
            listen %%PORT_0%%;
            server_name localhost;
            NAME_param URI $request_uri;
            NAME_param ARGS $args if_not_empty;
            MORE
            location / { NAME_pass %%app%%; }
            location /inside { return 200 "inside $args\n"; }
            location /dead { NAME_pass %%dead%%; }
            location /variable { set $to %%app%%; NAME_pass SCHEME$to; }
            location /unbuffered { NAME_request_buffering off; NAME_buffering off; NAME_pass %%app%%; }
        }
    """.replace("MORE", "uwsgi_modifier1 5; uwsgi_modifier2 6; uwsgi_param CONTENT_LENGTH $content_length;"
                if name == "uwsgi" else "").replace("SCHEME", "uwsgi://" if name == "uwsgi" else "")
              .replace("NAME", name))
    s.backend("app", kind="raw", script=server(PLAIN))
    s.backend("dead", kind="refused")
    for uri in PLAIN:
        s.get(uri[1:], uri, "X-Field: v")
    s.get("arguments", "/?a=b")
    s.get("HEAD", "/long", method="HEAD")
    s.get("POST", "/", method="POST", body=b"some body")
    s.get("POST that is streamed", "/unbuffered", method="POST", body=b"0123456789" * 10)
    s.get("address in a variable", "/variable")
    s.get("nobody there", "/dead")
