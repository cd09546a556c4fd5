"""Rounds: every server of a row is started, then driven in turn; figures are medians over the rounds."""

import functools
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import calls
import confs
import loads
import procs
import rows
from procs import BenchError

SATURATED = 0.85  # of its processor: below it the load, not the server, sets rate and latency
BUSY = 0.95  # below it the load had its part in them
SLOWED_TO = 1 / 3  # of what the least busy server took: what all get then
ERRORS_ALLOWED = 0.001  # share of failed units above which a round does not count as work done


class Server:
    """One program under measurement: nginx, nxr (started exactly like nginx) or haproxy."""

    def __init__(self, name, binary, scratch):
        self.name, self.binary = name, binary
        self.dir = os.path.join(scratch, name)
        self.proc, self.place = None, None
        for part in ("", "logs", "temp"):
            os.makedirs(os.path.join(self.dir, part), exist_ok=True)
        self.as_root = os.geteuid() == 0
        if name == "haproxy":
            self.build = self.version = first_line([binary, "-v"]).replace("HAProxy version ", "")
        else:
            said = subprocess.run([binary, "-V"], capture_output=True, text=True)
            self.build = said.stdout + said.stderr
            self.version = self.build.splitlines()[0].rpartition("/")[2] if self.build else "unknown"
            self.extra = confs.build_lines(self.build, self.as_root)

    @property
    def log(self):
        return os.path.join(self.dir, "logs", "error.log")

    def configure(self, row, place, workers=1):
        """Writes the row's configuration and returns the command that runs it."""
        self.place = place
        if self.name == "haproxy":
            text, name = confs.haproxy_frame(row.haproxy(place), self.as_root, workers), "haproxy.cfg"
            command = [self.binary, "-db", "-f", name]
        else:
            text, name = confs.nginx_frame(self.extra, *row.nginx(place), workers), "nginx.conf"
            command = [self.binary, "-p", self.dir + "/", "-c", name, "-e", "logs/error.log"]
            # nginx takes -c relative to -p (nginx.org/en/docs/switches.html).
        with open(os.path.join(self.dir, name), "w") as file:
            file.write(text)
        return command

    def start(self, row, place, cpus, workers=1):
        command = self.configure(row, place, workers)
        with open(os.path.join(self.dir, "output.log"), "w") as out:
            self.proc = procs.spawn(command, cpus, cwd=self.dir, stdout=out, stderr=subprocess.STDOUT)
        shown = os.path.join(self.dir, "output.log") if self.name == "haproxy" else self.log
        procs.wait_listening(self.proc, [place.front] + [place.own] * row.also_own, shown)

    def stop(self):
        if self.proc:
            procs.stop(self.proc)
            self.proc = None


class Floor(Server):
    """floor.rs: what reading and sending alone cost."""

    def __init__(self, name, binary, scratch):
        self.name, self.binary, self.version = name, binary, "floor.rs"
        self.dir, self.proc, self.place = os.path.join(scratch, name), None, None
        os.makedirs(self.dir, exist_ok=True)

    def configure(self, row, place, workers=1):
        self.place = place
        return [self.binary, row.floor, str(place.front), str(place.plain)]

    @property
    def log(self):
        return os.path.join(self.dir, "output.log")


def first_line(command):
    said = subprocess.run(command, capture_output=True, text=True)
    return (said.stdout + said.stderr).strip().splitlines()[0]


class Bench:
    """A whole run: scratch folder, backend, servers. Use as a context manager; leaving it ends every process."""

    def __init__(self, binaries, rounds, seconds, say, count_calls=False):
        self.binaries, self.rounds, self.seconds, self.say = binaries, rounds, seconds, say
        self.count_calls = count_calls
        self.cpus = procs.Processors()
        self.backend = []

    def __enter__(self):
        self.scratch = tempfile.mkdtemp(prefix="nxr-bench-")
        os.chmod(self.scratch, 0o755)  # workers that gave up root read the backend's file
        try:
            self.certs = os.path.join(self.scratch, "certs")
            confs.make_certificates(self.certs)
            self.bulk = os.path.join(self.scratch, "root", "file", "bulk")
            os.makedirs(os.path.dirname(self.bulk))
            with open(self.bulk, "wb") as file:
                file.truncate(rows.BULK)
            with open(os.path.join(os.path.dirname(self.bulk), "page"), "w") as file:
                file.write(rows.page())
            self.ports = {name: procs.free_port() for name in ("plain", "tls", "sink")}
            kinds = {"floor": Floor}
            self.servers = [kinds.get(name, Server)(name, binary, self.scratch) for name, binary in self.binaries.items()]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            for server in getattr(self, "servers", []):
                server.stop()
            self.stop_backend()
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def place(self):
        return confs.Place(procs.free_port(), procs.free_port(), certs=self.certs, **self.ports)

    # === backend ===

    def start_backend(self):
        if self.backend:
            return
        home = Server("backend", self.binaries["nginx"], self.scratch)
        place = self.place()
        with open(os.path.join(home.dir, "nginx.conf"), "w") as file:
            file.write(confs.nginx_frame(home.extra, confs.backend(place, os.path.join(self.scratch, "root"))))
        command = [home.binary, "-p", home.dir + "/", "-c", "nginx.conf", "-e", "logs/error.log"]
        out = open(os.path.join(home.dir, "output.log"), "w")
        sink = os.path.join(loads.HERE, "sink.py")
        with out:
            for argv in (command, [sys.executable, sink, str(place.sink)]):
                self.backend.append(procs.spawn(argv, self.cpus.clients, stdout=out, stderr=subprocess.STDOUT))
        procs.wait_listening(self.backend[0], [place.plain, place.tls], home.log)
        procs.wait_listening(self.backend[1], [place.sink], os.path.join(home.dir, "output.log"))

    def stop_backend(self):
        for proc in self.backend:
            procs.stop(proc)
        self.backend = []

    # === rows ===

    def run(self, row):
        """Measures one row: {server name: figures, or {"error": text}}."""
        lacks = {"haproxy": not row.haproxy, "floor": not row.floor}
        able = [server for server in self.servers if not lacks.get(server.name)]
        if row.needs_cpus > len(self.cpus.all):
            return {s.name: {"skipped": f"needs {row.needs_cpus} processors"} for s in able}
        if row.kind in ("config", "idle"):
            self.stop_backend()  # a second nginx would share its pages and so halve the first one's PSS
        else:
            self.start_backend()
        once = {"memory": self._held, "config": self._checked, "idle": self._idle, "scaling": self._scaled}
        try:
            samples = self._loaded(row, able) if row.kind == "load" else self._in_turn(row, able, once[row.kind])
            found = {name: some if isinstance(some, dict) else summary(some) for name, some in samples.items()}
            if row.kind == "load":
                self._slowed(row, able, found)
                if self.count_calls:
                    self._called(row, able, found)
        finally:
            for server in able:
                server.stop()
        return found

    def _progress(self, row, number, server, text):
        step = f"round {number + 1}/{self.rounds}" if number >= 0 else "start"
        self.say(f"{row.name}: {step}, {server.name}: {text}")

    def _in_turn(self, row, able, measure):
        """Rounds in which a server runs only while it is measured."""
        samples = {server.name: [] for server in able}
        for number in range(self.rounds):
            for server in able:
                if isinstance(samples[server.name], dict):
                    continue
                try:
                    sample = measure(row, server)
                    samples[server.name].append(sample)
                    self._progress(row, number, server, told(row, sample))
                except BenchError as why:
                    samples[server.name] = {"error": str(why)}
                    self._progress(row, number, server, f"failed: {why}")
                finally:
                    server.stop()
        return samples

    def _loaded(self, row, able):
        """Rounds over servers that all stay up; those not driven are idle and cost nothing."""
        samples = {server.name: [] for server in able}
        for number in range(-2, self.rounds):  # -2 starts and probes, -1 warms
            for server in able:
                if isinstance(samples[server.name], dict):
                    continue
                try:
                    if number == -2:
                        server.start(row, self.place(), self.cpus.server)
                        self._probe(row, server)
                        continue
                    if number == -1:  # only now: PSS depends on who else has the pages
                        server.base_kib = procs.pss_kib(server.proc.pid)
                        row.load(server.place, 1, self.scratch, self.bulk)
                        continue
                    sample = self._driven(row, server)
                    samples[server.name].append(sample)
                    self._progress(row, number, server, told(row, sample))
                except BenchError as why:
                    samples[server.name] = {"error": str(why)}
                    server.stop()
                    self._progress(row, number, server, f"failed: {why}")
        return samples

    def _slowed(self, row, able, found):
        """Where the load was the limit: rounds in which all servers have so little of their processor that they are.
        Adds their rates and latencies to what was found."""
        able = [server for server in able if server.name != "floor" and "busy" in found[server.name]]
        least = min((found[server.name]["busy"] for server in able), default=1.0)
        if least >= BUSY or not self.cpus.pinned:
            return
        share = max(0.07, least * SLOWED_TO)
        samples = {server.name: [] for server in able}
        try:
            with procs.Slowed(*self.cpus.server, share):
                for number in range(self.rounds):
                    for server in able:
                        sample = self._driven(row, server)
                        sample["busy"] /= share
                        samples[server.name].append(sample)
                        self._progress(row, number, server, f"{sample['per_second']:,.1f}/s with {share:.0%} of it")
        except BenchError as why:
            self.say(f"{row.name}: slowed: {why}")
            return
        for name, some in samples.items():
            found[name]["slowed"] = {"share": share, **summary(some)}

    def _called(self, row, able, found):
        """Adds the system calls a unit takes to what was found, under the row's load and with one connection."""
        loaded = [("calls", row.load), ("calls_alone", row.alone)]
        able = [server for server in able if "cost" in found[server.name]]
        try:
            for server, (key, load) in itertools.product(able, loaded if row.alone else loaded[:1]):
                with calls.Calls(server.proc.pid) as called:
                    units = load(server.place, self.seconds, self.scratch, self.bulk).units
                found[server.name][key] = {name: n / units for name, n in called.counts.items()}
        except BenchError as why:
            self.say(f"{row.name}: {why}")

    def _probe(self, row, server):
        if row.answer:
            host = "localhost" if row.scheme == "https" else "127.0.0.1"
            loads.probe(rows.url(server.place, row.scheme, host), *row.answer)
        if row.full_handshakes:
            loads.probe_full_handshakes(server.place.front, self.scratch)

    def _driven(self, row, server):
        pid = server.proc.pid
        before, all_before = procs.settled_cpu_us(pid), procs.processor_us(self.cpus.server)
        kernel_before = procs.kernel_us(pid)
        with procs.Peak(lambda: procs.pss_kib(pid)) as pss:
            load = row.load(server.place, self.seconds, self.scratch, self.bulk)
        foreign = procs.processor_us(self.cpus.server) - all_before
        used = procs.settled_cpu_us(pid) - before
        kernel = procs.kernel_us(pid) - kernel_before
        if server.proc.poll() is not None:
            raise BenchError(f"ended with code {server.proc.returncode} under load")
        if load.errors > ERRORS_ALLOWED * load.units:
            raise BenchError(f"{load.errors} of {load.units:.0f} units failed")
        sample = {"cost": used / load.units, "per_second": load.units / load.seconds, "p50_us": load.p50_us,
                  "p99_us": load.p99_us, "busy": used / 1e6 / load.seconds,
                  "kernel": kernel / load.units,
                  "foreign": max(0, foreign - used) / 1e6 / load.seconds, "errors": load.errors,
                  "peak_kib": pss.peak}
        if pss.peak and server.base_kib:
            sample["connection_kib"] = max(0, pss.peak - server.base_kib) / row.connections
        return sample

    def _held(self, row, server):
        """Memory rows: PSS that HELD idle connections add to a server which has served one."""
        server.start(row, self.place(), self.cpus.server)
        self._probe(row, server)
        holder = loads.Holder(server.place.front, row.scheme, rows.HELD)
        try:
            holder.expect("base")
            base = settled_pss(server.proc.pid)
            holder.go()
            holder.expect("ready")
            full = settled_pss(server.proc.pid)
            holder.go()
            alive = int(holder.expect("alive")[1])
            if alive < rows.HELD:
                raise BenchError(f"closed {rows.HELD + 1 - alive} of {rows.HELD + 1} idle connections")
        finally:
            holder.close()
        return {"cost": (full - base) / rows.HELD, "peak_kib": full, "connection_kib": (full - base) / rows.HELD}

    def _idle(self, row, server):
        place = self.place()
        place.sink = procs.free_port()
        server.start(row, place, self.cpus.server)
        kib = settled_pss(server.proc.pid)
        return {"cost": kib, "peak_kib": kib}

    def _checked(self, row, server):
        command = server.configure(row, self.place()) + ["-t"]
        with open(os.path.join(server.dir, "output.log"), "w") as out:
            proc = procs.spawn(command, self.cpus.server, cwd=server.dir, stdout=out, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(proc.pid, 0)
            proc.returncode = os.waitstatus_to_exitcode(status)
        if proc.returncode:
            raise BenchError(f"-t ended with code {proc.returncode}: "
                             + procs.last_line(os.path.join(server.dir, "output.log")))
        return {"cost": (usage.ru_utime + usage.ru_stime) * 1e6, "peak_kib": usage.ru_maxrss}

    @functools.cached_property
    def ceiling(self):
        """What a second processor of this machine adds, at best."""
        return loads.two_over_one(sorted(self.cpus.all)[:2])

    def _scaled(self, row, server):
        """Units a second with two workers over one. With fewer than four processors all share all of them."""
        roomy = len(self.cpus.all) >= 4
        ordered = sorted(self.cpus.all)
        cpus = set(ordered[:2]) if roomy else self.cpus.all
        mine = set(ordered[2:]) if roomy else self.cpus.all
        rates, load, share = [], None, None
        home = os.sched_getaffinity(0)
        os.sched_setaffinity(0, mine)
        try:
            for workers in (1, 2):
                server.start(row, self.place(), cpus, workers)
                self._probe(row, server)
                look = functools.partial(calls.largest_share, server.proc.pid, server.place.front, row.connections)
                with procs.Peak(look) as share:
                    load = row.load(server.place, self.seconds, self.scratch, self.bulk)
                if load.errors > ERRORS_ALLOWED * load.units:
                    raise BenchError(f"{load.errors} of {load.units:.0f} units failed")
                rates.append(load.units / load.seconds)
                server.stop()
        finally:
            os.sched_setaffinity(0, home)
        return {"cost": rates[1] / rates[0], "per_second": rates[1], "p50_us": load.p50_us, "p99_us": load.p99_us,
                "share": share.peak, "ceiling": self.ceiling}


def settled_pss(pid):
    """PSS once two readings, half a second apart, agree within 16 KiB; the last one after five seconds."""
    last = procs.pss_kib(pid)
    for _ in range(10):
        if last is None:
            raise BenchError("PSS of the server's processes may not be read (run as root)")
        time.sleep(0.5)
        now = procs.pss_kib(pid)
        if now is not None and abs(now - last) <= 16:
            return now
        last = now
    return last


def told(row, sample):
    """A sample in a few words, for progress."""
    unit = {"load": f"us/{row.unit}", "config": "us/check", "memory": "KiB/connection", "idle": "KiB",
            "scaling": "times one worker's rate"}[row.kind]
    rate = f", {sample['per_second']:,.1f}/s" if "per_second" in sample else ""
    return f"{sample['cost']:,.2f} {unit}{rate}"


def summary(samples):
    """Medians over rounds (the peak: its maximum), with the rounds' costs kept for ratios."""
    found = {"costs": [sample["cost"] for sample in samples]}
    for key in samples[0]:
        values = [sample[key] for sample in samples if sample.get(key) is not None]
        if values:
            found[key] = max(values) if key in ("peak_kib", "share") else statistics.median(values)
    found["rates"] = [s["per_second"] for s in samples if "per_second" in s]
    found["p99s"] = [s["p99_us"] for s in samples if s.get("p99_us")]
    return found
