"""Known and justified differences between Debian's nginx and nxr: the only list of exceptions.

An entry names a case and a field of it ("client", "backend NAME", "access.log", "error.log", "exit code", "standard
error") and gives the reason. `sub` is (pattern, replacement): applied to the text nginx gave, it must yield exactly
what nxr gave. Without `sub` the whole field is excused. An entry that no longer explains anything fails the run.
"""

import collections

Difference = collections.namedtuple("Difference", "case field reason sub")
Difference.__new__.__defaults__ = (None,)

BROKEN_PROXY = (r'broken header: "([^\n"]*)\n[^"]*" while', r'broken header: "\1" while')

DIFFERENCES = [
    Difference("proxy/defaults without any proxy_set_header", "backend app",
               "since 1.29.7 Connection: close is not sent by default, and Host comes before the headers that are set",
               (r"X-Set: yes\\x0d\n(Host: \S+)\nConnection: close\\x0d", r"\1\nX-Set: yes\\x0d")),
    Difference("proxy/Proxy-Connection is not passed", "backend app",
               "1.31 has Proxy-Connection among the headers that are not passed on, 1.22 passes it",
               (r"Proxy-Connection: keep-alive\\x0d\n", "")),
    Difference("response/repeated", "up.log",
               "since 1.23.0 $upstream_http_... joins header lines of one name",
               (r'"1"', '"1, 3"')),
    Difference("request/CONNECT", "client",
               "since 1.31.0 a target in authority form is parsed, and the method is what is refused",
               ("400 Bad Request", "405 Not Allowed")),
    Difference("request/CONNECT", "sizes.log", "as for the client", ("400 157 0", "405 157 53")),
    Difference("request/CONNECT", "error.log", "as for the client",
               (r"invalid request while reading client request line(.*)$",
                r'CONNECT method while reading client request headers\1, host: "localhost:80"')),
    Difference("check/keepalive before method", "standard error",
               "since 1.29.7 keepalive is on in every upstream, and its place among the directives does not matter",
               (r".*load balancing method redefined.*\n", "")),
    Difference("stream/proxy_protocol broken", "error.log",
               "since 1.23.2 only the first line of a broken PROXY header is logged", BROKEN_PROXY),
    Difference("access/PROXY protocol v1 broken", "error.log", "as in stream", BROKEN_PROXY),
    Difference("access/PROXY protocol missing", "error.log", "as in stream", BROKEN_PROXY),
    Difference("stream-tls/plain bytes to a TLS port", "t.log",
               "OpenSSL has an object to ask before there is a session: it names the newest version it might have "
               "spoken; rustls has no connection yet", (r"^TLSv1.3 - 500 \"-\" NONE", r'- - 500 "-" -')),
] + [
    Difference("http2/" + case, field,
               "h2 ends such a stream with RST_STREAM (PROTOCOL_ERROR), as RFC 9113, section 8.1.1 has it, before "
               "there is a request; nginx answers 400")
    for case, fields in (("no path", ("client", "access.log", "error.log", "h2.log")),
                         ("length and body differ", ("client", "access.log", "error.log")))
    for field in fields
]
