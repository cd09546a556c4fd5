"""What case files are written with: a Suite is one configuration, a case is what clients do with it."""

import os
import re
import subprocess
import time

from .client import Conn

#: all suites of the case files, in the order they were read
REGISTRY = []


class Suite:
    """One configuration and its cases.

    http, stream: the inside of these blocks. main: directives on top. files: path below the prefix -> content.
    Placeholders: %%PORT_n%% free ports, %%NAME%% address of backend NAME, %%NAME_PORT%% its port, %%CERTS%% the
    directory of certificates, %%PREFIX%% the server's prefix. mask: (pattern, replacement) of bytes for what this suite
    cannot compare in logs.
    """

    def __init__(self, name, http=None, stream=None, main="", files=None, raw=None, mask=()):
        self.name, self.http, self.stream, self.main, self.raw = name, http, stream, main, raw
        self.files, self.mask = files or {}, mask
        self.backends, self.cases = [], []
        REGISTRY.append(self)

    # --- writing cases ------------------------------------------------------------------------------------------

    def backend(self, name, replies=None, **options):
        """Declares an upstream server: see backends.Backend; `tls` and `path` may be names of files."""
        self.backends.append((name, dict(options, replies=replies)))

    def case(self, name):
        """Decorator: the function gets a Context and says what the clients do."""

        def add(function):
            self.cases.append((name, function))
            return function

        return add

    def get(self, name, uri="/", *headers, **options):
        """A request with Connection: close, read to the end. Options: those of request() and Context.connect()."""
        names = ("method", "host", "version", "body")
        data = request(uri, *headers, **{key: options.pop(key) for key in names if key in options})
        self.cases.append((name, lambda c: c.exchange(data, head=data.startswith(b"HEAD "), **options)))

    def raw_case(self, name, data, **options):
        """Exact bytes, then reading until the server closes."""
        self.cases.append((name, lambda c: c.exchange(data, **options)))

    def tcp(self, name, data=b"", **options):
        """For stream: bytes, the half-close, and all that comes back as it is."""

        def run(c):
            conn = c.connect(**options).send(data)
            if "tls" not in options:
                conn.half_close()
            conn.all_raw()

        self.cases.append((name, run))

    # --- building the configuration -----------------------------------------------------------------------------

    def config(self, program, user):
        """The text of nginx.conf for `program`, placeholders in place."""
        load = program.stream_module()[1] if self.stream is not None or self.raw else ""
        first = "%s%sworker_processes 1; pid nginx.pid; error_log logs/error.log info;" % (load, user)
        text = "%s\nevents { worker_connections 256; }\n%s\n" % (first, self.main)
        if self.raw:
            return text + self.raw.replace("http {", "http { " + program.temp_paths() + HTTP_BARRIER, 1)
        if self.http is not None:
            text += "http {\n%s\naccess_log logs/access.log;\n%s\n%s\n%s\n}\n" % (
                program.temp_paths(), HTTP_COMMON, self.http, HTTP_BARRIER)
        if self.stream is not None:
            text += "stream {\n%s\n%s\n}\n" % (self.stream, STREAM_BARRIER if self.http is None else "")
        return text


#: Said in every suite because 1.22 and 1.31 have different defaults here; lists are replaced by a block that has its own.
HTTP_COMMON = """proxy_http_version 1.1; proxy_set_header Host $proxy_host; proxy_set_header Connection "";
ssl_protocols TLSv1.2 TLSv1.3;"""
HTTP_BARRIER = "server { listen 127.0.0.1:%%BARRIER%%; access_log off; return 204; }"
STREAM_BARRIER = "server { listen 127.0.0.1:%%BARRIER%%; access_log off; return ready; }"


def request(uri="/", *headers, method="GET", host="localhost", version="1.1", body=b""):
    """The bytes of a request with Host, Connection: close, the headers given, and Content-Length for a body."""
    body = body.encode("latin-1") if isinstance(body, str) else body
    lines = ["%s %s HTTP/%s" % (method, uri, version)]
    if host is not None:
        lines.append("Host: " + host)
    lines += ["Connection: close", *headers]
    if body:
        lines.append("Content-Length: %d" % len(body))
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class Context:
    """What a case works with, on one of the two sides."""

    def __init__(self, ports, certs, server):
        self.ports, self.certs, self.server = ports, certs, server
        self.entries, self.conns, self.client_ports = [], [], []

    def note(self, kind, *values):
        self.entries.append((kind, *values))

    def connect(self, port=0, tls=None, sni=None, **options):
        """A client.Conn to %%PORT_n%%; tls: True or options of Certs.client_context()."""
        context = None
        if tls:
            context = self.certs.client_context(**(tls if isinstance(tls, dict) else {}))
        conn = Conn(self.note, self.ports["PORT_%d" % port], tls=context, sni=sni, **options)
        self.conns.append(conn)
        if conn.local_port:
            self.client_ports.append(conn.local_port)
        return conn

    def exchange(self, data, head=False, half_close=False, cut=None, pause=0.0, **options):
        conn = self.connect(**options).send(data, cut, pause)
        if half_close:
            conn.half_close()
        conn.all(head)
        conn.close()
        return conn

    def send(self, uri="/", *headers, **options):
        """request() and exchange() in one."""
        names = ("method", "host", "version", "body")
        data = request(uri, *headers, **{key: options.pop(key) for key in names if key in options})
        return self.exchange(data, head=data.startswith(b"HEAD "), **options)

    def quietly(self, uri="/", port=0):
        """A request that is not part of the account; its response's body, or b""."""
        conn = Conn(lambda *_: None, self.ports["PORT_%d" % port])
        try:
            parsed = conn.send(request(uri)).response()
            return parsed.body if parsed else b""
        finally:
            conn.close()

    def wait_until(self, condition, seconds=5.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if condition():
                    return
            except OSError:
                pass
            time.sleep(0.01)
        self.note("text", "waited in vain")

    def wait_steadily(self, condition, hold=0.3, seconds=8.0):
        """Waits until `condition` has held for `hold` seconds: after a reload two workers accept side by side a while."""
        end, since = time.monotonic() + seconds, None
        while time.monotonic() < end:
            try:
                good = condition()
            except OSError:
                good = False
            since = (since or time.monotonic()) if good else None
            if since and time.monotonic() - since >= hold:
                return
            time.sleep(0.01)
        self.note("text", "waited in vain")

    def command(self, *args):
        """Runs the program again in the same prefix and notes its exit code (its words go to "said")."""
        done = subprocess.run(self.server.command(*args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=10, check=False)
        self.note("text", "%s: exit code %d" % (" ".join(args), done.returncode))
        return done.stdout

    def close(self):
        for conn in self.conns:
            conn.close()


class CheckSuite:
    """Cases of the command line: nothing is served; exit code and output are compared."""

    def __init__(self, name):
        self.name, self.cases = name, []
        REGISTRY.append(self)

    def conf(self, name, text, files=None, args=("-t",)):
        """`-t` on this configuration, whose first line follows one line of the harness."""
        self.cases.append((name, (text, files or {}, list(args), True)))

    def args(self, name, *args, conf="events { }\n"):
        """These arguments alone, in a prefix with `conf` in nginx.conf."""
        self.cases.append((name, (conf, {}, list(args), False)))

    @staticmethod
    def run(program, prefix, case):
        """(exit code, standard output and standard error) of one case."""
        text, files, args, check = case
        prefix.create(files)
        stream = re.search(r"^\s*stream\b", text, re.M)
        first = "pid nginx.pid; error_log logs/error.log;"
        if check and stream:
            first = program.stream_module()[1] + first
        text = re.sub(r"^http \{", "http { " + program.temp_paths(), text, count=1, flags=re.M)
        prefix.write("nginx.conf", (first + "\n" + text) if check else text)
        command = [program.path, "-p", prefix.path + "/"]
        if check:
            command += ["-c", "nginx.conf", "-e", "logs/error.log"]
        done = subprocess.run(command + args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=20, check=False, cwd=os.path.dirname(prefix.path))
        return done.returncode, done.stdout, done.stderr
