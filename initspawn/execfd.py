"""The output of a shell line, taken once: when the configuration is compiled, or when the supervisor starts.

Not a boot module: it is loaded where a plan made ahead has such a line.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time

from initspawn.errors import InitspawnError

TIMEOUT = 5.0
MAX_OUTPUT = 1 << 20
_SAID = 60  # characters of its errors that a message repeats

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/",
}


class OutputFault(InitspawnError):
    """The line failed, took too long or said too much; the message says which."""


def output_of(line: str) -> bytes:
    """What `/bin/sh -c LINE` writes to its standard output. Raises OutputFault.

    The line is the configuration author's, who is trusted; it runs as whoever compiles, or as the supervisor.
    """
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise OutputFault(f"/bin/sh cannot be started: {error.strerror}") from None
    with process:
        try:
            output, errors = _read(process)
            status = process.wait(TIMEOUT)
        except (OutputFault, subprocess.TimeoutExpired) as fault:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise fault if isinstance(fault, OutputFault) else _too_slow() from None
    if status:
        said = ascii(errors.decode(errors="replace").strip())
        said = said if len(said) <= _SAID else f"{said[:_SAID]}..."
        raise OutputFault(f"the line ended with status {status} and said {said}")
    return output


def _too_slow() -> OutputFault:
    return OutputFault(f"the line did not end within {TIMEOUT:g} seconds")


def _read(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Both streams until both are closed, within the limits."""
    assert process.stdout is not None  # both are pipes
    assert process.stderr is not None
    collected = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    deadline = time.monotonic() + TIMEOUT
    with selectors.DefaultSelector() as selector:
        for fd in collected:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready or time.monotonic() > deadline:
                raise _too_slow()
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fd)
                collected[key.fd] += data
                if len(collected[key.fd]) > MAX_OUTPUT:
                    raise OutputFault(f"the line wrote more than {MAX_OUTPUT} bytes")
    output, errors = collected.values()
    return bytes(output), bytes(errors)
