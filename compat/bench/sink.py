"""An HTTP/1.1 backend that swallows uploads and answers `200`, kept alive.

    python3 sink.py PORT

Bodies are dropped in the kernel (MSG_TRUNC) so that reading them costs the other processor next to nothing.
Only bodies with Content-Length are taken; anything else is answered `411`.
"""

import socket
import sys
import threading

CHUNK = 4 << 20
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
LENGTH_REQUIRED = b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def serve(sock):
    with sock:
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                part = sock.recv(16384)
                if not part:
                    return
                pending += part
            head, pending = pending.split(b"\r\n\r\n", 1)
            fields = [f.partition(b":") for f in head.lower().split(b"\r\n")[1:]]
            length = next((int(v) for n, _, v in fields if n == b"content-length"), None)
            if any(n == b"transfer-encoding" for n, _, _ in fields):
                sock.sendall(LENGTH_REQUIRED)
                return
            left = (length or 0) - len(pending)
            pending = pending[len(pending) + left:] if left < 0 else b""
            while left > 0:
                # With MSG_TRUNC, TCP returns the count and copies nothing (tcp(7)).
                got = len(sock.recv(min(left, CHUNK), socket.MSG_TRUNC))
                if not got:
                    return
                left -= got
            sock.sendall(OK)


def guarded(sock):
    try:
        serve(sock)
    except OSError:
        pass  # a client that went away ends its own connection only


def main():
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=512)
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=guarded, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main()
