"""The benchmark of calls runs, and says what it measured. How fast it is, is no matter of a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "api.py"


@pytest.mark.userns
@pytest.mark.system
def test_one_json_object() -> None:
    argv = [sys.executable, str(SCRIPT), "--count", "2", "--json"]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    ratios = found.pop("ratios")
    for name in ("posix_spawn", "ping", "ping, 32 in flight, per call", "sync true, full sandbox"):
        assert 0 < found[name]["median_ms"] <= found[name]["p99_ms"]
    for name in ("ping", "ping over a unix socket", "ping over a service socket (wsapi)"):
        assert found[name]["count"] == 20
    assert found["sync true, no namespaces"]["count"] == 2
    for name, ratio in ratios.items():
        above, below = name.split(" / ")
        assert ratio == pytest.approx(found[above]["median_ms"] / found[below]["median_ms"], abs=0.001)
