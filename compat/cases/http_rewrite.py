from harness import Suite

s = Suite("rewrite", http=r"""
    server {
        listen %%PORT_0%%;
        server_name localhost;
        rewrite ^/server-level/(.*)$ /target/$1?from=server last;
        location / { return 200 "root $uri?$args\n"; }
        location /target { return 200 "target $uri?$args\n"; }
        location /last { rewrite ^/last/(.*)$ /target/$1 last; return 200 "not here\n"; }
        location /break { rewrite ^/break/(.*)$ /target/$1 break; proxy_pass http://%%app%%; }
        location /break-return { rewrite ^ /target break; return 200 "skipped\n"; }
        location /redirect { rewrite ^/redirect/(.*)$ /target/$1 redirect; }
        location /permanent { rewrite ^/permanent/(.*)$ /target/$1 permanent; }
        location /absolute { rewrite ^ http://other.test/$uri; }
        location /https { rewrite ^ https://$host$uri? permanent; }
        location /args { rewrite ^/args/(.*)$ /target?name=$1 last; }
        location /noargs { rewrite ^ /target? last; }
        location /noargs-add { rewrite ^ /target?only=this? last; }
        location /named { rewrite ^/named/(?<who>\w+)$ /target/$who last; }
        location /chain { rewrite ^/chain/(.*)$ /step/$1; rewrite ^/step/(.*)$ /target/$1; return 200 "chain $uri\n"; }
        location /nomatch { rewrite ^/other /target last; return 200 "unchanged $uri\n"; }
        location /loop { rewrite ^ /loop last; }
        location /escape { rewrite ^/escape/(.*)$ /target/$1 redirect; }
        location /captures { rewrite ^/captures/(.)(.)(.)$ /target/$3$2$1 last; }
        location /case { rewrite (?i)^/CASE/(.*)$ /target/$1 last; }
        location /brace { rewrite "^/brace/(\d{2})$" /target/$1 last; return 200 "none\n"; }
    }
""")
s.backend("app")
for uri in ("/server-level/a?x=1", "/last/a/b?x=1", "/break/a?x=1", "/break-return", "/redirect/a?x=1", "/permanent/a?x=1",
            "/absolute/x?y", "/https/a?b=c", "/args/joe?x=1", "/noargs?x=1", "/noargs-add?x=1", "/named/joe", "/chain/a",
            "/nomatch", "/loop", "/escape/a%20b%3f", "/captures/abc", "/case/x", "/brace/12", "/brace/123"):
    s.get(uri, uri)

i = Suite("if-set", http=r"""
    map $http_x_flag $flag { default 0; yes 1; }
    server {
        listen %%PORT_0%%;
        set $answer "server";
        if ($request_method = TRACEME) { return 405; }
        location / {
            set $note "n:$arg_a";
            if ($arg_a = one) { return 200 "equals\n"; }
            if ($arg_a != "") { set $note "$note;not-empty"; }
            if ($arg_b ~ ^x(.*)y$) { set $note "$note;regex $1"; }
            if ($arg_b ~* ^X) { set $note "$note;icase"; }
            if ($arg_b !~ z) { set $note "$note;no-z"; }
            if ($flag) { set $note "$note;flag"; }
            return 200 "$answer $note\n";
        }
        location /file/ {
            root html;
            if (-f $request_filename) { return 200 "file\n"; }
            if (-d $request_filename) { return 200 "directory\n"; }
            if (!-e $request_filename) { return 200 "nothing\n"; }
        }
        location /if-header {
            add_header X-Outer outer;
            if ($arg_h) { add_header X-Inner inner; }
            return 200 "body\n";
        }
        location /if-proxy {
            if ($arg_v = 2) { proxy_pass http://%%two%%; }
            proxy_pass http://%%one%%;
        }
        location /if-break { set $x 1; if ($arg_k) { break; } set $x 2; add_header X-Val $x; proxy_pass http://%%one%%; }
        location /nested-set { set $a "a"; set $b "${a}b"; set $a "$b$b"; return 200 "$a|$b|${a}x\n"; }
        location /uninitialised { if ($arg_q) { set $never 1; } return 200 "[$never]\n"; }
    }
""", files={"html/file/there": "x", "html/file/dir/": ""})
i.backend("one")
i.backend("two")
for uri in ("/?a=one", "/?a=two", "/?b=xANYy", "/?b=Xz", "/?a=2&b=xy", "/file/there", "/file/dir", "/file/none", "/if-header",
            "/if-header?h=1", "/if-proxy?v=1", "/if-proxy?v=2", "/if-break?k=1", "/if-break", "/nested-set",
            "/uninitialised"):
    i.get(uri, uri)
i.get("map in if", "/", "X-Flag: yes")
i.get("method", "/", method="TRACEME")

m = Suite("map", http=r"""
    map $arg_k $plain { default "dflt"; a "A"; "b c" "B C"; '' "empty"; D d; \default esc; }
    map $arg_k $regex { default none; ~^num(\d+)$ "number $1"; ~*^word(?<w>\w+)$ "word $w"; ~x.*y "xy"; }
    map $host $byhost { hostnames; default other; exact.test exact; *.wild.test wild; .dot.test dot; mail.* mail; }
    map $arg_k $chained { default $plain; a "a-$regex"; }
    map "$arg_k:$arg_l" $joined { "1:2" yes; default no; }
    map $arg_k $volatile { volatile; default "v:$arg_l"; }
    map $arg_k $nodefault { a 1; }
    map $remote_addr $fromfile { default 0; include inc.map; }
    geo $geo { default far; 127.0.0.0/8 near; 10.0.0.0/8 ten; 127.0.0.2 two; }
    geo $arg_ip $geoarg { default -; 192.168.0.0/16 lan; 192.168.1.0/24 lan1; 2001:db8::/32 doc; }
    split_clients "$arg_k" $split { 50% half; * rest; }
    server {
        listen %%PORT_0%%;
        location / { return 200 "$plain|$regex|$chained|$joined|$volatile|$nodefault|$fromfile\n"; }
        location /host { return 200 "$byhost\n"; }
        location /geo { return 200 "$geo $geoarg\n"; }
        location /split { return 200 "$split\n"; }
    }
""", files={"inc.map": "127.0.0.1 local;\n127.0.0.2 other;\n"})
for query in ("", "k=a", "k=b%20c", "k=d", "k=D", "k=A", "k=num12", "k=WORDy", "k=wordy&l=9", "k=1&l=2", "k=axby", "k=default"):
    m.get("?" + query, "/?" + query)
for host in ("exact.test", "a.wild.test", "wild.test", "dot.test", "x.dot.test", "mail.any", "none.test"):
    m.get("hostnames " + host, "/host", host=host)
m.get("geo by address", "/geo", source="127.0.0.2")
for address in ("192.168.1.7", "192.168.2.7", "8.8.8.8", "2001:db8::5", "nonsense"):
    m.get("geo " + address, "/geo?ip=" + address)
for key in ("one", "two", "three", "four"):
    m.get("split_clients " + key, "/split?k=" + key)

e = Suite("error-page", http=r"""
    server {
        listen %%PORT_0%%;
        server_name localhost;
        error_page 404 /404.html;
        location / { root html; }
        location /code { error_page 403 =200 /ok.html; return 403; }
        location /code-empty { error_page 404 = /dynamic; return 404; }
        location /dynamic { return 202 "dynamic $uri $status\n"; }
        location /named { error_page 500 502 @named; return 500; }
        location @named { return 201 "named $uri\n"; }
        location /named-code { error_page 500 =503 @named-proxy; return 500; }
        location @named-proxy { proxy_pass http://%%app%%; }
        location /url { error_page 403 http://example.test/forbidden; return 403; }
        location /url-code { error_page 403 =301 http://example.test/$uri; return 403; }
        location /relative-off { error_page 404 /missing-too.html; return 404; }
        location /intercept { error_page 404 /404.html; proxy_intercept_errors on; proxy_pass http://%%app%%; }
        location /not-intercepted { error_page 404 /404.html; proxy_pass http://%%app%%; }
        location /recursive { recursive_error_pages on; error_page 403 /second; return 403; }
        location /second { error_page 404 /ok.html; return 404; }
        location /not-recursive { error_page 403 /second; return 403; }
        location = /internal { internal; return 200 "internal $uri\n"; }
        location /to-internal { error_page 410 /internal; return 410; }
        location /inherit/ { location /inherit/own { error_page 403 /ok.html; return 404; } return 404; }
        location /post { error_page 405 =200 /echo; return 405; }
        location /echo { proxy_pass http://%%app%%; }
        location /text-not-replaced { error_page 404 /404.html; return 404 "own text"; }
        location /args { error_page 404 /dynamic?status=$status&uri=$uri; return 404; }
    }
""", files={"html/404.html": "custom 404\n", "html/ok.html": "ok page\n"})
e.backend("app", {"/intercept": b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nX-App: y\r\n\r\nown",
                  "/not-intercepted": b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nX-App: y\r\n\r\nown"})
for uri in ("/missing", "/code", "/code-empty", "/named", "/named-code", "/url", "/url-code", "/relative-off", "/intercept",
            "/not-intercepted", "/recursive", "/not-recursive", "/internal", "/to-internal", "/inherit/x", "/inherit/own",
            "/text-not-replaced", "/args"):
    e.get(uri, uri)
e.get("POST becomes GET", "/post", method="POST", body="data")
e.get("HEAD", "/missing", method="HEAD")
