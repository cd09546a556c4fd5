from harness import Suite

s = Suite("server-name", http=r"""
    server { listen %%PORT_0%%; server_name first.test; return 200 "first $server_name\n"; }
    server { listen %%PORT_0%%; server_name exact.example.test; return 200 "exact\n"; }
    server { listen %%PORT_0%%; server_name *.example.test; return 200 "leading $server_name\n"; }
    server { listen %%PORT_0%%; server_name *.long.example.test; return 200 "longer leading\n"; }
    server { listen %%PORT_0%%; server_name www.*; return 200 "trailing\n"; }
    server { listen %%PORT_0%%; server_name .dot.test; return 200 "dot\n"; }
    server { listen %%PORT_0%%; server_name ~^re(?<digits>\d+)\.test$; return 200 "regex $digits\n"; }
    server { listen %%PORT_0%%; server_name ~^re; return 200 "second regex\n"; }
    server { listen %%PORT_0%% default_server; server_name _; return 200 "default $host $http_host\n"; }
    server { listen %%PORT_0%%; server_name ""; return 200 "no host\n"; }
    server { listen %%PORT_1%%; server_name one.test; return 200 "implicit default\n"; }
    server { listen %%PORT_1%%; server_name two.test; return 200 "two\n"; }
""")
for host in ("first.test", "exact.example.test", "EXACT.Example.TEST", "other.example.test", "a.b.example.test",
             "x.long.example.test", "www.anything", "dot.test", "sub.dot.test", "re42.test", "rex.test", "unknown.test",
             "first.test:8080", "first.test.", "127.0.0.1", "[::1]:80"):
    s.get("Host " + host, host=host)
s.get("empty Host", host="")
s.get("no Host in HTTP/1.0", host=None, version="1.0")
s.get("absolute URI wins over Host", "http://first.test/x", host="exact.example.test")
s.get("first server is the default", host="unknown.test", port=1)
s.get("named on the second port", host="two.test", port=1)

u = Suite("location", http=r"""
    server {
        listen %%PORT_0%%;
        location / { return 200 "root $uri\n"; }
        location = / { return 200 "exact root\n"; }
        location = /exact { return 200 "exact\n"; }
        location /pre { return 200 "prefix\n"; }
        location /prefix/longer { return 200 "longer prefix\n"; }
        location ^~ /images/ { return 200 "no regex\n"; }
        location ~ \.gif$ { return 200 "gif\n"; }
        location ~* \.(jpg|png)$ { return 200 "picture $1\n"; }
        location ~ ^/first { return 200 "first regex\n"; }
        location ~ ^/first/second { return 200 "never\n"; }
        location ~ ^/user/(?<name>[^/]+)/(\d+)$ { return 200 "user $name $2\n"; }
        location /outer/ {
            location /outer/inner { return 200 "nested prefix\n"; }
            location ~ \.in$ { return 200 "nested regex\n"; }
            return 200 "outer\n";
        }
        location /slash/ { proxy_pass http://%%app%%; }
        location /named { error_page 404 = @fallback; return 404; }
        location @fallback { return 200 "named $uri\n"; }
        location "/with space" { return 200 "space\n"; }
        location /case { return 200 "lower\n"; }
        location /Case { return 200 "upper\n"; }
        location ~ "^/brace/\d{3}$" { return 200 "three digits\n"; }
        location ~ ^/ünï { return 200 "utf-8\n"; }
    }
""")
u.backend("app")
for uri in ("/", "/exact", "/exact/", "/exactly", "/prefix/x", "/prefix/longer/x", "/images/a.gif", "/x/a.gif", "/x/a.GIF",
            "/x/a.PNG", "/first/second", "/user/joe/12", "/user/joe/x", "/outer/", "/outer/inner", "/outer/inner.in",
            "/outer/x.in", "/slash", "/slash?a=b", "/named", "/with%20space", "/case", "/CASE", "/Case", "/brace/123",
            "/brace/1234", "/@fallback", "/%C3%BCn%C3%AF"):
    u.get(uri, uri)

v = Suite("uri", http=r"""
    server {
        listen %%PORT_0%%;
        location / { return 200 "uri=$uri request_uri=$request_uri args=$args is_args=$is_args\n"; }
        location /pass { proxy_pass http://%%app%%; }
        location /repl/ { proxy_pass http://%%app%%/new/; }
    }
    server {
        listen %%PORT_1%%;
        merge_slashes off;
        location / { return 200 "uri=$uri request_uri=$request_uri\n"; }
        location //two { return 200 "double\n"; }
    }
""")
v.backend("app")
for uri in ("/a//b///c", "/a/./b", "/a/../b", "/a/b/../../c", "/a/..", "/a/.", "/a/.b", "/a/..b", "/%41%2f%2F", "/a%20b+c",
            "/a?x=/../y//z", "/a%3Fb", "/a?", "/a??b", "/%25", "/a/%2e%2e/b", "/a;b=c", "/~user", "/a#frag", "/a?b#frag",
            "/%e4%b8%ad", "/a%2", "/a%zz", "/..", "/../x", "/a/../../x", "/%00", "/a b", "/a?b c"):
    v.get(uri, uri)
v.get("absolute form", "http://localhost:81/a/../b?c")
v.get("absolute form without path", "http://localhost?x=1")
v.get("asterisk", "*", method="OPTIONS")
v.get("merge_slashes off", "/a//b/../c", port=1)
v.get("merge_slashes off, location", "//two", port=1)
for uri in ("/pass/a//b/../c?x=%20", "/pass/%41%2f?q", "/repl/a%20b/%41", "/repl//x/../y", "/repl/%25?a=%25", "/repl/a?",
            "/repl/%C3%BC%22<>"):
    v.get("to the backend " + uri, uri)
