"""What the threads of a server do while they are driven: their system calls, and which connections each has."""

import os
import signal
import subprocess
import tempfile

from procs import BenchError, tree

ESTABLISHED = "01"  # in /proc/net/tcp (proc(5))


class Calls:
    """Counts the system calls of a tree by name while a `with` block runs (strace -c, under which it is slower)."""

    def __init__(self, pid):
        self.pids, self.counts = tree(pid), {}

    def __enter__(self):
        self._table = tempfile.NamedTemporaryFile("r")
        command = ["strace", "-c", "-f", "-o", self._table.name, *(f"-p{pid}" for pid in self.pids)]
        self._strace = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in self.pids:
            said = self._strace.stderr.readline()
            if "attached" not in said:
                self._strace.kill()
                self._strace.communicate()
                raise BenchError(f"system calls cannot be counted: {said.strip()[-200:]}")
        return self

    def __exit__(self, *_):
        self._strace.send_signal(signal.SIGINT)
        self._strace.communicate()
        with self._table as table:
            self.counts = counted(table.read())


def counted(table):
    """{name: calls} of what strace -c wrote."""
    lines = [line.split() for line in table.splitlines()]
    found = {line[-1]: int(line[3]) for line in lines if len(line) >= 5 and line[3].isdigit()}
    found.pop("total", None)
    return found


def largest_share(pid, port, least):
    """The part of a tree's connections to `port` that one of its threads has at most, by what their epoll instances
    watch; None while there are fewer than `least`."""
    inodes = _connections(port)
    counts = [count for member in tree(pid) for count in _watched(member, inodes)]
    return max(counts) / sum(counts) if sum(counts) >= least else None


def _connections(port):
    """The inodes of established connections whose own port is `port`."""
    with open("/proc/net/tcp") as file:
        lines = [line.split() for line in file]
    return {line[9] for line in lines[1:] if line[3] == ESTABLISHED and int(line[1].rpartition(":")[2], 16) == port}


def _watched(pid, inodes):
    """How many of the sockets each epoll instance of a process watches (proc(5), fdinfo)."""
    sets = set()  # one instance may have several descriptors
    try:
        links = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        for instance in (fd for fd, link in links.items() if link == "anon_inode:[eventpoll]"):
            with open(f"/proc/{pid}/fdinfo/{instance}") as file:
                sets.add(frozenset(line.split()[1] for line in file if line.startswith("tfd:")))
    except OSError:
        return []  # ended, or closed something meanwhile
    return [sum(links.get(fd, "")[len("socket:["):-1] in inodes for fd in watched) for watched in sets]
