"""Images that are the root of sandboxes, as block devices for as long as we live. Boot module.

Nothing of them is mounted in our mount namespace: each task mounts the device in its own. The kernel frees a
device when nobody has it open or mounted any more, however we end.
"""

from __future__ import annotations

import os

from initspawn.errors import LaunchRefused
from initspawn.say import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from initspawn.plan import Plan, Sandbox


class Images:
    """The images of one supervisor's plan, each attached once.

    An image that cannot be used costs its own sandboxes' commands, not all: it is told at once, and `check`
    refuses them.
    """

    def __init__(self) -> None:
        self._devices: dict[str, tuple[int, str]] = {}  # by the image's path: a descriptor, the device's path
        self._faults: dict[str, LaunchRefused] = {}

    def fit(self, plan: Plan) -> Plan:
        """The plan with the devices in it."""
        if not any(_image(sandbox) for sandbox in plan.sandboxes()):
            return plan
        tried: set[str] = set()
        return plan.replace(
            apis=tuple(
                api.replace(sandboxes=tuple(self._fitted(sandbox, tried) for sandbox in api.sandboxes))
                for api in plan.apis
            )
        )

    def keep(self, sandboxes: Iterable[Sandbox]) -> None:
        """Give back what none of these sandboxes needs; what runs keeps its own."""
        needed = {_image(sandbox) for sandbox in sandboxes}
        for path in self._devices.keys() - needed:
            os.close(self._devices.pop(path)[0])
        self._faults = {path: fault for path, fault in self._faults.items() if path in needed}

    def check(self, sandbox: Sandbox) -> None:
        """Raises LaunchRefused for a sandbox whose image cannot be used."""
        fault = self._fault(sandbox)
        if fault is not None:
            raise LaunchRefused(fault.step, fault.errno, fault.detail)

    def fault(self, plan: Plan) -> str:
        """Why an image of this plan cannot be used; empty if all can."""
        faults = map(self._fault, plan.sandboxes())
        return next((fault.detail for fault in faults if fault is not None), "")

    def close(self) -> None:
        """Give the devices back."""
        while self._devices:
            os.close(self._devices.popitem()[1][0])

    def _fault(self, sandbox: Sandbox) -> LaunchRefused | None:
        # Another sandbox may have got a device by now, with a later plan: this one is as it was made.
        path = _image(sandbox)
        return self._faults.get(path) if path and not sandbox.mounts[0].device else None

    def _fitted(self, sandbox: Sandbox, tried: set[str]) -> Sandbox:
        path = _image(sandbox)
        if not path:
            return sandbox
        if path not in self._devices and path not in tried:
            tried.add(path)
            try:
                self._devices[path] = _attached(path)
            except OSError as error:
                why = f"{error.filename or path}: {error.strerror}; looked at when its plan was loaded"
                self._faults[path] = LaunchRefused("image", 0, why)
                say(f"no sandbox gets the image {path} as its root: {why}")
        device = self._devices[path][1] if path in self._devices else ""
        return sandbox.replace(mounts=(sandbox.mounts[0].replace(device=device), *sandbox.mounts[1:]))


def _image(sandbox: Sandbox) -> str:
    """The path of the image that is a sandbox's root; empty if none is."""
    first = sandbox.mounts[0] if sandbox.mounts else None
    return first.source if first is not None and first.operation == "image" else ""


def _attached(path: str) -> tuple[int, str]:
    from initspawn.linux import loop, squashfs  # few plans have images

    image = squashfs.open_image(path, (0, os.geteuid()))
    try:
        return loop.attach(image, path)
    finally:
        os.close(image)  # the device holds the file
