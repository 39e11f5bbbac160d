"""`python -m initspawn` is `initspawn`."""

from __future__ import annotations

from initspawn.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
