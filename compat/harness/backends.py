"""Scripted upstream servers. Each one records the raw bytes it received, per request or per connection."""

import os
import socket
import ssl
import struct
import threading
import time

from . import wire

CLOSE = object()  #: reply item: close the connection in order
RESET = object()  #: reply item: close it with an RST
ECHO = object()   #: reply item: from here on send back what comes, until the peer closes

ACCEPT_TIMEOUT = 0.2
IDLE_TIMEOUT = 10.0


def reply(status, body=b"", *headers, length=True):
    """An HTTP/1.1 response as bytes; `status` is like "200 OK". Without `length` the caller frames the body."""
    body = body.encode("latin-1") if isinstance(body, str) else body
    lines = ["HTTP/1.1 " + status, *headers]
    if length:
        lines.append("Content-Length: %d" % len(body))
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def ok(body=b"", *headers):
    return reply("200 OK", body, *headers)


class Request:
    """What came in: `method`, `uri`, `raw` (bytes as received), `body` (decoded)."""

    def __init__(self, raw, head, body):
        line = head.split(b"\r\n", 1)[0].split(b" ")
        self.raw = raw
        self.body = body
        self.method = line[0].decode("latin-1")
        self.uri = line[1].decode("latin-1") if len(line) > 1 else ""
        self.head = head


class Backend:
    """A listener with one thread per connection.

    kind: "http" answers requests from `replies`, "raw" runs `script(conn, backend)` on the socket, "echo" sends
    everything back, "refused" keeps a port that nobody listens on.
    """

    def __init__(self, name, port, kind="http", replies=None, script=None, tls=None, path=None, conns=False,
                 raw_chunks=False, address="127.0.0.1"):
        self.name, self.port, self.kind = name, port, kind
        self.replies = replies or {}
        self.script = script or (echo if kind == "echo" else None)
        self.tls, self.path, self.address = tls, path, address
        self.show_conns, self.raw_chunks = conns, raw_chunks
        self.lock = threading.Lock()
        self.records, self.conn_ids, self.open = [], {}, set()
        self.serial = 0
        self.listener, self.stopping = None, False

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self):
        if self.path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(self.path)
            os.chmod(self.path, 0o777)
        else:
            self.listener = socket.socket(socket.AF_INET6 if ":" in self.address else socket.AF_INET)
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0 if self.kind == "refused" else 1)
            self.listener.bind((self.address, self.port))
        if self.kind == "refused":
            return
        self.listener.listen(128)
        self.listener.settimeout(ACCEPT_TIMEOUT)
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        self.stopping = True
        self.listener.close()

    def reset(self):
        """Forgets what was recorded; idle kept-alive connections stay."""
        with self.lock:
            self.records, self.conn_ids = [], {}

    def drain(self, timeout=2.0):
        """Waits until the connections of a raw or echoing backend have ended."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            with self.lock:
                if not self.open:
                    return
            time.sleep(0.002)

    def record(self, conn_id, data):
        with self.lock:
            number = self.conn_ids.setdefault(conn_id, len(self.conn_ids) + 1)
            self.records.append((number if self.show_conns else None, data))

    def _accept(self):
        while not self.stopping:
            try:
                conn, _ = self.listener.accept()
            except socket.timeout:
                continue
            except OSError:
                return
            self.serial += 1
            threading.Thread(target=self._serve, args=(conn, self.serial), daemon=True).start()

    def _serve(self, conn, conn_id):
        counted = self.kind != "http"
        if counted:
            with self.lock:
                self.open.add(conn_id)
        try:
            conn.settimeout(IDLE_TIMEOUT)
            if conn.family != socket.AF_UNIX:
                conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                conn = self.tls.wrap_socket(conn, server_side=True)
            if self.script:
                self.script(conn, lambda data: self.record(conn_id, data))
            else:
                self._http(conn, conn_id)
        except (OSError, ssl.SSLError, ValueError):
            pass
        finally:
            close(conn)
            if counted:
                with self.lock:
                    self.open.discard(conn_id)

    # --- HTTP ---------------------------------------------------------------------------------------------------

    def _http(self, conn, conn_id):
        pending = b""
        while True:
            request, pending, rest = self._read_request(conn, pending)
            if request is None:
                if rest:
                    self.record(conn_id, b"<incomplete> " + rest)
                return
            self.record(conn_id, request.raw if self.raw_chunks else wire.flatten_chunks(request.raw))
            if not self._answer(conn, conn_id, request, pending):
                return

    def _read_request(self, conn, data):
        while b"\r\n\r\n" not in data:
            more = receive(conn)
            if not more:
                return None, b"", data
            data += more
        head, data = data.split(b"\r\n\r\n", 1)
        head += b"\r\n\r\n"
        length = wire.header(head, b"content-length")
        if b"chunked" in (wire.header(head, b"transfer-encoding") or b"").lower():
            while True:
                body, used = wire.dechunk(data)
                if used is not None:
                    return Request(head + data[:used], head, body), data[used:], b""
                more = receive(conn)
                if not more:
                    return None, b"", head + data
                data += more
        size = int(length) if length else 0
        while len(data) < size:
            more = receive(conn)
            if not more:
                return None, b"", head + data
            data += more
        return Request(head + data[:size], head, data[:size]), data[size:], b""

    def _answer(self, conn, conn_id, request, pending):
        path = request.uri.split("?", 1)[0]
        spec = self.replies.get(request.uri, self.replies.get(path, self.replies.get("*")))
        if callable(spec):
            spec = spec(request)
        if spec is None:
            spec = ok("" if request.method == "HEAD" else "%s %s\n" % (request.method, request.uri))
        for item in spec if isinstance(spec, (list, tuple)) else [spec]:
            if item is CLOSE:
                return False
            if item is RESET:
                conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            if item is ECHO:
                echo(conn, lambda data: self.record(conn_id, data), pending)
                return False
            if isinstance(item, (int, float)):
                time.sleep(item)
            else:
                conn.sendall(item)
        return b"close" not in (wire.header(request.head, b"connection") or b"").lower()


def receive(conn, size=65536):
    try:
        return conn.recv(size)
    except (ConnectionError, ssl.SSLError, socket.timeout):
        return b""


def close(conn):
    try:
        if isinstance(conn, ssl.SSLSocket):
            conn = conn.unwrap() if conn.version() else conn
    except (OSError, ValueError):
        pass
    try:
        conn.close()
    except OSError:
        pass


def echo(conn, record, data=b""):
    """Sends back what comes and records it whole when the peer has closed."""
    total = data
    if data:
        conn.sendall(data)
    try:
        while True:
            data = receive(conn)
            if not data:
                return
            total += data
            conn.sendall(data)
    finally:
        record(total)


def collect(answer=b"", first=False):
    """A raw script: reads to the end of input (or sends `answer` first), records it, then answers."""

    def script(conn, record):
        if first:
            conn.sendall(answer)
        total = b""
        while True:
            data = receive(conn)
            if not data:
                break
            total += data
        record(total)
        if not first and answer:
            conn.sendall(answer)

    return script


def once(answer, mark=None):
    """A raw script: one read (or all up to `mark`), the answer, then close."""

    def script(conn, record):
        data = receive(conn)
        while mark and mark not in data:
            more = receive(conn)
            if not more:
                break
            data += more
        record(data)
        conn.sendall(answer)

    return script
