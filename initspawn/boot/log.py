"""What we say: to the kernel's log, to the journal, or where a container's output goes. Boot module."""

from __future__ import annotations

import os
import stat

from initspawn.say import say

ERROR, WARNING, NOTICE = 3, 4, 5  # syslog(2); errors of the kernel's log are seen on the console
_KMSG = 1, 11  # its device (Documentation/admin-guide/devices.txt)


def tell(line: str, priority: int = ERROR) -> None:
    """One line on stderr. The kernel's log and the journal, which has a socket (sd-daemon(3)), are told how
    important it is.
    """
    try:
        about = os.fstat(2)
    except OSError:
        return
    log = stat.S_ISCHR(about.st_mode) and about.st_rdev == os.makedev(*_KMSG)
    mark = f"<{priority}>" if log or stat.S_ISSOCK(about.st_mode) else ""
    say(line, mark)
