"""What all benchmarks share: taking turns, medians, ratios, a table, JSON.

Loaded in the measured process too, so it imports next to nothing.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Samples = dict[str, list[int]]  # nanoseconds by name

_NANOSECONDS = 1e6  # of a millisecond


def interleave(
    actions: dict[str, Callable[[], int | None]],
    count: int,
    *,
    before: Callable[[str], None] = lambda _: None,
    samples: Samples | None = None,
) -> Samples:
    """Run each action `count` times, in turns, and time each run by itself.

    One after the other, so that what else the machine does falls on all of them alike; each round in
    another order, because what the kernel cleans up behind one run falls on the next. `before` is called with
    the name of each run, untimed. An action may say itself when it had ended (time.perf_counter_ns).
    """
    taken: Samples = {} if samples is None else samples
    for _ in range(count):
        for name in sorted(actions, key=lambda _: os.urandom(8)):
            before(name)
            began = time.perf_counter_ns()
            ended = actions[name]() or time.perf_counter_ns()
            taken.setdefault(name, []).append(ended - began)
    return taken


def summary(samples: list[int]) -> dict[str, float]:
    """The median, the 99th percentile and the number of some nanoseconds."""
    ordered = sorted(samples)
    last = len(ordered) - 1
    return {
        "median_ms": round((ordered[last // 2] + ordered[len(ordered) // 2]) / 2 / _NANOSECONDS, 3),
        "p99_ms": round(ordered[-(-99 * last // 100)] / _NANOSECONDS, 3),
        "count": len(ordered),
    }


def results(samples: Samples, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """A summary per name, and under `ratios` the medians of each pair that was measured, divided."""
    found: dict[str, Any] = {name: summary(taken) for name, taken in samples.items()}
    found["ratios"] = {
        f"{name} / {other}": round(found[name]["median_ms"] / found[other]["median_ms"], 3)
        for name, other in pairs
        if name in found and other in found
    }
    return found


def machine() -> dict[str, str]:
    """Where this runs, as the table's heading says it."""
    system = os.uname()
    version = ".".join(str(part) for part in sys.version_info[:3])
    return {
        "kernel": f"{system.sysname} {system.release}",
        "machine": f"{system.machine}, {_processor()}{os.cpu_count()} processors",
        "python": f"{sys.implementation.name} {version}",
        "user": "root" if os.geteuid() == 0 else "an ordinary user",
    }


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return f"{value.strip()}, "
    return ""


def show(found: dict[str, Any], heading: dict[str, str], *, json: bool) -> None:
    """Print results: one JSON object, or a table under a heading."""
    if json:
        from json import dumps

        print(dumps(found))
        return
    for name, value in heading.items():
        print(f"{name + ':':<12}" + value.replace("\n", f"\n{'':<12}"))
    rows = {name: row for name, row in found.items() if name != "ratios"}
    width = max(map(len, [*rows, *found["ratios"]])) + 2
    print(f"\n{'milliseconds':<{width}}{'median':>11}{'p99':>11}{'count':>8}")
    for name, row in rows.items():
        print(f"{name:<{width}}{row['median_ms']:>11.3f}{row['p99_ms']:>11.3f}{row['count']:>8}")
    print(f"\n{'ratio of medians':<{width}}")
    for name, ratio in found["ratios"].items():
        print(f"{name:<{width}}{ratio:>11.3f}")
