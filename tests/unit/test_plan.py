"""Stored plans: what is written comes back, and nothing else is ever believed."""

from __future__ import annotations

import marshal
import os
import stat
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from initspawn import plan as plans
from initspawn.errors import PlanError
from initspawn.plan import TEXT, Api, Command, IdMap, Mount, Plan, Sandbox, load, save

PLAN = Plan(
    user=0,
    group=0,
    apis=(
        Api(
            uid="u",
            api="t",
            sandboxes=(
                Sandbox(
                    uid="s",
                    user=1,
                    group=2,
                    groups=(3,),
                    capabilities=1 << 40,
                    namespaces=("user", "mnt"),
                    id_map=IdMap(inside_uid=1, outside_uid=1, inside_gid=2, outside_gid=2, first=False),
                    mounts=(Mount(operation="file", target="/é\udcff", data=b"\0\xff"),),
                    filters=(b"12345678",),
                    limits=((4, 0, -1),),
                ),
            ),
            commands=(
                Command(
                    uid="c", verb="c", sandbox="s", path="/c", arguments=(((TEXT, "a"),),), usage={"x": [1.5]}
                ),
            ),
        ),
    ),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A stored plan."""
    path = tmp_path / "plan"
    save(PLAN, str(path))
    return path


def stored(body: bytes) -> bytes:
    """A file with that body, in order but for what the body says."""
    return plans.MAGIC + zlib.crc32(body).to_bytes(4, "little") + body


def refused(path: Path) -> str:
    with pytest.raises(PlanError) as caught:
        load(str(path))
    return str(caught.value)


def test_there_and_back(path: Path) -> None:
    assert load(str(path)) == PLAN


def test_only_the_owner_may_read_and_nothing_else_is_left(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["plan"]


def test_an_older_plan_is_replaced_whole(path: Path) -> None:
    save(Plan(user=5, group=5), str(path))
    assert load(str(path)) == Plan(user=5, group=5)


def test_a_failing_save_leaves_the_older_plan(path: Path) -> None:
    with pytest.raises(ValueError, match="unmarshallable"):
        save(PLAN.replace(user=object()), str(path))
    assert load(str(path)) == PLAN
    assert os.listdir(path.parent) == ["plan"]


def test_a_save_that_cannot_rename_removes_what_it_wrote(tmp_path: Path) -> None:
    (tmp_path / "plan").mkdir()
    with pytest.raises(IsADirectoryError):
        save(PLAN, str(tmp_path / "plan"))
    assert os.listdir(tmp_path) == ["plan"]


def test_no_link_is_followed(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        load(str(link))


def test_a_missing_plan(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(str(tmp_path / "plan"))


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_others_may_not_write_it(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert f"others may write it (mode {mode:o})" in refused(path)


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400])
def test_others_may_read_it(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert load(str(path)) == PLAN


@pytest.mark.parametrize(("owner", "trusted"), [(0, True), (1000, True), (1001, False)])
def test_owner(path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, trusted: bool) -> None:
    fields = list(path.stat())
    fields[stat.ST_UID] = owner
    monkeypatch.setattr(os, "fstat", lambda _: os.stat_result(fields))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if trusted:
        assert load(str(path)) == PLAN
    else:
        assert "belongs to user 1001" in refused(path)


def test_trust_comes_before_marshal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(_: bytes) -> Any:
        pytest.fail("bytes that were not checked reached marshal")

    monkeypatch.setattr(marshal, "loads", loads)
    for content, mode in ((path.read_bytes(), 0o666), (b"x" * 100, 0o600), (plans.MAGIC, 0o600)):
        path.write_bytes(content)
        path.chmod(mode)
        refused(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not a plan"),
        (b"{}", "not a plan"),
        (plans.MAGIC[:-1], "not a plan"),
        (plans.MAGIC, "damaged"),
        (plans.MAGIC + b"\0\0\0", "damaged"),
        (stored(b"x")[:-1] + b"y", "damaged"),
        (stored(marshal.dumps((plans.FORMAT + 1, {}))), f"format {plans.FORMAT + 1}, this initspawn reads"),
        (stored(marshal.dumps((0, None))), "format 0"),
    ],
)
def test_wrong_content(path: Path, content: bytes, told: str) -> None:
    path.write_bytes(content)
    assert told in refused(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_found(path: Path, data: st.DataObject) -> None:
    """One changed byte, one flipped bit, a piece cut off or appended: never another plan."""
    save(PLAN, str(path))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1), label="at")
    how = data.draw(st.sampled_from(["change", "cut", "append", "insert"]), label="how")
    if how == "change":
        content[at] ^= data.draw(st.integers(1, 255), label="bits")
    elif how == "cut":
        del content[at:]
    elif how == "append":
        content += data.draw(st.binary(min_size=1, max_size=50), label="more")
    else:
        content[at:at] = data.draw(st.binary(min_size=1, max_size=4), label="more")
    path.write_bytes(content)
    refused(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_other_files_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        marshal.dumps(None),
        marshal.dumps((1, 2, 3)),
        *(
            marshal.dumps((plans.FORMAT, plain))
            for plain in (None, 5, [], {}, {"user": 1}, {"user": 0, "group": 0, "more": 1})
        ),
        marshal.dumps((plans.FORMAT, {"user": 0, "group": 0, "apis": [{}, "x"]})),
    ],
    ids=repr,
)
def test_a_body_of_another_shape(path: Path, body: bytes) -> None:
    path.write_bytes(stored(body))
    assert "written by another initspawn or Python" in refused(path)


def test_sandboxes_by_name() -> None:
    api = PLAN.apis[0]
    assert api.sandbox("s") is api.sandboxes[0]
    with pytest.raises(KeyError):
        api.sandbox("other")


def test_who_it_is_for() -> None:
    assert PLAN.privileged
    assert not PLAN.replace(user=1000).privileged
