"""The work: one `Row` each, with the ratio to nginx that nxr must reach."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import confs
import loads

BULK = 100 << 20  # bytes of a bulk transfer
PAGE = 64 << 10  # bytes of the page to compress
HELD = 2000  # idle connections of the memory rows


@dataclass(frozen=True)
class Row:
    name: str
    kind: str  # load, memory, config, idle or scaling
    unit: str
    target: float  # nxr's CPU (or memory) over nginx's; for scaling the least gain from a second thread
    nginx: Callable
    haproxy: Callable | None = None
    load: Callable | None = None  # (place, seconds, scratch, bulk file) -> Load
    scheme: str = "http"  # of the probe, and of held connections
    answer: tuple | None = (200, 1024)  # status and size the probe expects; None: no probe
    full_handshakes: bool = False
    connections: int = 64
    also_own: bool = False  # the server listens on `own` too
    needs_cpus: int = 1
    alone: Callable | None = None  # the load with one connection
    floor: str | None = None  # what floor.rs does of it: answering, proxying or passing


def url(p, scheme, host="127.0.0.1", path="/"):
    return f"{scheme}://{host}:{p.front}{path}"


def keepalive(scheme, count=64):
    return lambda p, seconds, scratch, bulk: loads.wrk(url(p, scheme), seconds, count)


def compressed(p, seconds, scratch, bulk):
    return loads.wrk(url(p, "http"), seconds, headers=["Accept-Encoding: gzip"])


def page():
    """Text that takes a server some milliseconds to compress; always the same."""
    chance = random.Random(1)
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(4000)]
    return " ".join(chance.choices(words, k=PAGE))[:PAGE]


def new_connections(count=64):
    # "localhost" so that the client sends a server name (RFC 6066, section 3: never an address).
    return lambda p, seconds, scratch, bulk: loads.wrk(url(p, "https", "localhost"), seconds, count, close=True)


def h2(p, seconds, scratch, bulk):
    return loads.h2load(url(p, "https"), seconds, scratch)


def download(scheme):
    return lambda p, seconds, scratch, bulk: loads.curl_transfers(url(p, scheme, "localhost", "/file/bulk"), seconds, BULK)


def upload(p, seconds, scratch, bulk):
    return loads.curl_transfers(url(p, "http", path="/upload"), seconds, BULK, upload=bulk)


def _rows():
    c = confs
    load = lambda *args, **more: Row(args[0], "load", *args[1:], **more)
    bulk = lambda *args, **more: load(args[0], "GiB", *args[1:], connections=4, **more)
    ok = (200, 3)
    return [
        load("http-keepalive", "request", 0.80, c.nginx_http, c.haproxy_http, keepalive("http"),
             alone=keepalive("http", 1), floor="proxying"),
        load("return-301", "request", 0.85, c.nginx_301, c.haproxy_301, keepalive("http"), answer=(301, None),
             alone=keepalive("http", 1), floor="answering"),
        load("https-keepalive", "request", 0.75, c.nginx_https, c.haproxy_https, keepalive("https"), scheme="https"),
        load("https-https", "request", 0.75, c.nginx_https_https, c.haproxy_https_https, keepalive("https"),
             scheme="https"),
        load("h2", "request", 0.65, c.nginx_h2, c.haproxy_h2, h2, scheme="https", connections=16),
        load("tls-handshake-ecdsa", "connection", 0.60, c.nginx_handshake("ec"), c.haproxy_handshake("ec"),
             new_connections(), scheme="https", answer=ok, full_handshakes=True),
        load("tls-handshake-rsa", "connection", 0.80, c.nginx_handshake("rsa"), c.haproxy_handshake("rsa"),
             new_connections(), scheme="https", answer=ok, full_handshakes=True),
        load("preread-passthrough", "connection", 1.0, c.nginx_passthrough, c.haproxy_passthrough, new_connections(),
             scheme="https"),
        load("preread-own-tls", "connection", 0.65, c.nginx_preread_own, c.haproxy_preread_own, new_connections(),
             scheme="https", answer=ok, full_handshakes=True, also_own=True),
        load("stream-1k", "message", 0.95, c.nginx_stream("plain"), c.haproxy_stream("plain"), keepalive("http"),
             alone=keepalive("http", 1), floor="passing"),
        bulk("stream-bulk", 0.45, c.nginx_stream("plain"), c.haproxy_stream("plain", c.SPLICE), download("http")),
        bulk("stream-bulk-passthrough", 0.45, c.nginx_passthrough, c.haproxy_passthrough_bulk, download("https"),
             scheme="https"),
        bulk("http-bulk", 0.45, c.nginx_http, c.haproxy_http_bulk, download("http")),
        bulk("https-bulk", 0.70, c.nginx_https, c.haproxy_https, download("https"), scheme="https"),
        # HAProxy never stores a body first, so it has no counterpart of nginx's default.
        bulk("upload-bulk-http", 0.80, c.nginx_upload, None, upload, answer=(200, 3)),
        bulk("upload-bulk-http-unbuffered", 0.80, c.nginx_upload_unbuffered, c.haproxy_upload, upload, answer=(200, 3)),
        bulk("upload-bulk-stream", 0.80, c.nginx_stream("sink"), c.haproxy_stream("sink", c.SPLICE), upload,
             answer=(200, 3)),
        Row("memory-http", "memory", "connection", 2.0, c.nginx_http, c.haproxy_http),
        Row("memory-https", "memory", "connection", 0.7, c.nginx_https, c.haproxy_https, scheme="https"),
        Row("config-5000", "config", "check", 1.0, c.nginx_5000),
        Row("idle-pss", "idle", "server", 2.0, c.nginx_home_server, c.haproxy_home_server, also_own=True),
        # The client does next to nothing here, so that both processors can be the server's. HAProxy compresses otherwise.
        Row("scaling-gzip", "scaling", "request", 1.7, c.nginx_gzip, None, compressed, answer=(200, PAGE)),
        # wrk takes a processor of its own while it waits for handshakes.
        Row("scaling-handshake", "scaling", "connection", 1.7, c.nginx_handshake("rsa4096"),
            c.haproxy_handshake("rsa4096"), new_connections(), scheme="https", answer=ok, full_handshakes=True, needs_cpus=4),
        Row("scaling-http", "scaling", "request", 1.7, c.nginx_http, c.haproxy_http, keepalive("http"), needs_cpus=4),
    ]


ROWS = _rows()
