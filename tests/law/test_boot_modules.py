"""The boot stage loads exactly the modules of boot_modules.txt beyond what a bare interpreter loads.

After a change that was meant:  python -m tests.law.test_boot_modules > tests/law/boot_modules.txt
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
STAGE = HERE.parents[1] / "initspawn" / "boot" / "__main__.py"
BARE = ["-c", "import sys; print(*sys.modules, sep='\\n')"]


def modules(*arguments: str) -> set[str]:
    """The lines that an isolated interpreter prints for these arguments."""
    result = subprocess.run(
        [sys.executable, "-I", "-S", *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def loaded() -> set[str]:
    """What the boot stage loads beyond a bare interpreter."""
    return modules(str(STAGE), "--list-modules") - modules(*BARE)


def test_boot_loads_exactly_these_modules() -> None:
    found = loaded()
    wanted = set((HERE / "boot_modules.txt").read_text(encoding="utf-8").split())
    assert found - wanted == set(), "loaded at boot, but not in boot_modules.txt"
    assert wanted - found == set(), "in boot_modules.txt, but not loaded at boot any more"


def test_the_early_stage_needs_little_more() -> None:
    """Nothing is imported before the first commands run that the supervisor does without."""
    code = f"import sys; sys.path.insert(0, {str(HERE.parents[1])!r}); import initspawn.boot.early"
    found = modules("-c", f"{code}; print(*sys.modules, sep='\\n')") - modules(*BARE) - loaded()
    early = {f"initspawn.boot.{name}" for name in ("barrier", "early", "log", "mounts")}
    assert found == early | {"initspawn.supervisor.handover"}


if __name__ == "__main__":
    print(*sorted(loaded()), sep="\n")
