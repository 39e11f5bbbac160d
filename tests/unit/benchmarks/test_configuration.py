"""The benchmark of a large configuration runs, and says what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "configuration.py"
ROWS = {f"{step} {size} commands" for step in ("compile", "load") for size in (1, 10, 100)}


def run(*arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--commands", "100", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_one_json_object() -> None:
    found = json.loads(run("--count", "1", "--json"))
    assert ROWS | {"ratios", "plan_bytes", "peak_kib"} == found.keys()
    assert all(found[row]["count"] == 1 and found[row]["median_ms"] > 0 for row in ROWS)
    assert found["peak_kib"].keys() == ROWS
    _, small, large = found["plan_bytes"].values()
    # Bytes do not depend on the machine's mood: a command's share stays what it is.
    assert large - small == pytest.approx(90 * (large / 100), rel=0.2)
    assert found["ratios"].keys() == {
        f"{step} {size} commands / {step} {size // 10} commands"
        for step in ("compile", "load")
        for size in (100, 10)
    }


def test_the_table_says_where_it_was_measured() -> None:
    text = run("--count", "1")
    for word in ("kernel:", "machine:", "python:", "plans:", "memory:", "MiB", "median", "ratio", *ROWS):
        assert word in text
