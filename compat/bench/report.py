"""Verdicts over the figures, and the three ways to print them: table, JSON, Markdown."""

import statistics

from measure import SATURATED

# Noise allowed between two servers of one run. Ratios to nginx are held to their targets without any.
RATE_SLACK = 0.97
P99_SLACK = 1.10
HAPROXY_SLACK = 1.03
SHARE = 0.60  # of the connections, that one of two threads has at most
DISTURBED = 0.10  # of the server's processor taken by others: figures are then worth less


def median_ratio(ours, theirs):
    """Median of round-by-round ratios, or None without pairs."""
    pairs = [a / b for a, b in zip(ours or [], theirs or []) if b]
    return statistics.median(pairs) if pairs else None


def judge(row, servers):
    """Adds to each server its ratio to nginx, and returns the row's result with nxr's verdicts (None: not judged,
    because neither server was saturated, or the machine has not the processors)."""
    nginx = servers.get("nginx", {})
    for found in servers.values():
        if row.kind != "scaling" and (ratio := median_ratio(found.get("costs"), nginx.get("costs"))) is not None:
            found["ratio"] = ratio
        slowed, nginx_slowed = found.get("slowed", {}), nginx.get("slowed", {})
        if (ratio := median_ratio(slowed.get("costs"), nginx_slowed.get("costs"))) is not None:
            slowed["ratio"] = ratio
    result = {"row": row.name, "kind": row.kind, "unit": row.unit, "target": row.target, "servers": servers,
              "checks": []}
    nxr = servers.get("nxr")
    if nxr is None or "skipped" in nxr:
        return result
    add = lambda name, value, limit, ok: result["checks"].append(
        {"check": name, "value": value, "limit": limit, "pass": ok})
    if "error" in nxr:
        add("runs", None, None, False)
        return result
    if row.kind == "scaling":
        reached = nxr["cost"] >= row.target
        result["ceiling"] = nxr["ceiling"]
        add("two workers over one", nxr["cost"], row.target, None if nxr["ceiling"] < row.target else reached)
        if share := nxr.get("share"):
            add("largest share of the connections", share, SHARE, share <= SHARE)
        return result
    if (ratio := nxr.get("ratio")) is None:
        add("ratio to nginx", None, row.target, False)
    else:
        add("ratio to nginx", ratio, row.target, ratio <= row.target)
    if row.kind != "load":
        return result
    haproxy = servers.get("haproxy", {})
    for name, other in (("nginx", nginx), ("haproxy", haproxy)):
        ours, theirs, saturated = compared(nxr, other)
        if rate := median_ratio(ours["rates"], theirs.get("rates")):
            add(f"rate over {name}'s", rate, RATE_SLACK, rate >= RATE_SLACK if saturated else None)
        if name == "nginx" and (p99 := median_ratio(ours["p99s"], theirs.get("p99s"))):
            add("p99 over nginx's", p99, P99_SLACK, p99 <= P99_SLACK if saturated else None)
    if cost := median_ratio(nxr["costs"], haproxy.get("costs")):
        add("CPU over haproxy's", cost, HAPROXY_SLACK, cost <= HAPROXY_SLACK)
    return result


def compared(nxr, other):
    """The figures that rates and latencies are judged by, and whether a server was the limit: those of slowed servers
    where the load was it."""
    if "slowed" in nxr and "slowed" in other:
        nxr, other = nxr["slowed"], other["slowed"]
        return nxr, other, min(nxr["busy"], other["busy"]) >= SATURATED
    return nxr, other, max(nxr["busy"], other.get("busy", 0)) >= SATURATED


def passed(results):
    return all(check["pass"] is not False for result in results for check in result["checks"])


# === text ===

VERDICT = {True: "pass", False: "FAIL", None: "(not saturated)"}

HEAD = ["row", "server", "cost", "kernel's", "ratio", "target", "", "units/s", "p50", "p99", "busy", "peak PSS", "a connection"]


def _cost(result, found):
    kind, cost = result["kind"], found["cost"]
    if kind == "scaling":
        return f"{cost:.2f}x"
    if kind == "memory":
        return f"{cost:.2f} KiB/{result['unit']}"
    if kind == "idle":
        return f"{cost:,.0f} KiB"
    return f"{cost:,.1f} us/{result['unit']}" if cost < 1000 else f"{cost:,.0f} us/{result['unit']}"


def _micros(value):
    if value is None:
        return ""
    return f"{value:,.0f} us" if value < 10_000 else f"{value / 1000:,.0f} ms"


def _rate(found):
    rate = found.get("per_second")
    return "" if rate is None else f"{rate:,.0f}" if rate >= 100 else f"{rate:.2f}"


def _verdict(result):
    verdict = result["checks"][0]["pass"]
    return "(machine)" if verdict is None and result["kind"] == "scaling" else VERDICT[verdict]


def _lines(result):
    """The row's table lines, one a server."""
    scaling = result["kind"] == "scaling"
    for name, found in result["servers"].items():
        if "cost" not in found:
            yield [result["row"], name, found.get("error") and "failed" or "skipped"] + [""] * 10
            continue
        ours = name == "nxr" and result["checks"]
        yield [
            result["row"], name, _cost(result, found),
            f"{found['kernel']:,.1f} us" if "kernel" in found else "",
            f"{found['ratio']:.2f}" if "ratio" in found else "",
            f"{'>=' if scaling else '<='} {result['target']:.2f}" if ours or scaling else "",
            _verdict(result) if ours else "",
            _rate(found),
            _micros(found.get("p50_us")), _micros(found.get("p99_us")),
            f"{found['busy']:.0%}" if "busy" in found else "",
            f"{found['peak_kib']:,.0f} KiB" if found.get("peak_kib") else "",
            f"{found['connection_kib']:.2f} KiB" if "connection_kib" in found else "",
        ]


def _notes(results):
    """One line for each error, skip, disturbance, and check besides the ratio."""
    for result in results:
        for name, found in result["servers"].items():
            if why := found.get("error") or found.get("skipped"):
                yield f"{result['row']}: {name} {'failed' if 'error' in found else 'skipped'}: {why}"
            if found.get("foreign", 0) >= DISTURBED and result["kind"] == "load":
                yield f"{result['row']}: {name} disturbed: others took {found['foreign']:.0%} of its processor"
        for name, found in result["servers"].items():
            if slowed := found.get("slowed"):
                yield (f"{result['row']}: {name} with {slowed['share']:.0%} of a processor: {_cost(result, slowed)}"
                       + (f" (ratio {slowed['ratio']:.2f})" if "ratio" in slowed else "")
                       + f", {_rate(slowed)}/s, p99 {_micros(slowed.get('p99_us'))}, busy {slowed['busy']:.0%} of that")
        for name, found in result["servers"].items():
            for key, how in (("calls", ""), ("calls_alone", " with one connection")):
                if made := found.get(key):
                    most = sorted(made.items(), key=lambda call: -call[1])
                    yield (f"{result['row']}: {name} makes {sum(made.values()):,.2f} system calls a {result['unit']}{how}: "
                           + ", ".join(f"{call} {n:,.2f}" for call, n in most if n >= 0.005))
        said = [f"{c['check']} {c['value']:.2f} {VERDICT[c['pass']]}"
                for c in result["checks"][1:] if c["value"] is not None]
        if "ceiling" in result:
            yield f"{result['row']}: two processors of this machine do {result['ceiling']:.2f} times the work of one"
        if said:
            yield f"{result['row']}: nxr's " + ", ".join(said)


def table(results):
    lines = [line for result in results for line in _lines(result)]
    widths = [max(len(line[i]) for line in [HEAD] + lines) for i in range(len(HEAD))]
    out, before = [], None
    for line in [HEAD] + lines:
        shown = [("" if line[0] == before else line[0])] + line[1:]
        before = line[0]
        cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(shown, widths))]
        out.append("  ".join(cells).rstrip())
    return "\n".join(out + [""] + list(_notes(results)))


def markdown(results, run):
    """The text of RESULTS.md."""
    out = ["# Figures of one run", "",
           "Ratios to nginx are what counts; the absolute figures belong to one machine. README.md says what the rows",
           "and columns are.", "", f"- command: `{run['command']}`", f"- machine: {run['machine']}",
           f"- processors: {run['processors']}"]
    out += [f"- {name}: {version}" for name, version in run["versions"].items()]
    if run.get("missing_nxr"):
        out.append("- nxr: not measured, there was no binary")
    out += ["", "| " + " | ".join(HEAD) + " |", "|---|---" + "|---:" * (len(HEAD) - 2) + "|"]
    out += ["| " + " | ".join(line) + " |" for result in results for line in _lines(result)]
    notes = list(_notes(results))
    if notes:
        out += [""] + [f"- {note}" for note in notes]
    return "\n".join(out) + "\n"
