"""`conditions.udev`: which devices can be waited for, and the sandboxes of the watcher that follows them."""

from __future__ import annotations

import json
import os
import re
import resource
from collections.abc import Mapping, Sequence
from typing import Any

from initspawn.config.interpreter import Interpreter, Need, of_image, ours, search_path
from initspawn.config.python import DENIED, literal
from initspawn.config.spot import Spot, shown
from initspawn.config.target import Target
from initspawn.plan import Api, Mount, devices_of

API = "watcher"
# A number that no user has, and neither the gateway's nor the plug-in hosts': whoever runs as the same user
# could make it say what he likes.
USER = "64997"
KERNEL, UDEV = "kernel", "udev"  # what it hears, and the names of its commands
DATABASE = "/run/udev"
_PACKAGE = "pyudev"
_NEED = Need("what follows devices (`conditions.udev`)", ("initspawn",), "udev", (_PACKAGE,))
_NAME = re.compile(r"[A-Za-z0-9_.:-]+")
_OF_EVENTS = ("ACTION", "DEVPATH_OLD", "SEQNUM", "SYNTH_UUID")
# No core files, 64 descriptors, 1 GiB of address space.
LIMITS = (
    (resource.RLIMIT_CORE, 0, 0), (resource.RLIMIT_NOFILE, 64, 64), (resource.RLIMIT_AS, 1 << 30, 1 << 30),
)  # fmt: skip
# It has no children, and nobody to signal or to look into: an ordinary user's shares the number of everything
# else that user runs.
_OTHERS = (
    "clone", "clone3", "fork", "kill", "pidfd_getfd", "pidfd_send_signal", "process_vm_readv",
    "process_vm_writev", "ptrace", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "tgkill", "tkill", "vfork",
)  # fmt: skip
_AF_NETLINK, _KOBJECT_UEVENT = 16, 15


def check_devices(given: Sequence[Mapping[str, str]], spot: Spot) -> None:
    """Note at `spot` what no device can be."""
    for index, device in enumerate(given):
        place = spot[index]
        if not device:
            place.refuse("says nothing of the device", "write properties, such as {SUBSYSTEM: block}")
        for name, pattern in device.items():
            if not _NAME.fullmatch(name):
                hint = "`udevadm info` shows a device's properties"
                place.refuse(f"{shown(name)} is no property of a device", hint)
            elif name in _OF_EVENTS:
                hint = "say what the device is that has to be there"
                place[name].refuse(f"`{name}` is a property of events, not of devices", hint)
            elif pattern == "!":
                place[name].refuse("nothing follows the `!`", "`!*`: it must not have this property")


def first_waiting(apis: Sequence[Api]) -> int:
    """Which of these is the first that waits for a device; one does."""
    return next(index for index, api in enumerate(apis) if devices_of((api,)))


def watcher_config(apis: Sequence[Api], user: int, target: Target) -> dict[str, Any] | None:
    """The configuration of the hidden API that runs the watcher; None if nobody waits for a device. Its
    sandbox `udev` still lacks what `with_system` adds. `user`: who the supervisor runs as. Raises
    InitspawnError where the machine has no Python for it.
    """
    wanted = devices_of(tuple(apis))
    if not wanted:
        return None
    python = _python(target)
    program = os.path.join(python.libraries[0], "initspawn", "watcher.py")
    own = [json.dumps(dict(device)) for device in wanted]

    def sandbox(uid: str) -> dict[str, Any]:
        arguments = ["-s", "-P", "-B", program, uid, *own]
        return {
            "uid": uid,
            "envs": {"name": "PYTHONPATH", "value": search_path(python)},
            **(_as_root(python) if user == 0 else _as_anybody()),
            "seccomp": {"default": "SCMP_ACT_ALLOW", "locked": True, "rules": _rules()},
            "commands": {
                "uid": uid,
                "exec": {"cmdpath": python.path, "args": [literal(item) for item in arguments]},
                "encoder": {"output": "line", "opts": {"maxlen": 4096}},
            },
        }

    return {"metadata": {"uid": API, "api": API}, "sandboxes": [sandbox(KERNEL), sandbox(UDEV)]}


def with_system(api: Api, user: int) -> Api:
    """That API, limited, and as root with a view of the devices, which is not looked up before: images have
    none, and udevd's comes after the supervisor.
    """
    places = {KERNEL: ("/sys",), UDEV: ("/sys", DATABASE)}
    boxes = []
    for box in (box.replace(limits=LIMITS) for box in api.sandboxes):
        if user != 0:  # sees all that its user does
            boxes.append(box)
            continue
        binds = (
            Mount(operation="bind", target=path, source=path, read_only=True) for path in places[box.uid]
        )
        boxes.append(box.replace(mounts=(*box.mounts, *binds)))
    return api.replace(sandboxes=tuple(boxes))


def lacks_pyudev(apis: Sequence[Api], target: Target) -> str:
    """What to tell who waits for devices where pyudev is missing; empty if nobody does, or it is there."""
    if not devices_of(tuple(apis)) or not _python(target).lacks:
        return ""
    where = f"the image at {target.tree.root}" if target.tree.root else "this machine"
    return (
        f"{where} has no pyudev, and without it commands that wait for devices (`conditions.udev`) are not "
        "started: install initspawn[udev] (Debian: python3-pyudev)"
    )


def _python(target: Target) -> Interpreter:
    return of_image(target.tree, _NEED) if target.tree.root else ours(_NEED)


def _as_root(python: Interpreter) -> dict[str, Any]:
    """The network is shared, for devices of the machine are told of there; and so are its users, for what
    comes from others than root is not believed.
    """
    return {
        "acls": {"user": USER, "group": USER},
        "namespace": {
            "shares": {"all": "disable", "net": "enable", "users": "enable"},
            "mounts": [
                {"target": "/tmp", "mode": "tmpfs"},
                *python.mounts,
                {"target": "/proc", "mode": "procfs"},
                {"target": "/dev", "mode": "devfs"},
            ],
        },
    }


def _as_anybody() -> dict[str, Any]:
    """Without namespaces, for in one of its own users udevd would be a stranger."""
    read = [{"path": "/", "allow": ["read", "execute"]}]
    return {"landlock": {"paths": read, "scope": ["abstract-sockets", "signals"], "optional": True}}


def _rules() -> list[dict[str, Any]]:
    """No socket but one that hears of devices, and no other process."""

    def other(index: int, value: int) -> dict[str, Any]:
        return {
            "syscall": "socket", "action": "SCMP_ACT_ERRNO", "errno": 1,
            "args": {"index": index, "op": "!=", "value": value},
        }  # fmt: skip

    denied = [{"syscall": name, "action": "SCMP_ACT_ERRNO", "errno": 1} for name in (*DENIED, *_OTHERS)]
    return [*denied, other(0, _AF_NETLINK), other(2, _KOBJECT_UEVENT)]
