"""How slow this machine is: limits that a test sets for what must come are multiplied by it."""

from __future__ import annotations

import os

IN_GUEST = os.environ.get("INITSPAWN_GUEST", "") not in ("", "0")
EMULATED = os.environ.get("INITSPAWN_EMULATED", "") not in ("", "0")  # by tools/aarch64-tests
# An emulated processor; most of a start is the kernel's own work.
SLOWER = 4.0 if IN_GUEST or EMULATED else 1.0
