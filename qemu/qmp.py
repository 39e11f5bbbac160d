"""QEMU's machine protocol: one command at a time, events kept. Source: QEMU's docs/interop/qmp-spec."""

from __future__ import annotations

import json
import socket
from typing import Any


class QmpError(Exception):
    """QEMU refused a command, or is gone."""


class Qmp:
    """The host's end of a QMP connection. Every wait is bounded by the socket's timeout."""

    def __init__(self, connection: socket.socket, timeout: float = 30.0) -> None:
        self._socket = connection
        self._socket.settimeout(timeout)
        self._file = connection.makefile("r", encoding="utf-8")
        self.events: list[dict[str, Any]] = []
        self._ready = False

    def execute(self, command: str, **arguments: Any) -> Any:
        """What a command returns. Raises QmpError, TimeoutError."""
        if not self._ready:
            self._message()  # the greeting
            self._ready = True
            self.execute("qmp_capabilities")
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": command, "arguments": named}).encode())
        while True:
            answer = self._message()
            if "error" in answer:
                raise QmpError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            self.events.append(answer)

    def monitor(self, line: str) -> str:
        """What the human monitor prints for a line. Raises QmpError, TimeoutError."""
        return str(self.execute("human-monitor-command", command_line=line))

    def _message(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise QmpError("QEMU is gone")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()
