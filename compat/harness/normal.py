"""Puts what a server showed into comparable lines: only what must differ between two runs is replaced.

Replaced are dates, process and connection numbers, ports the system chose, times, random identifiers, and the server's
own name and version where it signs an answer. A signature changes the length of an error page, so that lengths that
follow from it (Content-Length, the size in the access log) are counted as if nginx had signed.
"""

import email.utils
import hashlib
import re

from . import wire

HTTP_DATE = re.compile(rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")
FOOTER = re.compile(rb"<hr><center>(nginx|nxr)(/[\w.-]+)?</center>")
EPHEMERAL = re.compile(rb"((?:127\.0\.0\.\d+|\[::1\]):)(3[3-9]\d{3}|32[89]\d\d|3276[89]|327[7-9]\d|[456]\d{4})\b")
ERROR_LINE = re.compile(rb"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(\w+)\] \d+#\d+: (\*\d+ )?(.*)$")
PLAIN = [
    (re.compile(rb"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"), b"[TIME]"),
    (re.compile(rb"\b\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}"), b"TIME"),
    (re.compile(rb"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"), b"ISO-TIME"),
    (re.compile(rb"(?<![\d.])\d+\.\d{3}(?![\d.])"), b"SECS"),
    (re.compile(rb"\b[0-9a-f]{32}\b"), b"HEX32"),
    (re.compile(rb"\b0\d{19}\b"), b"BOUNDARY"),
]
#: an error line is cut at 2048 bytes counted with its date and numbers, so that a long run ends here or there
RUN = re.compile(rb"(.)\1{199,}(\.\.\.)?")
#: whether an answer to HEAD is to a page of the server's own, which has no validators, and not to a file
GENERATED = re.compile(rb"^(?!.*\r\n(?:ETag|Last-Modified):).*\r\nContent-Type: text/html\r\n", re.S).match
CLIENT_HELLO = re.compile(rb"^(<incomplete> |PROXY [^\r\n]+\r\n)?\x16\x03[\x00-\x03].*", re.S)
LONG = 3000


class Side:
    """One of the two programs: `name` and `version` as it signs, and how the reference signs."""

    def __init__(self, label, version, reference):
        self.label, self.version, self.reference = label, version, reference
        self.name, self.reference_name = version.split("/")[0], reference.split("/")[0]

    def delta(self, full):
        """How much longer the reference's signature is."""
        return len(self.reference) - len(self.version) if full else len(self.reference_name) - len(self.name)

    def sign(self, text):
        """Replaces this program's name and version in `text` (bytes) by the reference's."""
        text = text.replace(self.version.encode(), self.reference.encode())
        return re.sub(rb"\b%s\b" % re.escape(self.name.encode()), self.reference_name.encode(), text)


class Normaliser:
    """What is known while one case is read: ports of its clients, lengths that a signature changed."""

    def __init__(self, side, prefix, ports=(), client_ports=()):
        self.side, self.prefix = side, prefix.encode()
        self.client_ports = {str(port).encode() for port in client_ports}
        self.lengths = {}

    def text(self, data):
        data = data.replace(self.prefix, b"PREFIX")
        for port in self.client_ports:
            data = re.sub(rb"\b%s\b" % port, b"CLIENT-PORT", data)
        data = EPHEMERAL.sub(rb"\1EPHEMERAL", data)
        for pattern, replacement in PLAIN:
            data = pattern.sub(replacement, data)
        return data

    # --- HTTP/1 -------------------------------------------------------------------------------------------------

    def http(self, data, head=False):
        """The lines of all the responses in `data`."""
        lines = []
        while data:
            parsed, rest = wire.read_response(data, head, eof=True)
            if parsed is None:
                return lines + ["not HTTP/1:"] + show(self.text(data))
            lines += self._response(parsed, head)
            data = rest
        return lines or ["(nothing)"]

    def _response(self, parsed, head):
        body, change = self._body(parsed.status, parsed.body)
        if head and parsed.status >= 300 and GENERATED(parsed.head):
            change = self.side.delta(b"\r\nServer: " + self.side.version.encode() in parsed.head)
        lines = self.head(parsed.head, change)
        if parsed.framing:
            lines.append("body (%s%s):" % (parsed.framing, "" if parsed.complete else ", incomplete"))
            lines += show(self.text(body))
        if parsed.tail:
            lines += ["trailers:"] + show(parsed.tail)
        return lines

    def _body(self, status, body):
        """The body signed by the reference, and by how much that made it longer."""
        match = FOOTER.search(body)
        if not match:
            return body, 0
        signed = body[:match.start()] + self.side.sign(match.group()) + body[match.end():]
        self.lengths[(status, len(body))] = len(signed)
        return signed, len(signed) - len(body)

    def head(self, head, change=0):
        date = wire.header(head, b"date")
        lines = []
        for line in head[:-4].split(b"\r\n"):
            name, sep, value = line.partition(b": ")
            lines.append(name + sep + self._field(name.lower(), value, change, date))
        return [printable(line) for line in lines] + [""]

    def _field(self, name, value, change, date):
        if name == b"date" and HTTP_DATE.fullmatch(value):
            return b"DATE"
        if name == b"server":
            return self.side.sign(value)
        if name == b"content-length" and change and value.isdigit():
            return b"%d" % (int(value) + change)
        if name == b"expires" and date and HTTP_DATE.fullmatch(value) and not value.endswith(b"1970 00:00:01 GMT"):
            offset = seconds(value) - seconds(date)
            return value if abs(offset) > 400 * 86400 else b"DATE%+d" % offset
        return self.text(value)

    # --- HTTP/2, backends, logs ---------------------------------------------------------------------------------

    def h2(self, reader):
        lines = []
        for stream in sorted(reader.streams):
            events = reader.streams[stream]
            body = b"".join(value for kind, value in events if kind == "data")
            fields = next((value for kind, value in events if kind == "headers"), [])
            status = int(dict(fields).get(":status", "0"))
            signed, change = self._body(status, body)
            for kind, value in events:
                if kind == "headers":
                    block = b"\r\n".join(n.encode("latin-1") + b": " + v.encode("latin-1") for n, v in value)
                    lines += ["stream %d headers:" % stream] + self.head(block + b"\r\n\r\n", change)
                elif kind == "data":
                    lines += ["stream %d data:" % stream] + show(self.text(signed if value == body else value))
                else:
                    lines.append("stream %d reset, code %d" % (stream, value))
        if reader.goaway is not None:
            lines.append("goaway, code %d" % reader.goaway)
        return lines or ["(nothing)"]

    def account(self, entries):
        """The lines of a case's account of what the client saw."""
        lines = []
        for kind, *values in entries:
            if kind == "http":
                lines += self.http(*values)
            elif kind == "h2":
                lines += self.h2(values[0])
            elif kind == "raw":
                lines += show(self.text(values[0]))
            else:
                lines.append(self.text(values[0].encode("latin-1", "replace")).decode("latin-1"))
        return lines

    def received(self, records):
        lines = []
        for number, data in records:
            data = CLIENT_HELLO.sub(rb"\1<TLS ClientHello>", data)
            lines.append("---" if number is None else "--- connection %d" % number)
            lines += show(self.text(data))
        return lines

    def access(self, data):
        lines = []
        for line in data.splitlines():
            for (status, size), signed in self.lengths.items():
                if re.search(rb"(?<![\w.])%d(?![\w.])" % status, line):
                    line = re.sub(rb"(?<![^ |\"])%d(?![^ |\"])" % size, b"%d" % signed, line)
            lines.append(printable(self.text(line)))
        return lines

    def errors(self, data, ignore=b"\0"):
        """Error log lines without date and numbers; process chatter ([notice] outside of a connection) is left out."""
        lines = []
        for line in data.splitlines():
            match = ERROR_LINE.match(line)
            if not match:
                lines.append(printable(self.text(line)))
                continue
            level, serial, message = match.groups()
            if ignore in message or level == b"debug" or (level == b"notice" and not serial):
                continue
            lines.append("[%s] %s%s" % (level.decode(), "*N " if serial else "", printable(self.text(RUN.sub(rb"\1...", message)))))
        return lines

    def output(self, data):
        """What a command line said: the program's name before a level, its version, and its prefix are replaced."""
        data = re.sub(rb"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(\w+)\] \d+#\d+:", rb"[\1]", data, flags=re.M)
        data = re.sub(rb"\b%s(?=:| version:)" % self.side.name.encode(), self.side.reference_name.encode(), data)
        data = data.replace(self.side.version.encode(), self.side.reference.encode())
        return show(self.text(data))


def seconds(value):
    return int(email.utils.parsedate_to_datetime(value.decode()).timestamp())


def printable(data):
    return "".join(chr(c) if 32 <= c < 127 else "\\x%02x" % c for c in data)


def show(data):
    """Bytes as lines; long data as its length, its hash and its beginning."""
    if len(data) > LONG:
        return ["%d bytes, SHA-256 %s, beginning %s" % (len(data), hashlib.sha256(data).hexdigest()[:16],
                                                        printable(data[:80]))]
    if not data:
        return []
    lines = data.split(b"\n")
    ends_open = lines[-1] != b""
    out = [printable(line) for line in (lines if ends_open else lines[:-1])]
    if ends_open:
        out[-1] += "<no newline>"
    return out
