"""Which namespaces a sandbox has of its own."""

from __future__ import annotations

import re
from typing import NamedTuple

from initspawn.config.schema import Namespace, Shares
from initspawn.config.spot import Spot, shown
from initspawn.plan import NAMESPACES

_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")

# The keys of `shares` that `all` speaks for, with the names the kernel gives the namespaces.
_KERNEL_NAMES = {"users": "user", "ipc": "ipc", "net": "net", "cgroups": "cgroup", "uts": "uts"}


class Isolation(NamedTuple):
    """The namespaces of its own, in the plan's order, and whether the ids inside may be others."""

    namespaces: tuple[str, ...] = ()
    disguised: bool = False
    hostname: str | None = None

    @property
    def own_users(self) -> bool:
        return "user" in self.namespaces


def isolate(namespace: Namespace | None, spot: Spot, *, privileged: bool) -> Isolation:
    """What the section asks for, and what the kernel asks for on top. What is wrong is noted."""
    if namespace is None:
        return Isolation()
    shares, hostname = namespace.shares, namespace.opts.hostname
    private = {"mnt"}
    if shares.pid != "enable":
        private.add("pid")
    private.update(kernel for key, kernel in _KERNEL_NAMES.items() if _is_disabled(shares, key))
    disguised = "user" in private
    if hostname is not None:
        private.add("uts")
        if not _HOSTNAME.fullmatch(hostname):
            hint = "it is made of letters, digits, `-` and `.`"
            spot["opts"]["hostname"].refuse(f"{shown(hostname)} is no host name", hint)
        if shares.uts == "enable":
            spot["shares"]["uts"].refuse("a host name of its own needs a uts namespace of its own")
    if not privileged:
        if shares.users == "enable":
            spot["shares"]["users"].refuse(
                "an ordinary user gets no namespace without a user namespace of its own",
                "remove it, or run initspawn as root",
            )
        private.add("user")
    return Isolation(tuple(name for name in NAMESPACES if name in private), disguised, hostname)


def _is_disabled(shares: Shares, key: str) -> bool:
    own: str = getattr(shares, key)
    return own == "disable" or (shares.all == "disable" and own == "default")
