"""What an encoder is: bytes in, event data out. No descriptors, no clock, no processes."""

from __future__ import annotations

from initspawn.limits import READ_CHUNK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STDOUT = "stdout"
STDERR = "stderr"


class Encoder:
    """One task's output on its way to its readers. Made per task with the command's options.

    `synchronous`: the reply comes when the command ends and carries `result()`; otherwise the reply
    comes at the start and events follow.
    """

    synchronous = False
    chunk = READ_CHUNK  # the most bytes to feed at once: what becomes many events comes in small bites

    @property
    def busy(self) -> bool:
        """Whether more bytes are to wait: only encoders that work elsewhere ever are."""
        return False

    def feed(self, stream: str, data: bytes) -> list[dict[str, Any]]:
        """The event data that these bytes of `stdout` or `stderr` complete, in order."""
        raise NotImplementedError

    def finish(self) -> list[dict[str, Any]]:
        """The event data still owed when both streams have ended."""
        raise NotImplementedError

    def result(self) -> dict[str, Any]:
        """What the reply of a synchronous command carries beside the task and its status."""
        return {}
