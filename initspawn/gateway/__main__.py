"""`python -m initspawn.gateway --listen-fd 3 --control PATH [--handover-fd 4] [--no-auth]
[--allow-host NAME]... [--alias PREFIX=DIR]... [--page DIR] [--tls] [--limit NAME=NUMBER]...`

The supervisor starts this with the listening TCP socket as an inherited descriptor, so that a restart loses
no connection attempt. Exit status: 0 ended by a signal or with the supervisor, 100 usage, 111 system error.
"""

from __future__ import annotations

import sys

SYSTEM = 111

if __name__ == "__main__":
    try:
        from initspawn.gateway.process import main
    except Exception as error:  # a Python, or packages, that lack something: it would say so at each restart
        why = f"cannot start: {type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and error.name not in sys.stdlib_module_names:
            why = f"it needs the package {error.name} of Python: install initspawn[gateway]"
        print(" ".join(f"initspawn gateway: {why}".split()), file=sys.stderr)
        sys.exit(SYSTEM)
    sys.exit(main())
