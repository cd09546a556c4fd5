"""disable_symlinks, and responses that proxy_store keeps."""

import os

from harness import CLOSE, Suite, ok, reply

s = Suite("symlinks", files={"html/real/a.txt": "file\n", "html/real/index.html": "index\n", "html/real/gz.txt": "plain\n"}, http=r"""
    access_log logs/s.log combined;
    server { listen %%PORT_0%%; root html;
        location /on/ { disable_symlinks on; alias %%PREFIX%%/html/; }
        location /owner/ { disable_symlinks if_not_owner; alias %%PREFIX%%/html/; }
        location /off/ { disable_symlinks off; alias %%PREFIX%%/html/; }
        location /from/ { disable_symlinks on from=%%PREFIX%%/html/linked; alias %%PREFIX%%/html/; }
        location /root/ { disable_symlinks on from=$document_root; }
        location /try/ { disable_symlinks on; alias %%PREFIX%%/html/; try_files real/link.txt real/a.txt =404; }
        location /if/ { disable_symlinks on; alias %%PREFIX%%/html/; if (-f $request_filename) { return 200 "there\n"; } return 200 "not there\n"; }
        location = /log { disable_symlinks on; access_log %%PREFIX%%/logs/$arg_to.log combined; return 204; }
    }
""")


def links(c):
    html = os.path.join(c.world.prefix.path, "html")
    os.chmod(os.path.join(c.world.prefix.path, "logs"), 0o777)
    for name, to in (("real/link.txt", "a.txt"), ("linked", "real"), ("real/dead.txt", "nothing")):
        if not os.path.lexists(os.path.join(html, name)):
            os.symlink(to, os.path.join(html, name))


for uri in ("/on/real/a.txt", "/on/real/link.txt", "/on/linked/a.txt", "/on/real/", "/on/linked/", "/on/linked", "/on/real/none.txt", "/on/real/dead.txt",
            "/owner/real/link.txt", "/owner/linked/a.txt", "/owner/linked/", "/owner/real/dead.txt", "/off/linked/link.txt", "/from/linked/a.txt", "/from/linked/link.txt",
            "/from/linked", "/from/real/link.txt", "/root/x", "/try/x", "/if/real/a.txt", "/if/real/link.txt", "/if/linked/a.txt", "/log?to=plain"):
    def case(c, uri=uri):
        links(c)
        c.send(uri)

    s.cases.append((uri, case))

t = Suite("store", mask=[(rb"temp_proxy/\d{10}", b"temp_proxy/N")], http=r"""
    server { listen %%PORT_0%%; root html;
        location / { proxy_store on; proxy_pass http://%%app%%; }
        location /path/ { proxy_store %%PREFIX%%/kept$uri.txt; proxy_store_access user:rw group:rw all:r; proxy_pass http://%%app%%; }
        location /off/ { proxy_store off; proxy_pass http://%%app%%; }
        location /unbuffered/ { proxy_buffering off; proxy_pass http://%%app%%; }
        location /nowhere/ { proxy_store /proc/nowhere/x; proxy_pass http://%%app%%; }
    }
""")
DATED = "Last-Modified: Tue, 14 Nov 2023 22:13:20 GMT"
t.backend("app", {"/a": ok("body", DATED), "/deep/er/b": ok("x" * 100000), "/path/c": ok("in its place"), "/off/d": ok("d"), "/unbuffered/e": ok("e"), "/nowhere/f": ok("f"),
                  "/404": reply("404 Not Found", "none"), "/short": [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", 0.03, CLOSE], "/empty": ok(""),
                  "/close": [b"HTTP/1.1 200 OK\r\n\r\nto the end", CLOSE], "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"})


def writable(c):
    """Lets a worker that is not root put files there."""
    for name in ("html", "kept"):
        path = os.path.join(c.world.prefix.path, name)
        os.makedirs(path, exist_ok=True)
        os.chmod(path, 0o777)


def tell(c, path):
    """What is at a path below the prefix, and that no temporary file is left."""
    full = os.path.join(c.world.prefix.path, path)
    try:
        data, seen = os.stat(full), open(full, "rb").read()
        dated = int(data.st_mtime) if data.st_mtime < 1800000000 and b"body" == seen else "now"
        c.note("text", "%s: mode %o, %d bytes, %s" % (path, data.st_mode & 0o777, len(seen), dated))
        c.note("raw", seen[:40])
        os.unlink(full)
    except OSError as error:
        c.note("text", "%s: %s" % (path, os.strerror(error.errno)))


for uri, kept in (("/a", "html/a"), ("/deep/er/b", "html/deep/er/b"), ("/path/c", "kept/path/c.txt"), ("/off/d", "html/off/d"), ("/unbuffered/e", "html/unbuffered/e"),
                  ("/nowhere/f", "x"), ("/404", "html/404"), ("/short", "html/short"), ("/empty", "html/empty"), ("/close", "html/close"), ("/chunked", "html/chunked")):
    def case(c, uri=uri, kept=kept):
        writable(c)
        c.send(uri)
        tell(c, kept)

    t.cases.append((uri, case))


@t.case("HEAD")
def _(c):
    writable(c)
    c.send("/a", method="HEAD")
    tell(c, "html/a")


@t.case("where nothing may be written")
def _(c):
    os.chmod(os.path.join(c.world.prefix.path, "html"), 0o755)
    c.send("/deep/er/b")
    c.send("/a")
    tell(c, "html/a")
