"""A coverage-guided fuzzer over the table of targets: `python -m tests.fuzz [--seconds N] [TARGET ...]`.

Each target has a process of its own, as many at once as there are processors. Inputs that tell it something
new are kept for the next run in --keep. What a target must not do ends it: the input is printed as a line for
the target's corpus, and the exit code is 1. Needs atheris (libFuzzer for Python): `make fuzz` installs it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import logging
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import atheris

LONGEST = 4096  # bytes of an input
SLOWEST = 10  # seconds that one may take
INSTRUMENTED = ["initspawn", "websockets", "h11"]


def main() -> int:
    """All targets that are named, or all there are; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--keep", metavar="DIR", help="where inputs are kept (default: nowhere)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="initspawn-fuzz-") as place:
        place = options.keep or place
        if options.one:
            _fuzz(options.targets[0], options.seconds, Path(place))
        names = options.targets or sorted(_table())
        command = [sys.executable, "-m", "tests.fuzz", "--one", "--seconds", str(options.seconds)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = pool.map(lambda name: _run(name, [*command, "--keep", place, name]), names)
            return int(not all(done))


def _table() -> list[str]:
    from tests.fuzz.target import CORPUS

    return [path.stem for path in CORPUS.iterdir()]


def _run(name: str, command: list[str]) -> bool:
    """One target in its process; whether all went well."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, errors="replace")
    last = next((line for line in reversed(result.stderr.splitlines()) if line.startswith("Done")), "")
    print(f"{name}: {last or f'exit {result.returncode}'}", flush=True)
    if result.returncode:
        told = [line for line in result.stderr.splitlines() if not line.startswith(("#", "INFO:"))]
        print(result.stdout, *told[-40:], sep="\n", flush=True)
    return result.returncode == 0


def _fuzz(name: str, seconds: int, keep: Path) -> None:
    """Does not return: libFuzzer ends the process."""
    from tests.fuzz.target import encode

    with atheris.instrument_imports(include=INSTRUMENTED):
        target = importlib.import_module("tests.fuzz.table").TARGETS[name]
    logging.disable()
    place = keep / name
    place.mkdir(parents=True, exist_ok=True)
    for data in target.corpus():
        (place / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)

    def once(data: bytes) -> None:
        try:
            target.take(data)
        except BaseException:
            print(f"a line for tests/fuzz/corpus/{name}.txt:\n{encode(data)}", flush=True)
            raise

    limits = f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-timeout={SLOWEST}", "-rss_limit_mb=1024"
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={keep}/", str(place)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
