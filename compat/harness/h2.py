"""A small HTTP/2 client (RFC 9113, RFC 7541): enough to send exact frames and to read what comes back in order."""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PADDED, PRIORITY_FLAG = 8, 0x20

# RFC 7541, Appendix A
STATIC = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""),
    ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""),
    ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""),
    ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""),
    ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""),
    ("server", ""), ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""),
    ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
]

# Code lengths of RFC 7541, Appendix B, for the octets 0 to 255 and EOS. The code is canonical: codes of one length
# follow each other in the order of their octets, so that the lengths say it all.
LENGTHS = [int(x) for x in """
13 23 28 28 28 28 28 28 28 24 30 28 28 30 28 28 28 28 28 28 28 28 30 28 28 28 28 28 28 28 28 28
6 10 10 12 13 6 8 11 10 10 8 11 8 6 6 6 5 5 5 6 6 6 6 6 6 6 7 8 15 6 12 10
13 6 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 8 7 8 13 19 13 14 6
15 5 6 5 6 5 6 6 6 5 7 7 6 6 6 5 6 7 6 5 5 6 7 7 7 7 7 15 11 14 13 28
20 22 20 20 22 22 22 23 22 23 23 23 23 23 24 23 24 24 22 23 24 23 23 23 23 21 22 23 22 23 23 24
22 21 20 22 22 23 23 21 23 22 22 24 21 22 23 23 21 21 22 21 23 22 23 23 20 22 22 22 23 22 22 23
26 26 20 19 22 23 22 25 26 26 26 27 27 26 24 25 19 21 26 27 27 26 27 24 21 21 26 26 28 27 27 27
20 24 20 21 22 21 21 23 22 22 25 25 24 24 26 23 26 27 26 26 27 27 27 27 27 28 27 27 27 27 27 26
30""".split()]


def _codes():
    table, code, last = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(LENGTHS)):
        code <<= length - last
        table[(length, code)] = symbol
        code, last = code + 1, length
    return table


CODES = _codes()


def huffman(data):
    out, code, length = bytearray(), 0, 0
    for byte in data:
        for bit in range(7, -1, -1):
            code, length = code << 1 | (byte >> bit & 1), length + 1
            symbol = CODES.get((length, code))
            if symbol is not None:
                out.append(symbol)
                code = length = 0
    return bytes(out)


class Decoder:
    """HPACK, receiving side."""

    def __init__(self):
        self.dynamic, self.limit = [], 4096

    def decode(self, data):
        """The field lines of a block as (name, value) strings."""
        fields, at = [], 0
        while at < len(data):
            byte = data[at]
            if byte & 0x80:
                index, at = self._integer(data, at, 7)
                fields.append(self._entry(index))
            elif byte & 0xE0 == 0x20:
                self.limit, at = self._integer(data, at, 5)
                self._shrink()
            else:
                index, at = self._integer(data, at, 6 if byte & 0x40 else 4)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, at = self._string(data, at)
                value, at = self._string(data, at)
                fields.append((name, value))
                if byte & 0x40:
                    self.dynamic.insert(0, (name, value))
                    self._shrink()
        return fields

    def _shrink(self):
        while sum(len(n) + len(v) + 32 for n, v in self.dynamic) > self.limit:
            self.dynamic.pop()

    def _entry(self, index):
        return STATIC[index - 1] if index <= 61 else self.dynamic[index - 62]

    @staticmethod
    def _integer(data, at, bits):
        value = data[at] & ((1 << bits) - 1)
        at += 1
        if value == (1 << bits) - 1:
            shift = 0
            while True:
                value += (data[at] & 0x7F) << shift
                shift += 7
                at += 1
                if not data[at - 1] & 0x80:
                    break
        return value, at

    def _string(self, data, at):
        coded = data[at] & 0x80
        size, at = self._integer(data, at, 7)
        raw = data[at:at + size]
        return (huffman(raw) if coded else raw).decode("latin-1"), at + size


def integer(value, bits):
    top = (1 << bits) - 1
    if value < top:
        return bytes([value])
    out, value = bytearray([top]), value - top
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(fields):
    """A block of literals without indexing, not Huffman coded."""
    out = b""
    for name, value in fields:
        name, value = name.encode("latin-1"), value.encode("latin-1")
        out += b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value
    return out


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def opening():
    """Preface, SETTINGS with a large stream window, and as large a connection window."""
    settings = struct.pack(">HI", 4, 0x7FFFFFFF)
    return PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7FFF0000))


class Reader:
    """Takes bytes in; gives answers to send back and a readable account of each stream."""

    def __init__(self):
        self.data, self.decoder = b"", Decoder()
        self.streams, self.done, self.goaway = {}, set(), None
        self.block = b""

    def feed(self, data):
        """Returns bytes that must be sent (acknowledgements)."""
        self.data += data
        answer = b""
        while len(self.data) >= 9:
            size = int.from_bytes(self.data[:3], "big")
            if len(self.data) < 9 + size:
                break
            kind, flags = self.data[3], self.data[4]
            stream = int.from_bytes(self.data[5:9], "big") & 0x7FFFFFFF
            payload, self.data = self.data[9:9 + size], self.data[9 + size:]
            answer += self._frame(kind, flags, stream, payload)
        return answer

    def _frame(self, kind, flags, stream, payload):
        if kind == SETTINGS and not flags & ACK:
            return frame(SETTINGS, ACK, 0)
        if kind == PING and not flags & ACK:
            return frame(PING, ACK, 0, payload)
        if kind == GOAWAY:
            self.goaway = int.from_bytes(payload[4:8], "big")
        if kind in (HEADERS, DATA) and flags & PADDED:
            payload = payload[1:len(payload) - payload[0]]
        if kind == HEADERS and flags & PRIORITY_FLAG:
            payload = payload[5:]
        events = self.streams.setdefault(stream, []) if stream else []
        if kind in (HEADERS, CONTINUATION):
            self.block += payload
            if flags & END_HEADERS:
                events.append(("headers", self.decoder.decode(self.block)))
                self.block = b""
        elif kind == DATA:
            if events and events[-1][0] == "data":
                events[-1] = ("data", events[-1][1] + payload)
            elif payload:
                events.append(("data", payload))
        elif kind == RST_STREAM:
            events.append(("reset", int.from_bytes(payload[:4], "big")))
            self.done.add(stream)
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.done.add(stream)
        return b""
