"""Reading HTTP/1 messages out of bytes (RFC 9112), for what both sides of the proxy show."""

import re


def header(head, name):
    """The first value of header `name` (lower case) in a message head, or None."""
    for line in head.split(b"\r\n")[1:]:
        key, sep, value = line.partition(b":")
        if sep and key.lower() == name:
            return value.strip()
    return None


def dechunk(data):
    """(body, bytes used), or (None, None) when the chunked body is not complete; ValueError when malformed."""
    body, at = b"", 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None, None
        match = re.match(rb"[0-9a-fA-F]+", data[at:end])
        if not match:
            raise ValueError("bad chunk size")
        size = int(match.group(), 16)
        at = end + 2
        if size == 0:
            while True:
                end = data.find(b"\r\n", at)
                if end < 0:
                    return None, None
                if end == at:
                    return body, at + 2
                at = end + 2
        if len(data) < at + size + 2:
            return None, None
        body += data[at:at + size]
        at += size + 2


def trailers(data):
    """The trailer lines of a complete chunked body."""
    match = re.search(rb"(?:^|\r\n)0+\r\n((?:[^\r\n]+\r\n)+)\r\n$", data)
    return match.group(1) if match else b""


def flatten_chunks(message):
    """A message whose chunked body, if any, is shown decoded: how a body was cut is not part of its meaning."""
    head, sep, rest = message.partition(b"\r\n\r\n")
    if not sep or b"chunked" not in (header(head, b"transfer-encoding") or b"").lower():
        return message
    try:
        body, used = dechunk(rest)
    except ValueError:
        return message
    if used is None:
        return message
    return head + sep + b"<chunked>" + body + b"<end>" + trailers(rest[:used]) + rest[used:]


class Response:
    """One response: `head` bytes with the empty line, `body` decoded, `framing` "", "chunked", "length" or "close"."""

    def __init__(self, head, body, framing, tail=b"", complete=True):
        self.head, self.body, self.framing, self.tail, self.complete = head, body, framing, tail, complete
        match = re.match(rb"HTTP/1\.[01] (\d{3})", head)
        self.status = int(match.group(1)) if match else 0


def read_response(data, head_only=False, eof=False):
    """(Response, rest) or (None, data) when more bytes are needed. Interim (1xx but 101) ones come alone."""
    if not data.startswith(b"HTTP/1."):
        return None, data
    head, sep, rest = data.partition(b"\r\n\r\n")
    if not sep:
        return None, data
    head += sep
    match = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    status = int(match.group(1)) if match else 0
    if 100 <= status < 200 or status in (204, 304) or head_only:
        return Response(head, b"", ""), rest
    if b"chunked" in (header(head, b"transfer-encoding") or b"").lower():
        try:
            body, used = dechunk(rest)
        except ValueError:
            return (Response(head, rest, "broken", complete=False), b"") if eof else (None, data)
        if used is None:
            return (Response(head, rest, "cut", complete=False), b"") if eof else (None, data)
        return Response(head, body, "chunked", trailers(rest[:used])), rest[used:]
    length = header(head, b"content-length")
    if length is not None and length.isdigit():
        if len(rest) < int(length):
            return (Response(head, rest, "cut", complete=False), b"") if eof else (None, data)
        return Response(head, rest[:int(length)], "length"), rest[int(length):]
    return (Response(head, rest, "close"), b"") if eof else (None, data)
