"""Scripts of backends that speak FastCGI, SCGI or uwsgi: what they received is recorded as parameters and body."""

import struct

from .backends import CLOSE, receive

BEGIN_REQUEST, END_REQUEST, PARAMS, STDIN, STDOUT, STDERR = 1, 3, 4, 5, 6, 7


def record(kind, content=b"", padding=0):
    """A FastCGI record."""
    return struct.pack(">BBHHBB", 1, kind, 1, len(content), padding, 0) + content + bytes(padding)


def stdout(response, size=60000, padding=0):
    """A response as records, without their end."""
    pieces = [response[at:at + size] for at in range(0, len(response), size)]
    return b"".join(record(STDOUT, piece, padding) for piece in pieces)


def end():
    return record(STDOUT) + record(END_REQUEST, bytes(8))


class Reader:
    """Exact numbers of bytes off a connection."""

    def __init__(self, conn):
        self.conn, self.data = conn, b""

    def take(self, size):
        while len(self.data) < size:
            more = receive(self.conn)
            if not more:
                raise ConnectionError("the end of what was sent")
            self.data += more
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def until(self, mark):
        taken = b""
        while not taken.endswith(mark):
            taken += self.take(1)
        return taken[:-len(mark)]


def told(params, body, more=""):
    """What is recorded of a request: parameters by name, since the order of the client's fields is the versions' own."""
    lines = ["%s=%s" % (name.decode("latin-1"), value.decode("latin-1")) for name, value in sorted(params)]
    return ("%s%s\n\n" % (more, "\n".join(lines))).encode("latin-1") + body


def pairs(content):
    """The name-value pairs of FastCGI."""
    found, at = [], 0

    def length():
        nonlocal at
        size = 4 if content[at] & 0x80 else 1
        value = int.from_bytes(content[at:at + size], "big") & 0x7fffffff
        at += size
        return value

    while at < len(content):
        name, value = length(), length()
        found.append((content[at:at + name], content[at + name:at + name + value]))
        at += name + value
    return found


def ask_fastcgi(reader):
    """One request: parameters, body, and whether the connection is to be kept."""
    params, body, keep = b"", b"", False
    while True:
        _, kind, _, length, padding, _ = struct.unpack(">BBHHBB", reader.take(8))
        content = reader.take(length)
        reader.take(padding)
        if kind == BEGIN_REQUEST:
            keep = bool(content[2] & 1)
        elif kind == PARAMS:
            params += content
        elif kind == STDIN and not content:
            return pairs(params), body, keep
        else:
            body += content


def fastcgi(replies):
    """A server that answers by the parameter URI; an answer is bytes of records, CLOSE, or a list of those."""

    def script(conn, note):
        reader = Reader(conn)
        while True:
            params, body, keep = ask_fastcgi(reader)
            note(told(params, body, "keep\n" if keep else ""))
            answer = replies.get(dict(params).get(b"URI", b"").decode("latin-1").split("?")[0])
            if callable(answer):
                answer = answer(params, body)
            if answer is None:
                answer = stdout(b"Content-Type: text/plain\r\n\r\nhello") + end()
            for item in answer if isinstance(answer, list) else [answer]:
                if item is CLOSE:
                    return
                conn.sendall(item)
            if not keep:
                return

    return script


def answered(conn, note, params, body, replies):
    note(told(params, body))
    uri = dict(params).get(b"URI", b"").decode("latin-1").split("?")[0]
    conn.sendall(replies.get(uri, b"Content-Type: text/plain\r\n\r\nhello"))


def scgi(replies):
    """The same for SCGI; answers are bytes."""

    def script(conn, note):
        reader = Reader(conn)
        words = reader.take(int(reader.until(b":"))).split(b"\0")
        reader.take(1)
        params = list(zip(words[0:-1:2], words[1::2]))
        body = reader.take(int(dict(params)[b"CONTENT_LENGTH"]))
        answered(conn, note, params, body, replies)

    return script


def uwsgi(replies):
    """The same for uwsgi; the body's length is taken from the parameter CONTENT_LENGTH."""

    def script(conn, note):
        reader = Reader(conn)
        first, size, second = struct.unpack("<BHB", reader.take(4))
        content, at, words = reader.take(size), 0, []
        while at < len(content):
            length = struct.unpack_from("<H", content, at)[0]
            words.append(content[at + 2:at + 2 + length])
            at += 2 + length
        params = list(zip(words[0::2], words[1::2]))
        body = reader.take(int(dict(params).get(b"CONTENT_LENGTH") or 0))
        params.append((b"(modifiers)", b"%d %d" % (first, second)))
        answered(conn, note, params, body, replies)

    return script
