"""`guard`: who may talk before a command is ready, as a rule set that nft(8) takes in one piece.

It is installed by a task of a hidden API, confined and measured like any other.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from initspawn.config.guard_schema import Guard, Passage
from initspawn.config.python import literal
from initspawn.config.spot import Spot, nearest, shown
from initspawn.config.target import Target
from initspawn.plan import EXITED, NOTIFY, Command

API = "guard"
CLOSE, OPEN = "close", "open"
NFT = ("/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft")
# Of what the kernel takes, what nft(8) does not interpret.
_LINK = re.compile(r"(?!\.\.?$)[A-Za-z0-9_.@-]{1,15}")
# Adding comes first: what is not there cannot be deleted. All is one transaction of the kernel's.
_GONE = ("add table inet initspawn", "delete table inet initspawn")
_NEIGHBOURS_OUT = (
    "nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld-listener-report, mld2-listener-report"
)
_NEIGHBOURS_IN = "nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert, mld-listener-query"
_DHCP = ((68, 67), (546, 547))  # ports of client and server


class Wanted(NamedTuple):
    """A guard that is sound: the command in full, the rule sets, and what becomes of it on failure."""

    until: str
    close: str
    open_on_failure: bool


def check_guard(given: Guard, api: str, commands: dict[str, Command], user: int, spot: Spot) -> Wanted | None:
    """The guard that one file asks for; None, with the reasons noted at `spot`, if it cannot be."""
    if user != 0:
        spot.refuse("only root may say who talks", "let the supervisor run as root, or take it out")
    full = f"{api}/{given.until}"
    full = full if full in commands else given.until
    command = commands.get(full)
    if command is None:
        own = [name.removeprefix(f"{api}/") for name in commands if name.startswith(f"{api}/")]
        hint = nearest(given.until, [*own, *commands])
        spot["until"].refuse(f"there is no command {shown(given.until)}", hint)
    elif command.autostart is None:
        hint = "give it an `autostart`"
        spot["until"].refuse(f"nothing starts `{full}`: it would be closed for ever", hint)
    elif command.autostart.ready not in (EXITED, NOTIFY):
        hint = "write `ready: exited` or `ready: notify` there"
        spot["until"].refuse(f"`{full}` is ready as soon as it runs, tunnel or not", hint)
    elif given.on_failure == "open" and command.autostart.restart and not command.autostart.restart.tries:
        hint = f"give the `restart` of `{full}` a number of `tries`"
        spot["on_failure"].refuse("it would never open: the command never fails for good", hint)
    passages = [_passage(entry, spot["allow"][index]) for index, entry in enumerate(given.allow)]
    if not spot.clean:
        return None
    rules = _rules([passage for passage in passages if passage], given.addresses)
    return Wanted(full, "\n".join(rules), given.on_failure == "open")


def _passage(entry: Passage, spot: Spot) -> tuple[str, str] | None:
    """What matches its packets, and what matches the first packet that comes back without having been
    asked for (empty: none may).
    """
    out, back = [], []
    if entry.link is not None:
        if not _LINK.fullmatch(entry.link):
            spot["link"].refuse(f"{shown(entry.link)} is no link's name", "write one such as wg0")
        out.append(f'oifname "{entry.link}"')
        back.append(f'iifname "{entry.link}"')
    if entry.mark is not None:
        out.append(f"meta mark {entry.mark:#x}")
        back = []  # nobody else's packets have our marks
    if entry.endpoint is not None:
        found = _endpoint(entry.endpoint)
        if found is None:
            hint = "write 192.0.2.1:51820 or [2001:db8::1]:51820; a name cannot be asked for yet"
            spot["endpoint"].refuse(f"{shown(entry.endpoint)} is no address and port", hint)
            return None
        family, address, port = found
        out.append(f"{family} daddr {address} udp dport {port}")
        back.append(f"{family} saddr {address} udp sport {port}")
    if not out and spot.clean:
        spot.refuse("says nothing of the packets, so it would let all out", "write `mark` or `endpoint`")
    if not out:
        return None
    return " ".join(out), " ".join(back)


def _endpoint(text: str) -> tuple[str, str, int] | None:
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return None
    if (address.version == 6) != bracketed or getattr(address, "scope_id", None):
        return None
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536):
        return None
    return ("ip6" if bracketed else "ip"), str(address), int(port)


def _rules(passages: list[tuple[str, str]], addresses: list[Any]) -> Iterator[str]:
    """The commands of nft(8) that put this table in the place of the one before."""
    yield from _GONE
    yield "table inet initspawn {"
    outward = [f"{out} counter accept" for out, _ in passages]
    inward = [f"{back} accept" for _, back in passages if back]
    if "dhcp" in addresses:
        outward += [f"udp sport {mine} udp dport {its} accept" for mine, its in _DHCP]
        inward += [f"udp sport {its} udp dport {mine} accept" for mine, its in _DHCP]
    if "neighbours" in addresses:
        outward.append(f"icmpv6 type {{ {_NEIGHBOURS_OUT} }} accept")
        inward.append(f"icmpv6 type {{ {_NEIGHBOURS_IN} }} accept")
    yield from _chain("output", ["oif lo accept", *outward])
    yield from _chain("input", ["iif lo accept", "ct state established accept", *inward])
    yield from _chain("forward", [])
    yield "}"


def _chain(hook: str, rules: list[str]) -> Iterator[str]:
    yield f"chain {hook} {{"
    yield f"type filter hook {hook} priority filter; policy drop;"
    yield from rules
    yield "counter"  # how many are dropped
    yield "}"


def find_nft(target: Target, spot: Spot) -> str | None:
    """Where nft(8) is on that machine; noted at `spot` if it is nowhere."""
    for path in NFT:
        if os.path.isfile(target.tree.place(path)) and target.tree.is_executable(path):
            return path
    spot.refuse(
        f"there is no nft in {target.tree.root or 'this machine'}, which installs the rules",
        "install nftables (Debian and Yocto: nftables; Buildroot: BR2_PACKAGE_NFTABLES)",
    )
    return None


def guard_config(nft: str, rules: str) -> dict[str, Any]:
    """The configuration of the hidden API whose commands close and open the guard."""

    def command(uid: str, text: str) -> dict[str, Any]:
        return {
            "uid": uid, "exec": {"cmdpath": nft, "args": [literal(text)]}, "encoder": "line", "warm": 0,
            "timeout": 30,
        }  # fmt: skip

    return {
        "metadata": {"uid": API, "api": API},
        "sandboxes": {
            "uid": "nft",
            "acls": {"user": 0, "group": 0},
            "caps": [{"cap": "NET_ADMIN", "mode": "set"}],
            "namespace": {"shares": {"ipc": "disable", "uts": "disable"}},
            "commands": [command(CLOSE, rules), command(OPEN, "\n".join(_GONE))],
        },
    }

