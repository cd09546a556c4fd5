from harness import Suite, ok

s = Suite("access", http=r"""
    server {
        listen %%PORT_0%%;
        server_name localhost;
        root html;
        location /open { return 200 "rewrite comes first\n"; }
        location /deny { deny all; proxy_pass http://%%app%%; }
        location /allow-local { allow 127.0.0.1; deny all; proxy_pass http://%%app%%; }
        location /net { deny 127.0.0.2; allow 127.0.0.0/8; deny all; proxy_pass http://%%app%%; }
        location /order { allow all; deny all; proxy_pass http://%%app%%; }
        location /inherit { deny all; location /inherit/own { allow all; proxy_pass http://%%app%%; } }
        location /basic { auth_basic "the realm"; auth_basic_user_file users; proxy_pass http://%%app%%; }
        location /basic-off { auth_basic "x"; auth_basic_user_file users; location /basic-off/in { auth_basic off; proxy_pass http://%%app%%; } }
        location /basic-nofile { auth_basic "x"; auth_basic_user_file nosuch; proxy_pass http://%%app%%; }
        location /any { satisfy any; allow 127.0.0.1; deny all; auth_basic "any"; auth_basic_user_file users; proxy_pass http://%%app%%; }
        location /all { satisfy all; allow 127.0.0.1; deny all; auth_basic "all"; auth_basic_user_file users; proxy_pass http://%%app%%; }
        location /page403 { deny all; error_page 403 /page; }
        location /page { return 200 "page\n"; }
        location /auth-request { auth_request /auth; auth_request_set $who $upstream_http_x_user; add_header X-Who $who always; proxy_pass http://%%app%%; }
        location = /auth { internal; proxy_pass http://%%auth%%/check?$args; proxy_pass_request_body off; proxy_set_header Host auth; proxy_set_header Connection ""; proxy_set_header Content-Length ""; }
    }
    server {
        listen %%PORT_1%%;
        set_real_ip_from 127.0.0.1;
        set_real_ip_from 10.0.0.0/8;
        location / { return 200 "$remote_addr $realip_remote_addr $proxy_add_x_forwarded_for\n"; }
        location /xff { real_ip_header X-Forwarded-For; return 200 "$remote_addr\n"; }
        location /recursive { real_ip_header X-Forwarded-For; real_ip_recursive on; return 200 "$remote_addr $http_x_forwarded_for\n"; }
        location /deny { deny 192.0.2.1; real_ip_header X-Real-IP; proxy_pass http://%%app%%; }
        location /custom { real_ip_header X-Client; return 200 "$remote_addr\n"; }
    }
    server {
        listen %%PORT_2%% proxy_protocol;
        set_real_ip_from 127.0.0.0/8;
        real_ip_header proxy_protocol;
        location / { return 200 "$remote_addr $proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port\n"; }
    }
""", files={"users": "joe:{PLAIN}secret\nann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\nmd5:$apr1$abcdefgh$PxH9kmRVkQhjhXt9D5ZqP1\nbroken\n"})
s.backend("app", {"*": ok("app\n")})
s.backend("auth", {"/check": lambda q: (ok("", "X-User: joe") if b"X-Token: good" in q.raw else
                                        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nWWW-Authenticate: Bearer\r\n\r\nno"
                                        if b"X-Token" not in q.raw else
                                        b"HTTP/1.1 %s X\r\nContent-Length: 0\r\n\r\n" % q.raw.split(b"X-Token: ")[1][:3])})
JOE, WRONG, ANN = "Authorization: Basic am9lOnNlY3JldA==", "Authorization: Basic am9lOndyb25n", "Authorization: Basic YW5uOnNlY3JldA=="
for uri in ("/open", "/deny", "/allow-local", "/net", "/order", "/inherit", "/inherit/own", "/basic", "/basic-off/in", "/any", "/all",
            "/page403"):
    s.get(uri, uri)
s.get("another address is denied", "/allow-local", source="127.0.0.2")
s.get("one of the net is denied", "/net", source="127.0.0.2")
s.get("others of the net are allowed", "/net", source="127.0.0.3")
s.get("basic, right", "/basic", JOE)
s.get("basic, wrong password", "/basic", WRONG)
s.get("basic, unknown user", "/basic", "Authorization: Basic bm9ib2R5Ong=")
s.get("basic, SHA", "/basic", ANN)
s.get("basic, not base64", "/basic", "Authorization: Basic ???")
s.get("basic, other scheme", "/basic", "Authorization: Bearer abc")
s.get("basic, no colon", "/basic", "Authorization: Basic am9l")
s.get("basic, no file", "/basic-nofile", JOE)
s.get("satisfy any by password", "/any", JOE, source="127.0.0.2")
s.get("satisfy any by neither", "/any", source="127.0.0.2")
s.get("satisfy all", "/all", JOE)
s.get("satisfy all, wrong address", "/all", JOE, source="127.0.0.2")
s.get("auth_request, good", "/auth-request", "X-Token: good")
s.get("auth_request, 401", "/auth-request")
s.get("auth_request, 403", "/auth-request", "X-Token: 403")
s.get("auth_request, 500", "/auth-request", "X-Token: 500")
s.get("auth_request with a body", "/auth-request", "X-Token: good", method="POST", body="payload")
s.get("the auth location is internal", "/auth")
for name, uri, *headers in (("X-Real-IP", "/", "X-Real-IP: 192.0.2.1"), ("X-Real-IP with a port", "/", "X-Real-IP: 192.0.2.1:99"),
                            ("X-Real-IP IPv6", "/", "X-Real-IP: 2001:db8::1"), ("X-Real-IP nonsense", "/", "X-Real-IP: x"),
                            ("none", "/"), ("X-Forwarded-For last", "/xff", "X-Forwarded-For: 192.0.2.1, 10.0.0.5"),
                            ("recursive", "/recursive", "X-Forwarded-For: 192.0.2.1, 10.0.0.5, 10.0.0.6"),
                            ("recursive over two lines", "/recursive", "X-Forwarded-For: 192.0.2.7", "X-Forwarded-For: 10.0.0.6"),
                            ("recursive, all trusted", "/recursive", "X-Forwarded-For: 10.1.1.1, 10.0.0.6"),
                            ("then deny", "/deny", "X-Real-IP: 192.0.2.1"), ("own header", "/custom", "X-Client: 192.0.2.9")):
    s.get("real_ip " + name, uri, *headers, port=1)
s.get("real_ip from an untrusted address", "/", "X-Real-IP: 192.0.2.1", port=1, source="127.0.0.9")
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n"
for name, data in (("v1", b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 2222\r\n" + REQUEST),
                   ("v1 IPv6", b"PROXY TCP6 2001:db8::1 2001:db8::2 1111 2222\r\n" + REQUEST),
                   ("v1 UNKNOWN", b"PROXY UNKNOWN\r\n" + REQUEST),
                   ("v1 broken", b"PROXY TCP4 192.0.2.1\r\n" + REQUEST),
                   ("missing", REQUEST),
                   ("v2", V2 + b"\x21\x11\0\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 2, 4, 87, 8, 174]) + REQUEST),
                   ("v2 LOCAL", V2 + b"\x20\0\0\0" + REQUEST)):
    s.raw_case("PROXY protocol " + name, data, port=2)

t = Suite("variables", http=r"""
    log_format all escape=none '$remote_addr|$remote_user|$request|$status|$body_bytes_sent|$http_referer|$http_user_agent|'
        '$request_method|$request_uri|$uri|$document_uri|$args|$query_string|$is_args|$arg_a|$arg_B|$cookie_c|$http_x_one|'
        '$host|$http_host|$hostname|$server_name|$server_addr|$server_port|$server_protocol|$scheme|$https|$content_type|'
        '$content_length|$request_length|$request_completion|$request_filename|$document_root|$realpath_root|$limit_rate|'
        '$sent_http_content_type|$sent_http_content_length|$sent_http_x_out|$sent_http_connection|$binary_remote_addr|'
        '$connection_requests|$pipe|$request_body|$request_body_file|$remote_port|$nosuch_is_set|$proxy_protocol_addr';
    log_format esc '"$http_x_one" "$arg_a" "$http_user_agent" "$remote_user"';
    log_format js escape=json '{"x":"$http_x_one","a":"$arg_a"}';
    log_format raw escape=none '$http_x_one';
    log_format timed '$time_local|$time_iso8601|$msec|$request_time|$upstream_response_time|$upstream_connect_time|$upstream_header_time';
    map $status $loggable { ~^[23] 0; default 1; }
    server {
        listen %%PORT_0%%;
        server_name vars.test alias.test;
        set $nosuch_is_set "";
        root html;
        location /all { access_log logs/all.log all; add_header X-Out out; return 200 "x"; }
        location /all-proxied { access_log logs/all.log all; proxy_pass http://%%app%%; }
        location /escapes { access_log logs/esc.log esc; access_log logs/js.log js; access_log logs/raw.log raw; return 200 ok; }
        location /off { access_log off; return 200 ok; }
        location /if { access_log logs/if.log combined if=$loggable; return 200 ok; }
        location /if404 { access_log logs/if.log combined if=$loggable; return 404; }
        location /two { access_log logs/one.log; access_log logs/two.log esc; return 200 ok; }
        location /by-name { access_log logs/$host.log esc; return 200 ok; }
        location /buffered { access_log logs/buffered.log esc buffer=4k flush=10ms; return 200 ok; }
        location /timed { access_log logs/timed.log timed; proxy_pass http://%%app%%; }
        location /subrequest { log_subrequest on; add_after_body /sub; proxy_pass http://%%app%%; }
        location /sub { log_subrequest on; return 200 "sub\n"; }
        location /request-id { return 200 "$request_id\n"; }
        location /body-var { return 200 "$request_method $content_type $content_length\n"; }
        location /dollar { return 200 "a$http_x_none/$arg_none-${host}b\n"; }
        location /cookies { return 200 "$http_cookie|$cookie_a|$cookie_b|$cookie_none\n"; }
        location /args { return 200 "$args|$arg_x|$arg_empty|$arg_none|$arg_X\n"; }
        location /sent { add_header X-Sent "$sent_http_content_type $sent_http_last_modified"; return 200 ok; }
        location /host { return 200 "$host|$http_host|$server_name|$server_port\n"; }
        location /conn { return 200 "$connection_requests $http_connection\n"; }
        location /path/ { alias %%PREFIX%%/html/; add_header X-File $request_filename; add_header X-Root $document_root; return 200 "$request_filename $document_root $realpath_root\n"; }
    }
""", files={"html/f": "f"})
t.backend("app", {"*": ok("app\n", "Content-Type: text/app")})
t.get("all of them", "/all/%41?a=1&B=2", "X-One: one", "User-Agent: ua", "Referer: ref", "Cookie: c=3; d=4",
      "Authorization: Basic am9lOnNlY3JldA==", "Content-Type: text/x", host="Alias.test:99", method="POST", body="body")
t.get("all of them, proxied", "/all-proxied?x", method="POST", body="body")
t.get("all of them, HTTP/1.0", "/all", host=None, version="1.0")
t.raw_case("escapes", b'GET /escapes?a="q"\\%22\xff HTTP/1.1\r\nHost: a\r\nX-One: "q" \\b \xc3\xbc\x7f\ttab\r\nConnection: close\r\n'
                      b"Authorization: Basic am\"9l\r\n\r\n")
for uri in ("/off", "/if", "/if404", "/two", "/by-name", "/timed", "/subrequest", "/request-id", "/dollar", "/sent", "/host", "/conn",
            "/path/f"):
    t.get(uri, uri)
t.get("args", "/args?x=1&empty=&y=2&x=3&X=4")
t.get("args without values", "/args?x&&=&x=1")
t.get("cookies", "/cookies", "Cookie: a=1; b=two; c", "Cookie: a=second")
t.get("host with port and case", "/host", host="VARS.test:8080")
t.get("empty user agent", "/escapes", "User-Agent:")
t.get("combined with a user", "/host", "Authorization: Basic am9lOnNlY3JldA==", "User-Agent: a\"b", "Referer: x")


@t.case("buffered log is flushed in time")
def _(c):
    import os
    c.send("/buffered", "X-One: b")
    path = os.path.join(c.world.prefix.path, "logs", "buffered.log")
    c.wait_until(lambda: os.path.getsize(path) > 0)


@t.case("connection_requests counts")
def _(c):
    conn = c.connect()
    for _ in range(3):
        conn.send(b"GET /conn HTTP/1.1\r\nHost: a\r\n\r\n").response()


l = Suite("limits", http=r"""
    limit_req_zone $arg_k zone=slow:1m rate=1r/m;
    limit_req_zone $arg_k zone=burst:1m rate=600r/m;
    limit_conn_zone $arg_k zone=conns:1m;
    server {
        listen %%PORT_0%%;
        server_name localhost;
        location /req { limit_req zone=slow; proxy_pass http://%%app%%; }
        location /req-status { limit_req zone=slow; limit_req_status 429; limit_req_log_level warn; proxy_pass http://%%app%%; }
        location /nodelay { limit_req zone=slow burst=2 nodelay; proxy_pass http://%%app%%; }
        location /dry { limit_req zone=slow; limit_req_dry_run on; add_header X-Limit $limit_req_status always; proxy_pass http://%%app%%; }
        location /delay { limit_req zone=burst burst=5; proxy_pass http://%%app%%; }
        location /conn { limit_conn conns 1; limit_conn_status 429; proxy_pass http://%%slow%%; }
        location /empty-key { limit_req zone=slow; proxy_pass http://%%app%%; }
    }
""")
l.backend("app", {"*": ok("app\n")})
l.backend("slow", {"*": [0.3, ok("slow\n")]})


def repeated(name, uri, count):
    @l.case(name)
    def _(c):
        for _ in range(count):
            c.send(uri)


repeated("limit_req", "/req?k=1", 2)
repeated("limit_req_status and level", "/req-status?k=2", 2)
repeated("burst nodelay", "/nodelay?k=3", 4)
repeated("dry run", "/dry?k=4", 2)
repeated("delayed", "/delay?k=5", 2)
repeated("an empty key is not limited", "/empty-key", 3)


@l.case("limit_conn")
def _(c):
    first = c.connect().send(b"GET /conn?k=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    c.wait_until(lambda: c.world.backends[1].records)
    c.send("/conn?k=1")
    c.send("/conn?k=2")
    first.all()
