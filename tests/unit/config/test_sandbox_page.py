"""docs/sandbox.md says of each key what it rests on and what it does not protect from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from msgspec import structs

from initspawn.config import schema
from initspawn.config.seccomp import profiles

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "sandbox.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))


def rows(section: str) -> set[str]:
    """What the first columns of a section's tables name."""
    first = re.findall(r"^\| ([^|]*) \|", SECTIONS[section], re.M)
    return {word for cell in first for word in re.findall(r"`([\w.-]+(?:: [\w-]+)?)`", cell)}


@pytest.mark.parametrize(
    ("section", "part", "prefix", "others"),
    [
        ("acls", schema.Acls, "", {"allow_setuid"}),
        ("caps", schema.Cap, "", {"mode: set", "mode: unset"}),
        ("namespace", schema.Shares, "shares.", None),
        ("namespace", schema.NamespaceOpts, "opts.", None),
        ("seccomp", schema.Seccomp, "", None),
    ],
)
def test_each_key_has_a_row(
    section: str, part: type[schema.Part], prefix: str, others: set[str] | None
) -> None:
    told = {name.split(":")[0] for name in rows(section)}
    wanted = {prefix + field.name for field in structs.fields(part)}
    assert wanted - told == set(), f"give it a row in docs/sandbox.md, section {section}"
    if others is not None:
        assert {name for name in rows(section) if name not in wanted} == others


def test_each_mount_mode_and_each_profile_has_a_row() -> None:
    assert set(get_args(schema.MountMode)) <= rows("namespace")
    assert {f"profile: {name}" for name in profiles.names()} <= rows("seccomp")
