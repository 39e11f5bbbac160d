"""A line is told with its priority to those alone who understand it."""

from __future__ import annotations

import socket
import subprocess
import sys

LINE = (sys.executable, "-c", "from initspawn.boot import log; log.tell('what happened', log.WARNING)")


def test_a_container_gets_the_line_alone() -> None:
    done = subprocess.run(LINE, stderr=subprocess.PIPE, check=True)
    assert done.stderr == b"initspawn: what happened\n"


def test_the_journal_is_told_how_important_it_is() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run(LINE, stderr=theirs, check=True)
        assert ours.recv(99) == b"<4>initspawn: what happened\n"


def test_where_nobody_hears_it_nothing_is_broken() -> None:
    command = ("sh", "-c", 'exec "$@" 2>&-', "sh", *LINE)
    assert subprocess.run(command, capture_output=True, check=True).stdout == b""
