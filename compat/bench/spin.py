"""Takes a part of a processor from whatever else runs there, so that less of it is left: `spin.py PROCESSOR SHARE`.

In each millisecond it spins with real-time priority (sched(7)) until only SHARE of the millisecond is left. Says
"ready" when it begins, and ends with whoever started it."""

import gc
import os
import sys
import time

TURN_NS = 1_000_000


def main(processor, share):
    parent = os.getppid()
    os.sched_setaffinity(0, {processor})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    gc.disable()
    print("ready", flush=True)
    spun = int(TURN_NS * (1 - share))
    begin = time.monotonic_ns()
    while os.getppid() == parent:
        while time.monotonic_ns() < begin + spun:
            pass
        begin += TURN_NS
        time.sleep(max(0, begin - time.monotonic_ns()) / 1e9)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), float(sys.argv[2]))
    except PermissionError:
        sys.exit("real-time priority is not permitted")
