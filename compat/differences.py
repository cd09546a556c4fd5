"""Known and justified differences between Debian's nginx and nxr: the only list of exceptions.

An entry names a case and a field of it ("client", "backend NAME", "access.log", "error.log", "exit code", "standard
error") and gives the reason. `sub` is (pattern, replacement): applied to the text nginx gave, it must yield exactly
what nxr gave. Without `sub` the whole field is excused. An entry that no longer explains anything fails the run.
"""

import collections

Difference = collections.namedtuple("Difference", "case field reason sub")
Difference.__new__.__defaults__ = (None,)

BROKEN_PROXY = (r'broken header: "([^\n"]*)\n[^"]*" while', r'broken header: "\1" while')

MALFORMED = "nxr resets a stream whose request is malformed (RFC 9113, section 8.1.1), where nginx answers with 400"

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
    Difference("http2/no path", "client", MALFORMED),
    Difference("http2/no path", "access.log", MALFORMED),
    Difference("http2/no path", "h2.log", MALFORMED),
    Difference("http2/no path", "error.log", MALFORMED),
    Difference("http2/length and body differ", "client", MALFORMED),
    Difference("http2/length and body differ", "access.log", MALFORMED),
    Difference("http2/length and body differ", "error.log", MALFORMED, ("only 5 out", "only 0 out")),
    Difference("tls/garbage on the https port", "client",
               "nxr says why it ends a handshake, with an alert (RFC 8446, section 6.2)"),
]
