"""Runs as a file: `python3 -I -S .../initspawn/boot/__main__.py`; only then is our package on the path.

early [SECONDS]    as a child of PID 1, before any other init, which began so long after the kernel
alone [SECONDS]    the same where no other init comes
halt HOW           as a child of PID 1, for the end of everything: poweroff or reboot
adopt              as a unit of systemd's: have that supervisor, or become one
reload             as its ExecReload
--run-dir ...      as `initspawn serve` becomes it
"""

import gc
import os
import sys

if sys.argv[1:2] in (["early"], ["alone"]):
    # Whoever waits at the barrier waits for this process's end as well, so a child goes on. It says at once
    # who is to be watched: until now, only the interpreter's start could hang.
    if os.fork():
        os._exit(0)
    os.setsid()
    os.write(3, b"p%07d" % os.getpid())
    gc.disable()  # until the first commands are on their way: what is made for that is kept

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

if sys.argv[1:2] == ["early"]:
    from initspawn.boot import early

    sys.exit(early.main("".join(sys.argv[2:])))
if sys.argv[1:2] == ["alone"]:
    from initspawn.boot import alone

    sys.exit(alone.main("".join(sys.argv[2:])))
if sys.argv[1:] == ["adopt"]:
    from initspawn.boot import adopt

    sys.exit(adopt.main())
if sys.argv[1:] == ["reload"]:
    from initspawn.boot import ask

    sys.exit(ask.main())
if sys.argv[1:2] == ["halt"]:
    from initspawn.boot import halt

    sys.exit(halt.main(sys.argv[2:]))
from initspawn.boot import supervise

sys.exit(supervise.main(sys.argv[1:]))
