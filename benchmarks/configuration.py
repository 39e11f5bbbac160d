"""How long a large configuration takes: compiled, and loaded as a plan; with sizes and peak memory."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import measure

ROOT = Path(__file__).resolve().parents[1]
MOST_RUNS = 20  # `--count` is meant for starts, which take a thousandth of the time

# Each run is a process of its own, so that its peak memory is its own too. It prints nanoseconds and KiB; the
# plan is loaded as the supervisor does, by an interpreter without site packages.
_TIMED = """
import resource, sys, time
sys.path.insert(0, {root!r})
{imports}
began = time.perf_counter_ns()
{work}
print(time.perf_counter_ns() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
_COMPILE = (
    "from initspawn.config.compile import compile_files\nfrom initspawn.planfile import save",
    "save(compile_files([{file!r}], user={user}, group={group}, environ={{}}), {plan!r})",
)
_LOAD = ("from initspawn.planfile import load", "load({plan!r})")


def configuration(count: int) -> dict[str, object]:
    """One sandbox with that many commands, each with what most have."""
    commands = [
        {
            "uid": f"command-{number}",
            "info": f"the command of number {number}",
            "timeout": 10,
            "exec": {"cmdpath": "/usr/bin/printf", "args": ["%%s", "%text%", f"$SANDBOX_UID-{number}"]},
            "encoder": {"output": "text", "opts": {"maxlen": 1024}},
            "usage": {"text": "what is printed"},
            "sample": [{"args": {"text": "hello"}}],
        }
        for number in range(count)
    ]
    own = {"shares": {"all": "disable"}}
    sandbox = {"uid": "large", "acls": {"user": "nobody"}, "namespace": own, "commands": commands}
    return {"metadata": {"uid": "large", "api": "large"}, "sandboxes": sandbox}


def timed(step: tuple[str, str], values: dict[str, object], *options: str) -> tuple[int, int]:
    """Nanoseconds and peak KiB of one step in a process of its own."""
    imports, work = step
    code = _TIMED.format(root=str(ROOT), imports=imports, work=work.format(**values))
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    taken, peak = done.stdout.split()
    return int(taken), int(peak)


def run(sizes: tuple[int, ...], count: int) -> tuple[measure.Samples, dict[str, int], dict[str, int]]:
    """Times by row, bytes of each plan, and peak KiB by row."""
    samples: measure.Samples = {}
    written: dict[str, int] = {}
    peaks: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="initspawn-bench-") as place:
        for size in sizes:
            file, plan = Path(place, f"{size}.json"), Path(place, f"{size}.plan")
            file.write_text(json.dumps(configuration(size)), encoding="utf-8")
            values = {"file": str(file), "plan": str(plan), "user": os.geteuid(), "group": os.getegid()}
            for _ in range(count):
                for name, step, options in (("compile", _COMPILE, ()), ("load", _LOAD, ("-I", "-S"))):
                    row = f"{name} {size} commands"
                    taken, peak = timed(step, values, *options)
                    samples.setdefault(row, []).append(taken)
                    peaks[row] = max(peak, peaks.get(row, 0))
            written[f"{size} commands"] = plan.stat().st_size
    return samples, written, peaks


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=5, help=f"runs of each (5, at most {MOST_RUNS})")
    parser.add_argument("--commands", type=int, default=10_000, help="commands of the largest file (10000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.count < 1 or options.commands < 100:
        parser.error("--count: at least 1; --commands: at least 100")
    sizes = (options.commands // 100, options.commands // 10, options.commands)
    samples, written, peaks = run(sizes, min(options.count, MOST_RUNS))
    pairs = [
        (f"{name} {large} commands", f"{name} {small} commands")
        for name in ("compile", "load")
        for small, large in pairwise(sizes)
    ]
    found = measure.results(samples, pairs)
    if options.json:
        print(json.dumps({**found, "plan_bytes": written, "peak_kib": peaks}))
        return
    heading = {
        "benchmark": "a configuration from JSON to a plan on disk, and a plan from disk to records",
        **measure.machine(),
        "plans": ", ".join(f"{name}: {size / 1e6:.2f} MB" for name, size in written.items()),
        "memory": "\n".join(f"{row}: {peak >> 10} MiB" for row, peak in peaks.items()),
    }
    measure.show(found, heading, json=False)


if __name__ == "__main__":
    main()
