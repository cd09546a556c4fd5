"""The client's side: connections that send exact bytes and note all that comes back."""

import socket
import ssl
import time

from . import h2, wire

TIMEOUT = 6.0


class Timeout(Exception):
    """The server said less than the case waits for."""


class Conn:
    """One client connection of a case. What it reads goes to the case's account through `note(kind, ...)`."""

    def __init__(self, note, port, source=None, tls=None, sni=None, path=None, prefix=b"", first_flight=None,
                 address="127.0.0.1"):
        self.note = note
        self.pending, self.eof = b"", False
        if path:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(path)
            self.local_port = None
        else:
            self.sock = socket.create_connection((address, port), TIMEOUT,
                                                 source_address=(source, 0) if source else None)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.local_port = self.sock.getsockname()[1]
        self.sock.settimeout(TIMEOUT)
        if prefix:
            self.sock.sendall(prefix)
        self.tls_error = None
        if tls is not None:
            self._handshake(tls, sni, first_flight)

    def _handshake(self, context, sni, first_flight):
        try:
            if first_flight:
                self.sock = BioTls(self.sock, context, sni, first_flight)
            else:
                self.sock = context.wrap_socket(self.sock, server_hostname=sni)
            cert = self.sock.getpeercert()
            name = dict(pair[0] for pair in cert["subject"])["commonName"]
            self.note("text", "TLS: certificate %s, ALPN %s" % (name, self.sock.selected_alpn_protocol()))
        except ssl.SSLError as error:
            self.tls_error = error.reason or str(error)
            self.note("text", "TLS: handshake failed: " + self.tls_error)
        except (ConnectionError, OSError) as error:
            self.tls_error = type(error).__name__
            self.note("text", "TLS: handshake failed: connection closed")

    # --- sending ------------------------------------------------------------------------------------------------

    def send(self, data, cut=None, pause=0.0):
        """Sends `data`, whole or in pieces of `cut` bytes with a pause after each."""
        if self.tls_error:
            return self
        try:
            for at in range(0, len(data), cut or max(len(data), 1)):
                self.sock.sendall(data[at:at + (cut or len(data))])
                if pause:
                    time.sleep(pause)
        except (ConnectionError, ssl.SSLError):
            pass
        return self

    def half_close(self):
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:  # the server was quicker
            pass
        return self

    # --- reading ------------------------------------------------------------------------------------------------

    def _more(self):
        try:
            data = self.sock.recv(65536)
        except socket.timeout:
            raise Timeout() from None
        except ssl.SSLError as error:
            self.note("text", "TLS: " + (error.reason or str(error)))
            data = b""
        except ConnectionError:  # RST or FIN: what the peer leaves unread decides, often by chance
            data = b""
        self.eof = not data
        self.pending += data
        return bool(data)

    def all(self, head=False):
        """Reads until the server closes and notes it as HTTP."""
        if not self.tls_error:
            try:
                while not self.eof:
                    self._more()
            except Timeout:
                self.note("http", self.pending, head)
                self.pending = b""
                raise
            self.note("http", self.pending, head)
            self.pending = b""
        return self

    def all_raw(self):
        """Reads until the server closes and notes the bytes as they are."""
        if not self.tls_error:
            while not self.eof:
                self._more()
            self.note("raw", self.pending)
            self.pending = b""
        return self

    def response(self, head=False):
        """Reads one response, notes it, and gives it back."""
        while not self.tls_error:
            parsed, rest = wire.read_response(self.pending, head, self.eof)
            if parsed or self.eof:
                self.note("http", self.pending[:len(self.pending) - len(rest)] if parsed else self.pending, head)
                self.pending = rest if parsed else b""
                return parsed
            self._more()
        return None

    def exactly(self, size):
        """Reads `size` bytes and notes them raw."""
        while len(self.pending) < size and not self.eof and not self.tls_error:
            self._more()
        self.note("raw", self.pending[:size])
        self.pending = self.pending[size:]
        return self

    def until(self, mark):
        """Reads until `mark` has come and notes what came, raw."""
        while mark not in self.pending and not self.eof and not self.tls_error:
            self._more()
        end = self.pending.find(mark) + len(mark) if mark in self.pending else len(self.pending)
        self.note("raw", self.pending[:end])
        self.pending = self.pending[end:]
        return self

    def close(self):
        try:
            self.sock.close()
        except OSError:
            pass

    # --- HTTP/2 -------------------------------------------------------------------------------------------------

    def h2(self, *requests, extra=b""):
        """Sends the requests, each (fields, body bytes, trailers or None), at once and reads all answers."""
        if self.tls_error:
            return self
        out, wanted = h2.opening(), set()
        for number, (fields, body, trailers) in enumerate(requests):
            stream = 2 * number + 1
            wanted.add(stream)
            ends = not body and not trailers
            out += h2.frame(h2.HEADERS, h2.END_HEADERS | (h2.END_STREAM if ends else 0), stream, h2.encode(fields))
            for at in range(0, len(body), 16384):
                last = at + 16384 >= len(body) and not trailers
                out += h2.frame(h2.DATA, h2.END_STREAM if last else 0, stream, body[at:at + 16384])
            if trailers:
                out += h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, h2.encode(trailers))
        self.send(out + extra)
        reader = h2.Reader()
        while not wanted <= reader.done and reader.goaway is None and not self.eof:
            self._more()
            self.send(reader.feed(self.pending))
            self.pending = b""
        self.note("h2", reader)
        return self


class BioTls:
    """TLS over memory buffers, so that the first flight can be cut: `first_flight(bytes)` gives the pieces to send."""

    def __init__(self, sock, context, sni, first_flight):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=sni)
        first = True
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                flight = self.outgoing.read()
                for piece in first_flight(flight) if first else [flight]:
                    sock.sendall(piece)
                    if first:
                        time.sleep(0.002)
                first = False
                self._fill()
        self._flush()

    def _fill(self):
        data = self.sock.recv(65536)
        if not data:
            self.incoming.write_eof()
        self.incoming.write(data)

    def _flush(self):
        data = self.outgoing.read()
        if data:
            self.sock.sendall(data)

    def getpeercert(self):
        return self.tls.getpeercert()

    def selected_alpn_protocol(self):
        return self.tls.selected_alpn_protocol()

    def sendall(self, data):
        self.tls.write(data)
        self._flush()

    def recv(self, size):
        while True:
            try:
                return self.tls.read(size)
            except ssl.SSLWantReadError:
                self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def shutdown(self, how):
        self.sock.shutdown(how)

    def close(self):
        self.sock.close()


def client_hello(context, sni):
    """The bytes of a ClientHello, as one TLS record."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=sni)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def in_records(count):
    """A cutter for first flights: the same handshake message over `count` TLS records (RFC 8446, section 5.1)."""

    def cut(flight):
        body, version = flight[5:5 + int.from_bytes(flight[3:5], "big")], flight[1:3]
        step = -(-len(body) // count)
        parts = [body[at:at + step] for at in range(0, len(body), step)]
        return [b"\x16" + version + len(part).to_bytes(2, "big") + part for part in parts]

    return cut


def in_bytes(step=1):
    """A cutter for first flights: `step` bytes at a time."""
    return lambda flight: [flight[at:at + step] for at in range(0, len(flight), step)]
