"""The load generators: each call drives one server for some seconds and returns a `Load`."""

import os
import re
import subprocess
import threading
import time
from dataclasses import dataclass

from procs import BenchError

HERE = os.path.dirname(os.path.abspath(__file__))
GIB = 1 << 30


@dataclass
class Load:
    """What a load did: units of work, wall seconds, latency in microseconds (None if not known), failed units."""

    units: float
    seconds: float
    p50_us: float | None
    p99_us: float | None
    errors: int


def _run(command, seconds):
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds + 30)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]} did not end in time") from None
    if done.returncode != 0:
        text = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise BenchError(f"{command[0]} ended with code {done.returncode}: {text[:200]}")
    return done.stdout


def wrk(url, seconds, connections=64, close=False, script="report.lua", headers=()):
    """wrk with one thread. `close` makes every request a connection of its own; wrk's latency then starts once
    the connection (and handshake) is there. `script` says what is asked for."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", os.path.join(HERE, script)]
    for header in headers:
        command += ["-H", header]
    if close:
        command += ["-H", "Connection: close"]
    found = re.search(r"^BENCH (.*)$", _run(command + [url], seconds), re.M)
    if not found:
        raise BenchError("wrk printed no summary")
    requests, micros, p50, p99, broken, refused = (float(word) for word in found[1].split())
    if not requests:
        raise BenchError("no request was answered")
    return Load(requests, micros / 1e6, p50, p99, int(broken + refused))


def h2load(url, seconds, scratch, connections=16, streams=16):
    """h2load over HTTP/2; latencies come from its log of requests, written under `scratch`."""
    log = os.path.join(scratch, "h2load.log")
    if os.path.exists(log):
        os.unlink(log)
    out = _run(["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", f"--log-file={log}", url], seconds)
    if "Application protocol: h2" not in out:
        raise BenchError("the server did not negotiate h2")
    counts = {name: int(number) for number, name in re.findall(r"(\d+) (succeeded|failed|errored|timeout|2xx)", out)}
    with open(log) as file:
        times = sorted(int(fields[2]) for fields in map(str.split, file) if fields[1] == "200")
    if not times or not counts.get("2xx"):
        raise BenchError("no request was answered with 200")
    # What is in flight when the time is over counts as failed in h2load.
    lost = max(0, counts["failed"] + counts["timeout"] - connections * streams)
    return Load(counts["2xx"], float(seconds), percentile(times, 50), percentile(times, 99), lost)


def percentile(ordered, percent):
    return float(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)])


def curl_transfers(url, seconds, size, upload=None, parallel=4):
    """Transfers of `size` bytes by `parallel` curls, begun until `seconds` have passed. The unit is a GiB; the
    latency is that of one transfer."""
    command = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code} %{size_download} %{size_upload} %{time_total}"]
    if upload:
        command += ["-T", upload, "-H", "Expect:"]
    times, problems = [], []
    begun = time.monotonic()

    def loop():
        while not problems and time.monotonic() - begun < seconds:
            try:
                done = subprocess.run(command + [url], capture_output=True, text=True, timeout=120)
            except subprocess.TimeoutExpired:
                problems.append("a transfer took more than two minutes")
                return
            code, down, up, took = (done.stdout.split() + [""] * 4)[:4]
            moved = up if upload else down
            if done.returncode != 0 or code != "200" or moved != str(size):
                problems.append(f"a transfer ended with curl's code {done.returncode}, status {code}, {moved} bytes")
                return
            times.append(float(took) * 1e6)

    threads = [threading.Thread(target=loop) for _ in range(parallel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise BenchError(problems[0])
    times.sort()
    return Load(len(times) * size / GIB, time.monotonic() - begun, percentile(times, 50), percentile(times, 99), 0)


def two_over_one(cpus):
    """How much more two of these processors do than one, where nothing stands between them: signatures of openssl.
    Processors that share a core do much less than twice as much."""
    def rate(some):
        runs = [subprocess.Popen(["openssl", "speed", "-seconds", "1", "rsa4096"], text=True, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                 preexec_fn=lambda cpu=cpu: os.sched_setaffinity(0, {cpu})) for cpu in some]
        total = 0.0
        for run in runs:
            out = run.communicate(timeout=60)[0]
            found = re.search(r"^rsa 4096 bits .*?([\d.]+)\s+[\d.]+$", out, re.M)
            if run.returncode or not found:
                raise BenchError("openssl speed printed no rate")
            total += float(found[1])
        return total
    return rate(cpus) / rate(cpus[:1]) if len(cpus) > 1 else 1.0


def probe(url, status, size):
    """One request before a load, so that a server that answers wrongly is not measured for speed."""
    done = subprocess.run(
        ["curl", "-sk", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", url],
        capture_output=True, text=True)
    code, _, got = done.stdout.partition(" ")
    if code != str(status) or (size is not None and got != str(size)):
        raise BenchError(f"probe answered status {code} with {got} bytes (curl's code {done.returncode}), "
                         f"expected {status} with {'any' if size is None else size}")


def probe_full_handshakes(port, scratch):
    """Fails if the server resumes a session: the handshake rows count full handshakes, and wrk would resume."""
    session = os.path.join(scratch, "session.pem")
    if os.path.exists(session):
        os.unlink(session)
    base = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-tls1_3", "-ign_eof"]
    request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    said = ""
    for option in (["-sess_out", session], ["-sess_in", session]):
        if option[0] == "-sess_in" and not os.path.exists(session):
            return  # no ticket was given at all
        try:
            done = subprocess.run(base + option, input=request, capture_output=True, text=True, errors="replace", timeout=10)
        except subprocess.TimeoutExpired:
            raise BenchError("openssl s_client did not end in time") from None
        said = done.stdout
    if "Reused, TLSv1.3" in said:
        raise BenchError("the server resumes TLS sessions though told not to")
    if "New, TLSv1.3" not in said:
        raise BenchError("openssl s_client completed no TLS 1.3 handshake")


class Holder:
    """Idle kept-alive connections held by hold.py."""

    def __init__(self, port, scheme, count):
        import sys
        self.count = count
        self.proc = subprocess.Popen([sys.executable, os.path.join(HERE, "hold.py"), str(port), scheme, str(count)],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def expect(self, word):
        line = self.proc.stdout.readline().split()
        if not line or line[0] != word:
            rest = self.proc.stderr.read().strip().splitlines()
            raise BenchError(f"connections could not be held: {rest[-1][:200] if rest else 'no reason given'}")
        return line

    def go(self):
        self.proc.stdin.write("\n")
        self.proc.stdin.flush()

    def close(self):
        if self.proc.poll() is None:
            self.proc.kill()
        self.proc.communicate()
