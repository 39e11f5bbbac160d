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

from initspawn import planfile as plans
from initspawn.errors import PlanError
from initspawn.plan import TEXT, Api, Command, IdMap, Mount, Plan, Sandbox
from initspawn.planfile import is_plan, load, save, stale

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

HEAD = plans.MAGIC + plans.fingerprint() + b"\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A stored plan."""
    path = tmp_path / "plan"
    save(PLAN, str(path))
    return path


def stored(body: bytes) -> bytes:
    """A file with that body, in order but for what the body says."""
    return HEAD + zlib.crc32(body).to_bytes(4, "little") + body


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


OTHER = Plan(user=5, group=5)


def test_what_a_plan_replaces_can_be_kept(path: Path) -> None:
    last = path.with_name("plan.last")
    save(PLAN, str(path), keep=True)
    assert not last.exists(), "it is the same plan"
    save(OTHER, str(path), keep=True)
    assert (load(str(path)), load(str(last))) == (OTHER, PLAN)
    save(OTHER, str(path), keep=True)
    assert load(str(last)) == PLAN
    save(PLAN, str(path), keep=True)
    assert (load(str(path)), load(str(last))) == (PLAN, OTHER)
    assert stat.S_IMODE(last.stat().st_mode) == 0o600
    assert sorted(os.listdir(path.parent)) == ["plan", "plan.last"]


@pytest.mark.parametrize("bad", [b"", b"\0rubbish", HEAD + b"1234rubbish"])
def test_what_cannot_be_loaded_is_nothing_to_keep(path: Path, bad: bytes) -> None:
    save(OTHER, str(path), keep=True)
    path.write_bytes(bad)
    save(OTHER.replace(user=6), str(path), keep=True)
    assert load(f"{path}.last") == PLAN


def test_the_first_plan_has_none_before_it(tmp_path: Path) -> None:
    save(PLAN, str(tmp_path / "plan"), keep=True)
    assert os.listdir(tmp_path) == ["plan"]


def test_a_plan_that_cannot_be_kept_is_not_replaced(path: Path) -> None:
    path.with_name("plan.last").mkdir()
    with pytest.raises(IsADirectoryError):
        save(OTHER, str(path), keep=True)
    assert load(str(path)) == PLAN


def test_both_are_on_the_disk_one_after_the_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of power at any moment leaves a plan that can be loaded under the name."""
    seen: list[str] = []
    fsync, rename = os.fsync, os.rename

    def renamed(old: str, new: str) -> None:
        seen.append(os.path.basename(new))
        rename(old, new)

    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "rename", renamed)
    save(OTHER, str(path), keep=True)
    assert seen == ["fsync", "plan.last", "fsync", "fsync", "plan", "fsync"]
    seen.clear()
    save(PLAN, str(path))
    assert seen == ["plan"]


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
    assert f"others may write it (mode {mode:o}): chmod go-w" in refused(path)


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


@pytest.mark.parametrize(
    ("mode", "trusted"), [(0o777, False), (0o1777, False), (0o770, False), (0o755, True)]
)
def test_others_may_not_write_its_directory(path: Path, mode: int, trusted: bool) -> None:
    """Not even with a sticky bit: an older plan of ours could have been linked there."""
    path.parent.chmod(mode)
    try:
        if trusted:
            assert load(str(path)) == PLAN
        else:
            assert f"{path.parent}: others may write it" in refused(path)
    finally:
        path.parent.chmod(0o700)


@pytest.mark.parametrize(("mode", "trusted"), [(0o777, False), (0o1777, True), (0o755, True)])
def test_nor_one_on_the_way(tmp_path: Path, mode: int, trusted: bool) -> None:
    path = tmp_path / "way" / "own" / "plan"
    path.parent.mkdir(parents=True)
    path.parent.chmod(0o755)
    save(PLAN, str(path))
    path.parent.parent.chmod(mode)
    if trusted:
        assert load(str(path)) == PLAN
    else:
        assert f"{path.parent.parent}: others may write it" in refused(path)


@pytest.mark.parametrize("what", ["directory", "fifo"])
def test_only_a_plain_file(tmp_path: Path, what: str) -> None:
    path = tmp_path / "plan"
    (os.mkdir if what == "directory" else os.mkfifo)(path, 0o600)
    assert "no plain file" in refused(path)
    assert not is_plan(str(path))


def test_no_more_is_read_than_a_plan_may_have(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "PLAN_BYTES", path.stat().st_size)
    assert load(str(path)) == PLAN
    monkeypatch.setattr(plans, "PLAN_BYTES", path.stat().st_size - 1)
    assert "larger than" in refused(path)


def test_what_looks_like_a_plan(path: Path, tmp_path: Path) -> None:
    assert is_plan(str(path))
    path.write_bytes(plans.MAGIC)
    assert is_plan(str(path))
    for content in (b"", plans.MAGIC[:-1], b"{}"):
        path.write_bytes(content)
        assert not is_plan(str(path))
    assert not is_plan(str(tmp_path / "nothing"))
    assert not is_plan("a\0b")


def test_another_shape_of_records_is_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plans.fingerprint()
    monkeypatch.setattr(Mount, "_fields", (*Mount._fields, "more"))
    assert plans.fingerprint() != before


def test_stale(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    other.write_text("22")
    sources = tuple(plans.source(str(path), str(path)) for path in (one, other))
    plan = PLAN.replace(sources=sources)
    assert stale(plan) is None
    os.utime(one, (1, 1))
    assert stale(plan) is None  # the same content
    other.write_text("23")
    assert stale(plan) == str(other)
    other.write_text("222")
    assert stale(plan) == str(other)
    other.unlink()
    assert stale(plan) is None
    one.unlink()
    one.mkdir()
    assert stale(plan) == str(one)


def test_what_a_configuration_names_makes_a_plan_stale_as_well(tmp_path: Path) -> None:
    filter_ = tmp_path / "filter"
    filter_.write_text("1")
    plan = PLAN.replace(further=(plans.source(str(filter_), str(filter_)),))
    assert stale(plan) is None
    filter_.write_text("2")
    assert stale(plan) == str(filter_)


def test_trust_comes_before_marshal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(_: bytes) -> Any:
        pytest.fail("bytes that were not checked reached marshal")

    monkeypatch.setattr(marshal, "loads", loads)
    good = path.read_bytes()
    for content, mode in ((good, 0o666), (b"x" * 100, 0o600), (plans.MAGIC, 0o600), (HEAD, 0o600)):
        path.write_bytes(content)
        path.chmod(mode)
        refused(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not a plan"),
        (b"{}", "not a plan"),
        (plans.MAGIC[:-1], "not a plan"),
        (plans.MAGIC, "written by another initspawn"),
        (plans.MAGIC + b"1 0.0.1 00000000\nabcd", "written by another initspawn ('1 0.0.1 00000000')"),
        (HEAD, "damaged"),
        (HEAD + b"\0\0\0", "damaged"),
        (stored(b"x")[:-1] + b"y", "damaged"),
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


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from([*Plan._fields, *Api._fields, *Sandbox._fields]), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=PLAIN | st.fixed_dictionaries({"user": PLAIN, "group": PLAIN, "apis": st.lists(PLAIN, max_size=3)})
)
def test_any_body_is_a_plan_or_refused(path: Path, body: Any) -> None:
    """What is in order but for its shape never ends in another exception."""
    path.write_bytes(stored(marshal.dumps(body, 4)))
    try:
        assert isinstance(load(str(path)), Plan)
    except PlanError as error:
        assert str(error).startswith(f"{path}: holds no plan")  # noqa: PT017


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        marshal.dumps(None),
        marshal.dumps((1, 2, 3)),
        *map(marshal.dumps, (5, [], {}, {"user": 1}, {"user": 0, "group": 0, "more": 1})),
        marshal.dumps({"user": 0, "group": 0, "apis": [{}, "x"]}),
    ],
    ids=repr,
)
def test_a_body_of_another_shape(path: Path, body: bytes) -> None:
    path.write_bytes(stored(body))
    assert "holds no plan" in refused(path)


def test_sandboxes_by_name() -> None:
    api = PLAN.apis[0]
    assert api.sandbox("s") is api.sandboxes[0]
    with pytest.raises(KeyError):
        api.sandbox("other")


def test_who_it_is_for() -> None:
    assert PLAN.privileged
    assert not PLAN.replace(user=1000).privileged
