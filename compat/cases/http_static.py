from harness import Suite

LM = "Tue, 14 Nov 2023 22:13:20 GMT"
ETAG = '"6553f100-24"'
TEXT = "0123456789abcdefghijklmnopqrstuvwxyz"

s = Suite("static", http=r"""
    types { text/html html; text/plain txt; image/gif gif; application/json json; }
    default_type application/octet-stream;
    charset_types text/plain;
    server {
        listen %%PORT_0%%;
        server_name localhost;
        root html;
        location / { }
        location /alias/ { alias %%PREFIX%%/html/dir/; }
        location ~ ^/re-alias/(.*)$ { alias %%PREFIX%%/html/dir/$1; }
        location = /one { alias %%PREFIX%%/html/file.txt; }
        location /index/ { index missing.html second.html; }
        location /noindex/ { }
        location /list/ { autoindex on; }
        location /charset/ { alias %%PREFIX%%/html/; charset utf-8; }
        location /noetag/ { alias %%PREFIX%%/html/; etag off; }
        location /exact-lm/ { alias %%PREFIX%%/html/; if_modified_since before; }
        location /lm-off/ { alias %%PREFIX%%/html/; if_modified_since off; }
        location /max/ { alias %%PREFIX%%/html/; max_ranges 1; }
        location /noranges/ { alias %%PREFIX%%/html/; max_ranges 0; }
        location /default-type/ { alias %%PREFIX%%/html/; types { } default_type text/x-own; }
        location /nolog404/ { log_not_found off; }
        location /try { try_files $uri $uri/ /file.txt; }
        location /try-code { try_files $uri =410; }
        location /try-named { try_files $uri @named; }
        location /try-args { try_files $uri /dynamic?$args; }
        location /try-dir { try_files $uri/ $uri/second.html =404; }
        location @named { return 200 "named $uri\n"; }
        location /dynamic { return 200 "dynamic $uri $args\n"; }
        location /absolute-off/ { absolute_redirect off; }
    }
""", files={"html/file.txt": TEXT, "html/page.html": "<p>\n", "html/empty.txt": "", "html/dir/x.txt": "in dir\n",
            "html/dir/index.html": "index of dir\n", "html/index/second.html": "second\n", "html/noindex/f": "x",
            "html/unknown.ext": "?", "html/noext": "?", "html/absolute-off/sub/f": "x", "html/with space.txt": "space\n",
            "html/try/second.html": "try dir\n", "html/try-dir/second.html": "d\n", "html/big.txt": "line of text\n" * 9000,
            "html/list/a.txt": "a"})
for uri in ("/file.txt", "/page.html", "/empty.txt", "/unknown.ext", "/noext", "/missing.txt", "/dir", "/dir?a=b", "/dir/",
            "/dir/x.txt", "/dir/x.txt/", "/file.txt/more", "/alias/x.txt", "/alias/", "/alias", "/re-alias/x.txt", "/one",
            "/index/", "/noindex/", "/noindex", "/charset/file.txt", "/noetag/file.txt", "/default-type/file.txt",
            "/nolog404/x", "/try", "/try-code", "/try-named", "/try-args?a=1", "/try-dir", "/absolute-off/sub",
            "/with%20space.txt", "/big.txt", "/../file.txt", "/dir/../file.txt"):
    s.get(uri, uri)
s.get("HEAD", "/file.txt", method="HEAD")
s.get("POST is not allowed", "/file.txt", method="POST", body="x")
s.get("PUT is not allowed", "/file.txt", method="PUT", body="x")
for label, value in (("first bytes", "0-4"), ("middle", "10-12"), ("open end", "30-"), ("suffix", "-4"), ("one byte", "0-0"),
                     ("past the end", "30-99"), ("unsatisfiable", "99-"), ("two", "0-1,4-5"), ("three with spaces", "0-1, 4-5 ,-2"),
                     ("reversed", "5-2"), ("no number", "abc"), ("suffix longer than the file", "-99"),
                     ("one bad of two", "0-1,99-"), ("empty", ""), ("whole", "0-")):
    s.get("range, " + label, "/file.txt", "Range: bytes=" + value)
s.get("range, other unit", "/file.txt", "Range: items=0-1")
s.get("range with HEAD", "/file.txt", "Range: bytes=0-4", method="HEAD")
s.get("max_ranges 1, two asked", "/max/file.txt", "Range: bytes=0-1,4-5")
s.get("max_ranges 0", "/noranges/file.txt", "Range: bytes=0-1")
s.get("If-Range matching date", "/file.txt", "Range: bytes=0-1", "If-Range: " + LM)
s.get("If-Range other date", "/file.txt", "Range: bytes=0-1", "If-Range: Tue, 14 Nov 2023 22:13:21 GMT")
s.get("If-Range matching tag", "/file.txt", "Range: bytes=0-1", "If-Range: " + ETAG)
s.get("If-Range other tag", "/file.txt", "Range: bytes=0-1", 'If-Range: "x"')
s.get("If-Modified-Since same", "/file.txt", "If-Modified-Since: " + LM)
s.get("If-Modified-Since later is not exact", "/file.txt", "If-Modified-Since: Tue, 14 Nov 2023 22:13:21 GMT")
s.get("If-Modified-Since later, before", "/exact-lm/file.txt", "If-Modified-Since: Tue, 14 Nov 2023 22:13:21 GMT")
s.get("If-Modified-Since off", "/lm-off/file.txt", "If-Modified-Since: " + LM)
s.get("If-Modified-Since nonsense", "/file.txt", "If-Modified-Since: yesterday")
s.get("If-None-Match same", "/file.txt", "If-None-Match: " + ETAG)
s.get("If-None-Match weak", "/file.txt", "If-None-Match: W/" + ETAG)
s.get("If-None-Match list", "/file.txt", 'If-None-Match: "a", ' + ETAG)
s.get("If-None-Match star", "/file.txt", "If-None-Match: *")
s.get("If-None-Match other wins over date", "/file.txt", 'If-None-Match: "x"', "If-Modified-Since: " + LM)
s.get("If-Match same", "/file.txt", "If-Match: " + ETAG)
s.get("If-Match other", "/file.txt", 'If-Match: "x"')
s.get("If-Unmodified-Since same", "/file.txt", "If-Unmodified-Since: " + LM)
s.get("If-Unmodified-Since earlier", "/file.txt", "If-Unmodified-Since: Tue, 14 Nov 2023 22:13:19 GMT")

h = Suite("headers", http=r"""
    map $sent_http_content_type $exp { default off; text/plain 1d; application/json epoch; ~image/ max; }
    add_header X-Http http;
    server {
        listen %%PORT_0%%;
        add_header X-Server server;
        location /inherit { return 200 ok; }
        location /replace { add_header X-Loc loc; return 200 ok; }
        location /always { add_header X-Always a always; add_header X-Plain b; return 404; }
        location /codes { add_header X-Plain b; return 302 /x; }
        location /empty { add_header X-Empty ""; add_header X-Set $arg_v; return 200 ok; }
        location /twice { add_header X-Twice 1; add_header X-Twice 2; return 200 ok; }
        location /known { add_header ETag '"abc"'; add_header Cache-Control no-store; add_header Last-Modified ""; return 200 ok; }
        location /expires { expires 1h; return 200 ok; }
        location /expires-neg { expires -1; return 200 ok; }
        location /expires-epoch { expires epoch; return 200 ok; }
        location /expires-max { expires max; return 200 ok; }
        location /expires-off { expires off; proxy_pass http://%%app%%; }
        location /expires-error { expires 1h; return 404; }
        location /expires-proxied { expires 10m; proxy_pass http://%%app%%; }
        location /expires-modified { root html; expires modified 1d; }
        location /expires-map { root html; types { text/plain txt; application/json json; } expires $exp; }
        location /proxied { add_header X-Mine m; proxy_pass http://%%app%%; }
        location /trailer { add_trailer X-Trailer t; proxy_pass http://%%app%%; }
        location /cookie { add_header Set-Cookie "a=1; Path=/"; add_header Set-Cookie b=2; return 200 ok; }
    }
""", files={"html/expires-modified": "m", "html/expires-map/a.txt": "t", "html/expires-map/a.json": "{}"})
RESPONSE = (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Mine: theirs\r\nExpires: Thu, 01 Jan 2015 00:00:00 GMT\r\n"
            b"Cache-Control: private\r\nCache-Control: max-age=5\r\n\r\nhi")
h.backend("app", {"*": RESPONSE, "/trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"})
for uri in ("/inherit", "/replace", "/always", "/codes", "/empty", "/empty?v=x", "/twice", "/known", "/expires", "/expires-neg",
            "/expires-epoch", "/expires-max", "/expires-off", "/expires-error", "/expires-proxied",
            "/expires-map/a.txt", "/expires-map/a.json", "/proxied", "/trailer", "/cookie"):
    h.get(uri, uri)
