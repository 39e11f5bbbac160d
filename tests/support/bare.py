"""Python with its standard library only, as on a device that boots with a plan."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bare(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A module of ours run with these words, and with no package but initspawn."""
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = {['x', *words]!r}\n"
        f"runpy.run_module({module!r}, run_name='__main__')"
    )
    argv = [sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
