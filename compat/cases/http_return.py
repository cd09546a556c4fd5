from harness import Suite

s = Suite("return", http=r"""
    log_format full '$status "$request" $sent_http_location';
    access_log logs/full.log full;
    server {
        listen %%PORT_0%%;
        server_name localhost;
        location /text { return 200 "hello world\n"; }
        location /empty { return 200; }
        location /vars { return 200 "$request_method $uri $args $http_x_one"; }
        location /404 { return 404; }
        location /404-text { return 404 "nothing here"; }
        location /301 { return 301 /other; }
        location /301-request { return 301 https://$host$request_uri; }
        location /302 { return 302 http://example.test/a?b=c; }
        location /303 { return 303 /see; }
        location /307 { return 307 /keep; }
        location /308 { return 308 /keep; }
        location /url { return https://example.test/only-url; }
        location /204 { return 204; }
        location /204-text { return 204 "dropped"; }
        location /304 { return 304; }
        location /444 { return 444; }
        location /418 { return 418 teapot; }
        location /599 { return 599; }
        location /500 { return 500; }
        location /503 { return 503; }
        location /402 { return 402; }
        location /json { default_type application/json; return 200 '{"a":1}'; }
        location /type.html { return 200 "<p>"; }
        location /absolute-off { absolute_redirect off; return 301 /other; }
        location /port-off { port_in_redirect off; return 301 /other; }
        location /in-redirect { server_name_in_redirect on; return 301 /other; }
        location /unquoted { return 200 one;  }
        location /quotes { return 200 'it\'s "quoted" \t tab'; }
    }
""")

for path in ("text", "empty", "vars?a=1&b=2", "404", "404-text", "301", "301-request/x?y=%20z", "302", "303", "307", "308",
             "url", "204", "204-text", "304", "418", "599", "500", "503", "402", "json", "type.html", "absolute-off",
             "port-off", "in-redirect", "unquoted", "quotes"):
    s.get(path.split("?")[0].split("/")[0], "/" + path, "X-One: 1", "User-Agent: compat/1 (\"quoted\")", "Referer: http://r/")

s.get("444 closes without a word", "/444")
s.get("HEAD", "/text", method="HEAD")
s.get("HEAD of a 404 page", "/404", method="HEAD")
s.get("POST with a body that nobody reads", "/text", method="POST", body="abcdef")
s.get("OPTIONS", "/text", method="OPTIONS")
s.get("unknown method", "/text", method="FOO")
s.get("301 without Host uses the address", "/301", version="1.0", host=None)
s.get("error page in HTTP/1.0", "/404", version="1.0")
s.get("old MSIE gets padding", "/404", "User-Agent: Mozilla/4.0 (compatible; MSIE 6.0)")
s.get("modern browser gets none", "/404", "User-Agent: Mozilla/5.0 Chrome/120")

t = Suite("server-tokens", http="""
    server { listen %%PORT_0%%; server_tokens off; location / { return 404; } location /ok { return 200 ok; } }
    server { listen %%PORT_1%%; location / { return 403; } location /off { server_tokens off; return 403; } }
""")
t.get("off, 404", "/")
t.get("off, 200", "/ok")
t.get("off, redirect", "/ok", method="HEAD")
t.get("on, 403", "/", port=1)
t.get("off in a location", "/off", port=1)
