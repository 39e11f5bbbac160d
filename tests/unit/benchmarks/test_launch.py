"""The benchmark of a start runs, and says what it measured. How fast it is, is no matter of a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "launch.py"
OURS = ("sandbox, shared network", "sandbox, private network", "no namespaces")


def run(*arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.userns
@pytest.mark.system
def test_one_json_object() -> None:
    found = json.loads(run("--count", "3", "--json"))
    ratios = found.pop("ratios")
    firsts = [f"first start, {name}" for name in OURS]
    many = [f"32 x {name}" for name in (*OURS, "posix_spawn")]
    parts = [f"measurement of {name}" for name in (OURS[0], firsts[0])]
    assert {*OURS, "posix_spawn", *firsts, *many, *parts} <= found.keys()
    for name, row in found.items():
        assert row.keys() == {"median_ms", "p99_ms", "count"}, name
        assert row["count"] == (1 if name.startswith("32 x ") else 3)
        assert 0 < row["median_ms"] <= row["p99_ms"]
    assert ratios
    for name, ratio in ratios.items():
        above, below = name.split(" / ")
        assert ratio == pytest.approx(found[above]["median_ms"] / found[below]["median_ms"], abs=0.001)


@pytest.mark.userns
@pytest.mark.system
def test_the_table_says_where_it_was_measured() -> None:
    text = run("--count", "1")
    for word in ("kernel:", "machine:", "python:", "user:", "bwrap:", "median", "p99", "ratio", *OURS):
        assert word in text
