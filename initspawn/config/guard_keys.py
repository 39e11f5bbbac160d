"""What the keys of `guard_schema` are for; part of the table in `keys`."""

from __future__ import annotations

from collections.abc import Mapping

from initspawn.config.command_keys import Key

GUARD: Mapping[str, Mapping[str, Key]] = {
    "Passage": {
        "mark": Key(
            "the packet's mark: what WireGuard calls `FwMark` (SO_MARK, which takes a capability)", "0xca6c"
        ),
        "endpoint": Key(
            "UDP to this address and port; an IPv6 address in brackets, no name", "192.0.2.1:51820"
        ),
        "link": Key("the link that it leaves by, which need not exist yet", "wg0"),
    },
    "Guard": {
        "until": Key(
            "the command whose readiness opens it: a verb of this file, or `API/VERB`. It has an `autostart` "
            "with `ready: notify` or `exited`",
            "up",
        ),
        "allow": Key("what may leave meanwhile: one entry or a list of them", {"mark": "0xca6c"}),
        "addresses": Key(
            "how links get addresses meanwhile: `dhcp` (of IPv4 and IPv6), `neighbours` (neighbours, routers "
            "and multicast of IPv6); ARP always passes",
            ["dhcp", "neighbours"],
        ),
        "on_failure": Key(
            "`closed` or `open`: what it is when that command fails, before it was ready or afterwards, and "
            "whether commands may start where the rules cannot be installed",
            "open",
        ),
    },
}
