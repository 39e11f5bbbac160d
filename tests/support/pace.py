"""How slow this machine is: limits that a test sets for what must come are multiplied by it."""

from __future__ import annotations

import os

IN_GUEST = os.environ.get("INITSPAWN_GUEST", "") not in ("", "0")
SLOWER = 4.0 if IN_GUEST else 1.0  # its processor is emulated; most of a start is the kernel's own work
