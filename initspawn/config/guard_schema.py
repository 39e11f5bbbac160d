"""The part of the schema that says who may talk before a tunnel is up."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from initspawn.config.part import Part

Mark = Annotated[int, Meta(ge=1, le=0xFFFFFFFF)]
Text = Annotated[str, Meta(min_length=1)]


class Passage(Part):
    """Packets that may leave all the same: everything that is said of them must hold."""

    noun = "allow entry"
    form = "write {mark: N} or {endpoint: 'ADDRESS:PORT'}"

    mark: Mark | None = None
    endpoint: Text | None = None
    link: Text | None = None


class Guard(Part):
    """A rule set that is there before anything runs."""

    noun = "guard"
    form = "write {until: VERB, allow: {mark: N}}"

    until: Text
    allow: list[Passage] = []
    addresses: list[Literal["dhcp", "neighbours"]] = []
    on_failure: Literal["closed", "open"] = "closed"
