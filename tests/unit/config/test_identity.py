"""Who commands run as, for a supervisor that is root and for one that is not."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from typing import Any

import pytest

from initspawn.config.target import here
from initspawn.linux import lsm
from initspawn.linux.capabilities import NAMES
from initspawn.plan import Api, IdMap, Sandbox

Build = Callable[..., Api]
Problems = Callable[..., list[str]]
DAEMON = pwd.getpwnam("daemon")
HIDDEN = {"shares": {"users": "disable"}}


@pytest.fixture
def sandbox(build: Build) -> Callable[..., Sandbox]:
    def sandbox(keys: dict[str, Any], **options: Any) -> Sandbox:
        return build(keys, **options).sandboxes[0]

    return sandbox


def test_root_must_name_a_user(problems: Problems) -> None:
    for acls in ({}, {"acls": {"group": "daemon"}}):
        (said,) = problems(acls, user=0)
        assert "as root a sandbox must name the user its commands run as" in said
        assert "`user: root` to really run as root" in said


@pytest.mark.parametrize("name", ["daemon", DAEMON.pw_uid, str(DAEMON.pw_uid)])
def test_root_becomes_the_user(sandbox: Callable[..., Sandbox], name: Any) -> None:
    made = sandbox({"acls": {"user": name}}, user=0)
    assert (made.user, made.group, made.groups) == (DAEMON.pw_uid, DAEMON.pw_gid, ())
    assert made.id_map is None
    assert made.namespaces == ()
    assert dict(made.environment) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": DAEMON.pw_dir,
        "USER": "daemon",
    }


def test_groups_are_asked_for(sandbox: Callable[..., Sandbox], problems: Problems) -> None:
    """As this machine's own user database has them."""
    audio = grp.getgrnam("audio").gr_gid
    acls = {"user": "daemon", "groups": ["audio", audio, str(audio), DAEMON.pw_gid]}
    assert sandbox({"acls": acls}, user=0).groups == (audio,)  # each once, and not the primary one
    mine = set(os.getgrouplist("daemon", DAEMON.pw_gid)) - {DAEMON.pw_gid}
    assert sandbox({"acls": {"user": "daemon", "groups": "user"}}, user=0).groups == tuple(sorted(mine))
    (said,) = problems({"acls": {"user": "daemon", "groups": [2**32 - 1]}}, user=0)
    assert "must be from 0" in said


@pytest.mark.parametrize("groups", ["user", ["audio"], [0]])
def test_an_ordinary_user_takes_on_no_groups(problems: Problems, groups: Any) -> None:
    for keys in ({}, {"namespace": HIDDEN}):
        (said,) = problems({"acls": {"groups": groups}, **keys})
        assert "acls.groups: an ordinary user cannot take on groups, and keeps its own" in said


def test_root_for_root(sandbox: Callable[..., Sandbox]) -> None:
    made = sandbox({"acls": {"user": "root", "group": 7}}, user=0)
    assert (made.user, made.group, made.groups) == (0, 7, ())


def test_a_number_without_a_name_needs_a_group(sandbox: Callable[..., Sandbox], problems: Problems) -> None:
    made = sandbox({"acls": {"user": 4000111, "group": 4000112}}, user=0)
    assert (made.user, made.group) == (4000111, 4000112)
    assert dict(made.environment)["HOME"] == "/"
    (said,) = problems({"acls": {"user": 4000111}}, user=0)
    assert "say `group` too" in said


@pytest.mark.parametrize(
    ("acls", "said"),
    [
        ({"user": "deamon"}, "did you mean `daemon`?"),
        ({"user": "daemon", "group": "nosuchgroup"}, "there is no group"),
        ({"user": 2**32 - 1}, "must be from 0"),
        ({"user": "4294967295"}, "is no user or group number"),
        ({"user": -1}, "must be from 0"),
        ({"user": ""}, "there is no user"),
    ],
)
def test_nobody_of_that_name(problems: Problems, acls: dict[str, Any], said: str) -> None:
    (problem,) = problems({"acls": acls}, user=0)
    assert said in problem


def test_an_ordinary_user_stays_what_it_is(sandbox: Callable[..., Sandbox], ordinary: int) -> None:
    for acls in ({}, {"user": ordinary}, {"user": str(ordinary), "group": ordinary}, {"group": ordinary}):
        made = sandbox({"acls": acls})
        assert (made.user, made.group, made.groups, made.id_map) == (ordinary, ordinary, None, None)


def test_an_ordinary_user_becomes_nobody_else(problems: Problems) -> None:
    (said,) = problems({"acls": {"user": "daemon"}})
    assert "an ordinary user cannot become `daemon`" in said
    assert "run initspawn as root, or set `namespace.shares.users: disable`" in said
    (said,) = problems({"acls": {"group": "daemon"}})
    assert "an ordinary user cannot take on group `daemon`" in said
    (said,) = problems({"acls": {"user": "daemon"}, "namespace": {}})
    assert "cannot become" in said


def test_an_ordinary_user_may_show_another_identity(sandbox: Callable[..., Sandbox], ordinary: int) -> None:
    made = sandbox({"acls": {"user": "daemon"}, "namespace": HIDDEN})
    assert (made.user, made.group, made.groups) == (ordinary, ordinary, None)
    assert made.id_map == IdMap(
        inside_uid=DAEMON.pw_uid,
        outside_uid=ordinary,
        inside_gid=DAEMON.pw_gid,
        outside_gid=ordinary,
        first=True,
    )
    assert dict(made.environment)["USER"] == "daemon"
    made = sandbox({"namespace": HIDDEN})
    assert made.id_map is not None
    assert (made.id_map.inside_uid, made.id_map.inside_gid) == (ordinary, ordinary)


def test_root_gives_an_own_user_namespace_last(sandbox: Callable[..., Sandbox]) -> None:
    made = sandbox({"acls": {"user": "daemon"}, "namespace": HIDDEN}, user=0)
    uid, gid = DAEMON.pw_uid, DAEMON.pw_gid
    assert made.id_map == IdMap(inside_uid=uid, outside_uid=uid, inside_gid=gid, outside_gid=gid, first=False)
    assert "user" in made.namespaces


@pytest.mark.parametrize(("text", "mask"), [("027", 0o027), ("0", 0), ("0077", 0o077), ("777", 0o777)])
def test_umask(sandbox: Callable[..., Sandbox], text: str, mask: int) -> None:
    assert sandbox({"acls": {"umask": text}}).umask == mask
    assert sandbox({}).umask == 0o022


@pytest.mark.parametrize("given", [27, 0o27, "zz", "8", "", "1000", "-1", "0o27", None])
def test_no_umask(problems: Problems, given: Any) -> None:
    (said,) = problems({"acls": {"umask": given}})
    assert "umask" in said
    if isinstance(given, int):
        assert "write it in quotes" in said


def test_directory(sandbox: Callable[..., Sandbox], problems: Problems) -> None:
    assert sandbox({}).directory == "/"
    assert sandbox({"acls": {"chdir": "/usr"}}).directory == "/usr"
    for path, said in (("usr", "not absolute"), ("/nosuch", "no directory"), ("/etc/passwd", "no directory")):
        (problem,) = problems({"acls": {"chdir": path}})
        assert said in problem


def test_timeouts(build: Build) -> None:
    def timeout(acls: dict[str, Any], **command: Any) -> float:
        return build({"acls": acls}, **command).commands[0].timeout

    assert timeout({}) == 0
    assert timeout({"timeout": 5}) == 5
    assert timeout({"timeout": 5}, timeout=2) == 2
    assert timeout({"timeout": 5}, timeout=0) == 0


def test_environment_entries_apply_in_order(sandbox: Callable[..., Sandbox], problems: Problems) -> None:
    entries = [
        {"name": "A", "value": "1"},
        {"key": "B"},
        {"name": "A", "mode": "UNSET"},
        {"name": "LANG", "mode": "unset"},
        {"name": "NEVER", "mode": "unset"},
        {"name": "HOME", "value": "$UID$X", "mode": "set"},
    ]
    made = dict(sandbox({"envs": entries}, environ={"X": "x", "SECRET": "s"}).environment)
    assert made["B"] == ""
    assert not {"A", "LANG", "NEVER", "SECRET"} & made.keys()
    assert made["HOME"].endswith("x")
    for entry, said in (
        ({"name": ""}, "may not be empty"),
        ({"name": "A=B"}, "holds no `=`"),
        ({"name": "A\0"}, "NUL"),
        ({"name": "A", "value": 1}, "must be text"),
        ({"name": "A", "mode": "default"}, "unknown word"),
        ({"name": "A", "value": "$NOSUCH"}, "`$NOSUCH`"),
        ({"value": "x"}, "`name` is missing"),
    ):
        (problem,) = problems({"envs": entry})
        assert said in problem


def caps(*entries: tuple[str, str]) -> dict[str, Any]:
    return {"caps": [{"cap": cap, "mode": mode} for cap, mode in entries], "namespace": {}}


def test_every_capability_by_name(sandbox: Callable[..., Sandbox]) -> None:
    for bit, name in enumerate(NAMES):
        for written in (name, name.lower(), f"CAP_{name}"):
            assert sandbox(caps((written, "set"))).capabilities == 1 << bit


def test_capabilities_apply_in_order_to_nothing(sandbox: Callable[..., Sandbox]) -> None:
    assert sandbox(caps(("KILL", "unset"))).capabilities == 0
    assert sandbox(caps(("KILL", "set"), ("CHOWN", "set"), ("KILL", "unset"))).capabilities == 1
    everything = sandbox(caps(("ALL", "set"))).capabilities
    assert everything == (1 << everything.bit_length()) - 1
    assert sandbox(caps(("LAST_CAP", "set"))).capabilities == 1 << everything.bit_length() - 1
    assert sandbox(caps(("ALL", "set"), ("CHOWN", "unset"))).capabilities == everything - 1
    assert sandbox(caps(("ALL", "set"), ("ALL", "unset"))).capabilities == 0


def test_capabilities_that_cannot_be(problems: Problems) -> None:
    (said,) = problems({"caps": {"cap": "KILL", "mode": "set"}})
    assert "an ordinary user has no capabilities to give" in said
    assert "`namespace`" in said
    for entry, said in (
        ({"cap": "NET_ADMN", "mode": "set"}, "did you mean `NET_ADMIN`?"),
        ({"cap": "KILL"}, "`mode` is missing"),
        ({"cap": "KILL", "mode": "drop"}, "unknown word"),
        ({"cap": 5, "mode": "set"}, "must be text"),
    ):
        (problem,) = problems({"caps": entry, "namespace": {}})
        assert said in problem


def test_unset_needs_no_namespace(sandbox: Callable[..., Sandbox]) -> None:
    assert sandbox({"caps": {"cap": "KILL", "mode": "unset"}}).capabilities == 0


def test_root_gives_what_it_has(
    sandbox: Callable[..., Sandbox], problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("initspawn.config.compile.here", lambda: here()._replace(bounding=0b100001))
    acls = {"acls": {"user": "daemon"}}
    every = {"caps": {"cap": "ALL", "mode": "set"}, **acls}
    assert sandbox(every, user=0).capabilities == 0b100001
    (said,) = problems({"caps": {"cap": "SYS_ADMIN", "mode": "set"}, **acls}, user=0)
    assert "initspawn itself was started without SYS_ADMIN" in said
    # A user namespace of its own begins with all of them.
    assert sandbox({**every, "namespace": HIDDEN}, user=0).capabilities > 0b100001


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A security module that runs."""
    monkeypatch.setattr(lsm, "labelling", lambda: lsm.SELINUX)


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("LSM_LABEL_SBOX", "s"), ("LSM_LABEL_API", "t"), ("LSM_LABEL_CMD", "c"), ("LSM_LABEL_NO", None),
        ("LSM_LABEL_NONE", None), ("u:r:t", "u:r:t"), ({"name": "LSM_LABEL_SBOX"}, "s"),
    ],
)  # fmt: skip
def test_labels(build: Callable[..., Any], value: Any, label: str | None) -> None:
    made = build({"acls": {"label": value}}).sandboxes[0]
    assert (made.label, made.label_optional) == (label, False)


def test_a_label_where_nobody_labels(
    build: Callable[..., Any], problems: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lsm, "labelling", lambda: "")
    (said,) = problems({"acls": {"label": "LSM_LABEL_SBOX"}})
    assert "acls.label: neither SELinux nor Smack runs here (say `{name: LABEL, optional: true}`" in said
    made = build({"acls": {"label": {"name": "x", "optional": True}}}).sandboxes[0]
    assert (made.label, made.label_optional) == ("x", True)
    assert build({"acls": {"label": "LSM_LABEL_NO"}}).sandboxes[0].label is None


@pytest.mark.usefixtures("module")
def test_selinux_is_the_label_of_the_sandbox(
    build: Callable[..., Any], problems: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"namespace": {"opts": {"selinux": True}}}
    assert build(asked).sandboxes[0].label == build({"acls": {"label": "LSM_LABEL_SBOX"}}).sandboxes[0].label
    assert build({"namespace": {"opts": {"selinux": False}}}).sandboxes[0].label is None
    (said,) = problems({**asked, "acls": {"label": "u:r:t"}})
    assert "namespace.opts.selinux: `acls.label` says the label already (keep one of them)" in said
    for module in ("", lsm.SMACK):
        monkeypatch.setattr(lsm, "labelling", lambda module=module: module)
        (said,) = problems(asked)
        assert "namespace.opts.selinux: SELinux does not run here (remove it, or say `acls: {label:" in said


@pytest.mark.usefixtures("module")
def test_what_is_no_label(problems: Callable[..., list[str]]) -> None:
    (said,) = problems({"acls": {"label": "LSM_LABEL_SANDBOX"}})
    assert "unknown label" in said
    commands = [{"uid": name, "exec": {"cmdpath": "/bin/true"}} for name in ("a", "b")]
    (said,) = problems({"acls": {"label": "LSM_LABEL_CMD"}, "commands": commands})
    assert "write a sandbox for each" in said
