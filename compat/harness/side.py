"""Runs a suite under one program and collects, case by case, everything that could be observed."""

import os
import random
import re
import shutil
import socket
import threading
import time
import traceback

from .backends import Backend
from .client import Timeout
from .normal import Normaliser
from .server import Prefix, Server, user_line
from .suite import CheckSuite, Context

SETTLE = 0.012
#: seconds to wait for log lines that the reference wrote; less once a suite has shown that they do not come
PATIENCE = (2.0, 0.2)
ENOUGH = 4


class Ports:
    """Free ports of five digits below the range from which the system takes client ports."""

    def __init__(self):
        self.lock, self.given, self.next = threading.Lock(), set(), random.randrange(12000, 26000)

    def take(self):
        with self.lock:
            while True:
                self.next = self.next + 1 if self.next < 31900 else 12000
                if self.next in self.given:
                    continue
                try:
                    with socket.socket() as probe:
                        probe.bind(("0.0.0.0", self.next))
                except OSError:
                    continue
                self.given.add(self.next)
                return self.next


def names_in(suite):
    text = " ".join(part or "" for part in (suite.http, suite.stream, suite.main, suite.raw, *map(str, suite.files.values())))
    return sorted(set(re.findall(r"%%(PORT_\d+)%%", text)))


class World:
    """What both runs of a suite share: ports, backends, the prefix's path."""

    def __init__(self, suite, ports, certs, root):
        self.suite, self.certs = suite, certs
        self.prefix = Prefix(os.path.join(root, suite.name.replace("/", "-")))
        self.ports = {name: ports.take() for name in names_in(suite)}
        self.ports["BARRIER"] = ports.take()
        self.values = dict(self.ports, CERTS=certs.dir, PREFIX=self.prefix.path)
        self.backends, self.expected = [], {}
        self.late, self.hung = 0, 0
        for name, options in suite.backends:
            self._add_backend(name, dict(options), ports.take(), root)

    def _add_backend(self, name, options, port, root):
        if isinstance(options.get("tls"), dict):
            options["tls"] = self.certs.server_context(**options["tls"])
        if options.get("path"):
            options["path"] = os.path.join(root, "%s-%s" % (self.suite.name.replace("/", "-"), options["path"]))
        address = options.get("address", "127.0.0.1")
        at = "[%s]:%d" if ":" in address else "%s:%d"
        self.values[name] = "unix:" + options["path"] if options.get("path") else at % (address, port)
        self.values[name + "_PORT"] = port
        self.backends.append(Backend(name, port, **options))

    def fill(self, text):
        return re.sub(r"%%(\w+)%%", lambda match: str(self.values[match.group(1)]), text)


WORLDS = {}
WORLDS_LOCK = threading.Lock()


def run_suite(suite, names, side, ports, certs, root, excused=()):
    """case name -> {field -> lines}. The two sides are called one after the other and share a World.

    excused: (case, field) pairs that are known to differ, so that nobody waits for them.
    """
    program, sign = side
    if isinstance(suite, CheckSuite):
        return run_checks(suite, names, program, sign, root)
    with WORLDS_LOCK:
        first = suite.name not in WORLDS
        if first:
            WORLDS[suite.name] = World(suite, ports, certs, root)
    world = WORLDS[suite.name]
    if first:
        for backend in world.backends:
            backend.start()
    world.prefix.create({name: world.fill(text) if isinstance(text, str) else text
                         for name, text in suite.files.items()})
    world.prefix.write("nginx.conf", world.fill(suite.config(program, user_line())))
    http = suite.http is not None or bool(suite.raw and "http {" in suite.raw)
    server = Server(program, world.prefix, world.ports["BARRIER"], http)
    try:
        server.start()
    except RuntimeError as error:
        said = str(error).splitlines()
        return {name: {"trouble": said if name == names[0] else ["did not start"]} for name in names}
    results = {}
    try:
        for name, function in suite.cases:
            if name in names and world.hung >= ENOUGH:
                results[name] = {"trouble": ["skipped: %d cases before hung" % ENOUGH]}
            elif name in names:
                results[name] = run_case(world, server, sign, function, world.expected.get(name))
    finally:
        results["(exit)"] = finish(world, server, sign)
    if first:
        world.expected = {name: {field: lines for field, lines in fields.items() if (name, field) not in excused}
                          for name, fields in results.items()}
    else:
        for backend in world.backends:
            backend.stop()
    shutil.move(world.prefix.path, "%s.%s%s" % (world.prefix.path, sign.label, ".1" if first else ".2"))
    return results


def run_case(world, server, sign, function, expected):
    """Everything one case showed: client, backends, logs."""
    for backend in world.backends:
        backend.reset()
    before = world.prefix.logs()
    context = Context(world.ports, world.certs, server)
    context.world = world
    trouble = None
    try:
        function(context)
    except Timeout:
        world.hung += 1
        context.note("text", "TIMED OUT waiting for the server")
        trouble = ["timed out waiting for the server"]
    except OSError as error:
        context.note("text", "%s: %s" % (type(error).__name__, error))
        trouble = [repr(error)]
    except Exception:  # a case file's own mistake must not hide the rest of the suite
        trouble = traceback.format_exc().splitlines()
    context.close()
    for backend in world.backends:
        backend.drain()
    server.barrier()
    server.barrier()
    time.sleep(SETTLE)
    end = time.monotonic() + PATIENCE[world.late >= ENOUGH]
    while True:
        fields = collect(world, sign, context, before)
        if expected is None or complete(fields, expected):
            break
        if time.monotonic() > end:
            world.late += 1
            break
        time.sleep(0.02)
    if trouble:
        fields["trouble"] = trouble
    return fields


def collect(world, sign, context, before):
    norm = Normaliser(sign, world.prefix.path, client_ports=context.client_ports)
    fields = {"client": norm.account(context.entries)}
    for backend in world.backends:
        with backend.lock:
            records = list(backend.records)
        if records:
            fields["backend " + backend.name] = norm.received(records)
    for name in sorted(world.prefix.logs()):
        data = world.prefix.read_from(name, before.get(name, 0))
        for pattern, replacement in world.suite.mask:
            data = re.sub(pattern, replacement, data)
        barrier = b":%d" % world.ports["BARRIER"]
        lines = norm.errors(data, barrier) if name.startswith("error") else norm.access(data)
        if lines:
            fields[name] = lines
    return fields


def complete(fields, expected):
    """Whether at least as many log lines and records came as under the reference."""
    return all(len(fields.get(name, ())) >= len(lines) for name, lines in expected.items())


def finish(world, server, sign):
    """Stops the server: its exit code, and what was logged meanwhile above [notice]."""
    before = world.prefix.logs()
    code = server.stop()
    norm = Normaliser(sign, world.prefix.path)
    data = world.prefix.read_from("error.log", before.get("error.log", 0))
    lines = [line for line in norm.errors(data) if not line.startswith(("[info]", "[notice]"))]
    return {"exit code": [str(code)], "error.log": lines}


def run_checks(suite, names, program, sign, root):
    results = {}
    prefix = Prefix(os.path.join(root, suite.name))
    for name, case in suite.cases:
        if name not in names:
            continue
        code, out, err = suite.run(program, prefix, case)
        norm = Normaliser(sign, prefix.path)
        clean = lambda data: norm.output(data.replace(program.temp_paths().encode(), b"TEMP-PATHS")  # noqa: E731
                                         .replace(program.stream_module()[1].encode() or b"\0", b""))
        results[name] = {"exit code": [str(code)], "standard output": clean(out), "standard error": clean(err)}
    return results
