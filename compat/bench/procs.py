"""Processes of a run: starting them on a processor, what they used (from /proc), and ending them by pid."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """Something that makes one row's figure for one server impossible; the text says what."""


class Processors:
    """Which processors the measured server and everything else run on."""

    def __init__(self):
        usable = sorted(os.sched_getaffinity(0))
        self.all = set(usable)
        self.pinned = len(usable) > 1
        self.server = {usable[0]} if self.pinned else self.all
        self.clients = set(usable[1:]) if self.pinned else self.all
        try:
            os.sched_setaffinity(0, self.clients)  # children inherit it
        except OSError:
            self.pinned, self.server, self.clients = False, self.all, self.all

    def note(self):
        if not self.pinned:
            return "not pinned: fewer than two processors, or pinning is not permitted; figures are rough"
        return f"servers on processor {sorted(self.server)}, clients and backend on {sorted(self.clients)}"


_given = set()


def free_port():
    """A port of 127.0.0.1 nobody listens on, below the range that outgoing connections take."""
    while True:
        port = random.randrange(12000, 32000)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


def spawn(command, cpus, **kwargs):
    """Starts `command` (a list) on the processors `cpus`."""
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen(command, preexec_fn=lambda: os.sched_setaffinity(0, cpus), **kwargs)


def wait_listening(proc, ports, log):
    """Waits until every port accepts; raises BenchError with the end of `log` if the process ends first."""
    deadline = time.monotonic() + 10
    for port in ports:
        while True:
            if proc.poll() is not None:
                raise BenchError(f"ended with code {proc.returncode} at start: {last_line(log)}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise BenchError(f"does not listen on port {port}: {last_line(log)}") from None
                time.sleep(0.02)


def last_line(path):
    try:
        with open(path, errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
    except OSError:
        return "no log"
    return lines[-1][:300] if lines else "log is empty"


def stop(proc):
    """Ends a process and whatever is left of its tree: TERM, then KILL after five seconds."""
    if proc.poll() is not None:
        return
    pids = tree(proc.pid)
    proc.terminate()
    try:
        proc.wait(5)
        return
    except subprocess.TimeoutExpired:
        pass
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    proc.wait()


# === /proc ===


def _stat(pid):
    """Fields of /proc/PID/stat from the third on (proc(5)), or None if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def tree(pid):
    """The pids of a process and its living descendants."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(entry)):
            children.setdefault(int(stat[1]), []).append(int(entry))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def cpu_us(pid):
    """CPU microseconds of the tree so far: utime + stime, and those of its children already reaped."""
    ticks = 0
    for member in tree(pid):
        if stat := _stat(member):
            ticks += sum(int(field) for field in stat[11:15])
    return ticks * TICK_US


def kernel_us(pid):
    """The part of it that the kernel worked for the tree (stime), in microseconds."""
    stats = filter(None, (_stat(member) for member in tree(pid)))
    return sum(int(stat[12]) + int(stat[14]) for stat in stats) * TICK_US


def processor_us(cpus):
    """Microseconds the processors `cpus` were not idle so far, whoever ran or stole them (proc(5), /proc/stat)."""
    busy = 0
    with open("/proc/stat") as file:
        for line in file:
            name, *ticks = line.split()
            if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in cpus:
                user, nice, system, _idle, _iowait, irq, softirq, steal = (int(t) for t in ticks[:8])
                busy += user + nice + system + irq + softirq + steal
    return busy * TICK_US


def settled_cpu_us(pid):
    """The tree's CPU once it has stopped working (no tick within 60 ms), or after one second."""
    last = cpu_us(pid)
    for _ in range(16):
        time.sleep(0.06)
        now = cpu_us(pid)
        if now == last:
            break
        last = now
    return last


def pss_kib(pid):
    """PSS of the tree in KiB (smaps_rollup), or None if that may not be read."""
    total = 0
    for member in tree(pid):
        try:
            with open(f"/proc/{member}/smaps_rollup") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        except PermissionError:
            return None
        except (OSError, StopIteration):
            continue  # ended meanwhile
    return total


class Slowed:
    """Leaves `share` of the processor to whatever runs there while a `with` block runs (spin.py). BenchError where
    that is not permitted."""

    def __init__(self, processor, share):
        self.argv = [sys.executable, os.path.join(HERE, "spin.py"), str(processor), f"{share:.3f}"]

    def __enter__(self):
        self.proc = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE, text=True)
        if self.proc.stdout.readline().strip() != "ready":
            raise BenchError(f"cannot be slowed: {self.proc.communicate()[1].strip()[-200:]}")

    def __exit__(self, *_):
        self.proc.kill()
        self.proc.communicate()


class Peak:
    """Looks four times a second while a `with` block runs, and keeps the highest of what it saw (None: nothing)."""

    def __init__(self, look):
        self.look, self.peak, self._end = look, None, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self):
        while not self._end.wait(0.25):
            now = self.look()
            if now is not None:
                self.peak = max(self.peak or 0, now)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()
