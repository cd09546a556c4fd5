"""The command: finds both programs, runs every suite under each, compares, reports."""

import argparse
import concurrent.futures
import difflib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from . import suite as dsl
from .certs import Certs
from .normal import Side
from .server import Program
from .side import Ports, run_suite

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGES = ["nginx-core", "libnginx-mod-stream", "openssl"]
MISSING = """compat: %s
compat: on Debian: apt-get install %s
compat: or, as root, run this command with --install""" % ("%s", " ".join(PACKAGES))


def arguments():
    parser = argparse.ArgumentParser(prog="compat/run", description=__doc__)
    parser.add_argument("--nxr", metavar="PATH", help="the newest of target/release/nxr and target/debug/nxr unless given")
    parser.add_argument("--nginx", metavar="PATH", help="nginx from PATH or /usr/sbin unless given")
    parser.add_argument("--only", metavar="REGEX", help="only cases whose suite/name matches")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="suites at once (4)")
    parser.add_argument("--self", action="store_true", help="nginx against nginx: proves the cases themselves")
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    parser.add_argument("--install", action="store_true", help="install what is missing with apt-get (root)")
    parser.add_argument("--keep", action="store_true", help="keep the directory with configurations and logs")
    parser.add_argument("-v", "--verbose", action="store_true", help="print what nginx gave in each case")
    return parser.parse_args()


def load_cases():
    for name in sorted(os.listdir(os.path.join(HERE, "cases"))):
        if name.endswith(".py"):
            path = os.path.join(HERE, "cases", name)
            spec = importlib.util.spec_from_file_location("compat_case_" + name[:-3], path)
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
    seen = set()
    for one in dsl.REGISTRY:
        for name, _ in one.cases:
            if (one.name, name) in seen:
                raise SystemExit("compat: two cases are called %s/%s" % (one.name, name))
            seen.add((one.name, name))


def find_nginx(options):
    """The reference Program, its stream module and openssl; installs or says what is missing."""
    for attempt in (1, 2):
        path = options.nginx or shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        problem = None
        program = None
        if not path or not os.access(path, os.X_OK):
            problem = "nginx is missing" if not options.nginx else "%s cannot be run" % options.nginx
        elif not shutil.which("openssl"):
            problem = "the openssl command is missing"
        else:
            program = Program(path, "nginx")
            if not program.stream_module()[0]:
                problem = "nginx's stream module is missing (ngx_stream_module.so)"
        if not problem:
            return program
        if attempt == 1 and options.install:
            if os.geteuid() != 0:
                raise SystemExit("compat: --install needs root")
            environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
            subprocess.run(["apt-get", "update", "-q"], env=environment, check=False)
            subprocess.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *PACKAGES],
                           env=environment, check=False)
            continue
        print(MISSING % problem, file=sys.stderr)
        raise SystemExit(2)
    raise SystemExit(2)


def find_nxr(options):
    path = options.nxr
    if not path:
        target = os.path.join(os.path.dirname(HERE), "target")
        built = [os.path.join(target, kind, "nxr") for kind in ("release", "debug")]
        built = [one for one in built if os.path.exists(one)]
        if not built:
            raise SystemExit("compat: no nxr in target/release or target/debug: cargo build, or --nxr PATH")
        path = max(built, key=os.path.getmtime)
    return Program(path, "nxr")


def full_name(suite, name):
    return "%s/%s" % (suite.name, name.lstrip("/") or "/")


def load_differences():
    spec = importlib.util.spec_from_file_location("compat_differences", os.path.join(HERE, "differences.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.DIFFERENCES


def excused(difference, want, got):
    """Whether a listed difference explains what was seen."""
    if difference.sub is None:
        return True
    pattern, replacement = difference.sub
    return re.sub(pattern, replacement, "\n".join(want)) == "\n".join(got)


def compare(name, reference, subject, differences, used):
    """The report of one case: a list of lines, empty when all is equal or excused."""
    report = []
    for field in list(reference) + [f for f in subject if f not in reference]:
        want, got = reference.get(field, []), subject.get(field, [])
        if want == got:
            continue
        entry = next((d for d in differences if d.case == name and d.field == field), None)
        if entry is not None and excused(entry, want, got):
            used.add(entry)
            continue
        report.append("  %s:" % field)
        lines = difflib.unified_diff(want, got, "nginx", "nxr", lineterm="", n=4)
        report += ["    " + line for line in lines]
    return report


class Progress:
    """One line that tells how far it is; on a terminal it is rewritten in place."""

    def __init__(self, total):
        self.total, self.done, self.failed = total, 0, 0
        self.lock, self.live, self.last = threading.Lock(), sys.stdout.isatty(), 0.0

    def case(self, name, report):
        with self.lock:
            self.done += 1
            self.failed += bool(report)
            if report:
                self._clear()
                print("FAILED " + name)
                print("\n".join(report), flush=True)
            if self.live or self.done == self.total or time.monotonic() - self.last > 2:
                self.last = time.monotonic()
                text = "%d/%d cases, %d failed" % (self.done, self.total, self.failed)
                print("\r%-70s" % text if self.live else text, end="" if self.live else "\n", flush=True)

    def _clear(self):
        if self.live:
            print("\r%-70s\r" % "", end="")

    def line(self, text):
        with self.lock:
            self._clear()
            print(text, flush=True)


def run_one(suite, names, sides, ports, certs, root, differences, used, progress, verbose):
    """Both runs of one suite, then its cases compared."""
    excused_fields = {(name, d.field) for d in differences for name in names if full_name(suite, name) == d.case}
    results = [run_suite(suite, names, side, ports, certs, root, excused_fields) for side in sides]
    for name in names + [extra for extra in results[1] if extra not in names]:
        full = full_name(suite, name)
        reference, subject = results[0].get(name, {}), results[1].get(name, {})
        report = compare(full, reference, subject, differences, used)
        if "trouble" in reference and not any("trouble" in line for line in report):
            report.append("  on nginx: " + "\n".join(reference["trouble"]))
        if verbose:
            progress.line("\n".join(["--- " + full] + ["  %s:\n    %s" % (f, "\n    ".join(reference[f]))
                                                        for f in reference]))
        if name in names:
            progress.case(full, report)
        elif report:
            progress.total += 1
            progress.case(full, report)


def main():
    options = arguments()
    load_cases()
    wanted = re.compile(options.only) if options.only else None
    plan = []
    for suite in dsl.REGISTRY:
        names = [name for name, _ in suite.cases if not wanted or wanted.search(full_name(suite, name))]
        if names:
            plan.append((suite, names))
    total = sum(len(names) for _, names in plan)
    if options.list:
        for suite, names in plan:
            print("\n".join(full_name(suite, name) for name in names))
        print("%d cases" % total)
        return 0
    nginx = find_nginx(options)
    nxr = Program(nginx.path, "nginx again") if options.self else find_nxr(options)
    print("%s (%s) against %s (%s)" % (nxr.path, nxr.version, nginx.path, nginx.version), flush=True)
    return run_all(options, plan, total, nginx, nxr)


def run_all(options, plan, total, nginx, nxr):
    began = time.monotonic()
    root = tempfile.mkdtemp(prefix="compat-")
    os.chmod(root, 0o755)
    certs = Certs(os.path.join(root, "certs"))
    differences = [] if options.self else load_differences()
    sides = [(nginx, Side("nginx", nginx.version, nginx.version)), (nxr, Side("nxr", nxr.version, nginx.version))]
    progress, used, ports = Progress(total), set(), Ports()
    # the slowest first, so that the last job does not run alone
    plan = sorted(plan, key=lambda entry: -getattr(entry[0], "weight", len(entry[1])))
    try:
        with concurrent.futures.ThreadPoolExecutor(max(1, options.jobs)) as pool:
            jobs = [pool.submit(run_one, suite, names, sides, ports, certs, root, differences, used, progress,
                                options.verbose) for suite, names in plan]
            for job in jobs:
                job.result()
    finally:
        if options.keep:
            print("\nkept: " + root)
        else:
            shutil.rmtree(root, ignore_errors=True)
    failed = progress.failed
    names = {full_name(suite, name) for suite, cases in plan for name in cases}
    for entry in differences:
        if entry not in used and (entry.case in names or not options.only):
            print("FAILED differences.py: %s, %s: nothing differs here any more" % (entry.case, entry.field))
            failed += 1
    print("\n%.1f s" % (time.monotonic() - began))
    print("%d passed, %d failed" % (max(0, progress.total - progress.failed), failed))
    return 1 if failed else 0
