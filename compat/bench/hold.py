"""Opens kept-alive connections, one answered request each, and holds them idle.

    python3 hold.py PORT http|https COUNT

Steps are driven over stdin, one line each: after the first connection it prints `base`, after COUNT more
`ready`, then `alive N` with the number the server has not closed.
"""

import socket
import sys

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def answered(sock):
    """Sends one request and reads its whole answer (Content-Length or chunked)."""
    sock.sendall(REQUEST)
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            raise OSError("closed before the answer's head")
        data += part
    head, body = data.split(b"\r\n\r\n", 1)
    fields = head.lower().split(b"\r\n")
    if not fields[0].startswith(b"http/1.1 200"):
        raise OSError("answered " + fields[0].decode("latin-1"))
    length = next((int(f.split(b":")[1]) for f in fields if f.startswith(b"content-length:")), None)
    while (len(body) < length) if length is not None else (not body.endswith(b"0\r\n\r\n")):
        part = sock.recv(65536)
        if not part:
            raise OSError("closed inside the answer's body")
        body += part


def main():
    port, scheme, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    wrap = lambda sock: sock
    if scheme == "https":
        import ssl  # only here: the plain case must not map OpenSSL's pages

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        wrap = lambda sock: context.wrap_socket(sock, server_hostname="localhost")

    def connection():
        sock = wrap(socket.create_connection(("127.0.0.1", port), timeout=10))
        answered(sock)
        return sock

    held = [connection()]
    print("base", flush=True)
    sys.stdin.readline()
    held += [connection() for _ in range(count)]
    print("ready", flush=True)
    sys.stdin.readline()
    alive = 0
    for sock in held:
        sock.setblocking(False)
        try:
            alive += bool(sock.recv(1))
        except OSError:  # would block: nothing to read, still open
            alive += 1
    print("alive", alive, flush=True)


if __name__ == "__main__":
    main()
