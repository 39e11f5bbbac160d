"""Which namespaces a sandbox has of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from initspawn.plan import NAMESPACES, Api, Mount

Build = Callable[..., Api]
Problems = Callable[..., list[str]]
ALL = set(NAMESPACES)
NEVER_ASKED = {"mnt", "pid"}


def of_root(build: Build, shares: dict[str, str], **opts: Any) -> set[str]:
    namespace = {"shares": shares, "opts": opts}
    (sandbox,) = build({"acls": {"user": "daemon"}, "namespace": namespace}, user=0).sandboxes
    assert list(sandbox.namespaces) == [name for name in NAMESPACES if name in sandbox.namespaces]
    assert ("user" in sandbox.namespaces) == (sandbox.id_map is not None)
    return set(sandbox.namespaces)


@pytest.mark.parametrize(
    ("shares", "private"),
    [
        ({}, NEVER_ASKED),
        ({"all": "default"}, NEVER_ASKED),
        ({"all": "enable"}, NEVER_ASKED),
        ({"all": "disable"}, ALL),
        ({"all": "disable", "net": "enable", "uts": "enable"}, ALL - {"net", "uts"}),
        ({"all": "disable", "net": "default"}, ALL),
        ({"all": "enable", "net": "disable"}, NEVER_ASKED | {"net"}),
        ({"pid": "enable"}, {"mnt"}),
        ({"pid": "disable"}, NEVER_ASKED),
        ({"all": "disable", "pid": "enable"}, ALL - {"pid"}),
        ({"users": "disable"}, NEVER_ASKED | {"user"}),
        ({"user": "disable"}, NEVER_ASKED | {"user"}),
        ({"cgroup": "disable"}, NEVER_ASKED | {"cgroup"}),
        ({"cgroups": "disable", "ipc": "disable", "uts": "disable"}, NEVER_ASKED | {"cgroup", "ipc", "uts"}),
    ],
)
def test_shares(build: Build, shares: dict[str, str], private: set[str]) -> None:
    assert of_root(build, shares) == private


def test_an_ordinary_user_always_has_own_users(build: Build, problems: Problems) -> None:
    for shares in ({}, {"all": "enable"}, {"users": "default"}):
        (sandbox,) = build({"namespace": {"shares": shares}}).sandboxes
        assert set(sandbox.namespaces) == NEVER_ASKED | {"user"}
        assert sandbox.id_map is not None
        assert sandbox.id_map.first
    (said,) = problems({"namespace": {"shares": {"users": "enable"}}})
    assert "an ordinary user gets no namespace without a user namespace of its own" in said


def test_no_section_no_namespace(build: Build) -> None:
    (sandbox,) = build({}).sandboxes
    assert (sandbox.namespaces, sandbox.id_map, sandbox.mounts, sandbox.new_root) == ((), None, (), False)


def test_without_mounts_the_hosts_tree_with_an_own_proc(build: Build) -> None:
    (sandbox,) = build({"namespace": {}}).sandboxes
    assert sandbox.mounts == (Mount(operation="proc", target="/proc"),)
    assert not sandbox.new_root
    (sandbox,) = build({"namespace": {"shares": {"pid": "enable"}}}).sandboxes
    assert sandbox.mounts == ()


def test_host_name(build: Build, problems: Problems) -> None:
    assert of_root(build, {}, hostname="box-1.lan") == NEVER_ASKED | {"uts"}
    (sandbox,) = build({"namespace": {"opts": {"hostname": "box"}}}).sandboxes
    assert sandbox.hostname == "box"
    for name in ("-a", "a b", "a_b", "a..b", "a" * 65, "", "a\n"):
        (said,) = problems({"namespace": {"opts": {"hostname": name}}})
        assert "hostname" in said
    (said,) = problems({"namespace": {"opts": {"hostname": "a"}, "shares": {"uts": "enable"}}})
    assert "uts" in said


@pytest.mark.parametrize("word", [True, None, "on", 1, []])
def test_bad_words(problems: Problems, word: Any) -> None:
    (said,) = problems({"namespace": {"shares": {"net": word}}})
    assert "shares.net" in said
