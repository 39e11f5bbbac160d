"""Groups of tasks, in a directory that behaves as a cgroup v2 hierarchy does where that matters."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from initspawn.errors import PlanError
from initspawn.linux import cgroup, process
from initspawn.plan import Api, Plan, Sandbox
from initspawn.supervisor.groups import Groups

ALL = "cpuset cpu io memory pids"
ME = str(os.getpid())
NAME = f"{ME}-{process.began()}"
# The fragment of spawn-binding's documentation, as it is compiled.
LIMITS = (
    ("cpuset.cpus", "1-4"), ("cpu.weight", "100"), ("cpu.max", "100000 100000"),
    ("memory.max", str(512 << 20)), ("memory.high", str(256 << 20)), ("memory.min", str(128 << 10)),
)  # fmt: skip
FILES = {
    "memory": ("memory.max", "memory.high", "memory.min", "memory.swap.max", "memory.oom.group"),
    "cpu": ("cpu.max", "cpu.weight"),
    "cpuset": ("cpuset.cpus", "cpuset.cpus.effective"),
    "pids": ("pids.max",),
    "io": ("io.max",),
}


class Tree:
    """The kernel's part: files appear with a directory, and the no-internal-process rule holds."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place
        self._mkdir, self._rmdir = os.mkdir, os.rmdir
        self.real_root = False
        self.ignores = ""  # a file that keeps what it had
        self.processors = ""  # those in effect, whatever is asked for
        monkeypatch.setattr(os, "mkdir", self.mkdir)
        monkeypatch.setattr(os, "rmdir", self.rmdir)
        monkeypatch.setattr(cgroup, "write", self.write)
        monkeypatch.setattr(cgroup, "mount_point", lambda: str(place))
        monkeypatch.setattr(cgroup, "old_controllers", set)
        self._fill(place, ALL)

    def _fill(self, group: Path, controllers: str) -> None:
        for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.kill"):
            (group / name).write_text("")
        (group / "cgroup.controllers").write_text(controllers + "\n")
        for name in controllers.split():
            for file in FILES[name]:
                (group / file).write_text("max\n")

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self._mkdir(path, mode)
        if Path(path).is_relative_to(self.place):
            handed_on = (Path(path).parent / "cgroup.subtree_control").read_text()
            self._fill(Path(path), handed_on)

    def rmdir(self, path: str) -> None:
        group = Path(path)
        if (group / "cgroup.procs").exists():
            if (group / "cgroup.procs").read_text() or any(entry.is_dir() for entry in group.iterdir()):
                raise OSError(errno.EBUSY, "busy")
            for file in group.iterdir():
                file.unlink()
        self._rmdir(path)

    def write(self, group: str, name: str, text: str) -> None:
        file = Path(group) / name
        if name == "cgroup.subtree_control":
            if (Path(group) / "cgroup.procs").read_text() and not self.real_root:
                raise OSError(errno.EBUSY, "Device or resource busy", str(file))
            now = set(file.read_text().split())
            now |= {word[1:] for word in text.split() if word[0] == "+"}
            now -= {word[1:] for word in text.split() if word[0] == "-"}
            file.write_text(" ".join(sorted(now)))
        elif name == "cgroup.procs":
            for procs in self.place.rglob(name):
                procs.write_text("".join(f"{pid}\n" for pid in procs.read_text().split() if pid != ME))
            file.write_text(f"{ME}\n")
        elif not file.exists():
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(file))
        elif name != self.ignores:
            file.write_text(f"{text}\n")
            if name.startswith("cpuset."):
                (Path(group) / f"{name}.effective").write_text(self.processors or text)

    def groups(self) -> Groups:
        """As of a supervisor that was started in the unit `unit`, alone."""
        unit = self.place / "unit"
        self._mkdir(unit)
        self._fill(unit, (self.place / "cgroup.controllers").read_text())
        (unit / "cgroup.procs").write_text(f"{ME}\n")
        return Groups(str(unit))

    def left(self) -> list[str]:
        """The groups below the unit."""
        return sorted(str(path.relative_to(self.place)) for path in self.place.rglob("*/") if path.is_dir())


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    return Tree(tmp_path, monkeypatch)


def box(**values: object) -> Sandbox:
    return Sandbox(**{"uid": "box", "user": 1, "group": 1, "cgroup": LIMITS, **values})


def api_of(*sandboxes: Sandbox) -> Api:
    return Api(uid="a", api="api", sandboxes=sandboxes)


def plan_of(*sandboxes: Sandbox) -> Plan:
    return Plan(user=0, group=0, apis=(api_of(*sandboxes),))


def test_check_120_limits_are_in_the_files(tree: Tree) -> None:
    groups, sandbox = tree.groups(), box()
    groups.fit(plan_of(sandbox))
    main = groups.make(api_of(sandbox), sandbox, "task-1")
    assert main == f"{tree.place}/unit/initspawn-{NAME}/_api.box/task-1/main"
    task = Path(main).parent
    assert {name: (task / name).read_text().strip() for name, _ in LIMITS} == dict(LIMITS)
    assert (task / "memory.oom.group").read_text() == "1\n"
    assert (task.parent / "memory.max").read_text() == "max\n"  # the sandbox as a whole has none
    assert groups.differences(main, sandbox) == ""


def test_limits_of_all_tasks_together(tree: Tree) -> None:
    groups, sandbox = tree.groups(), box(cgroup_shared=True)
    groups.fit(plan_of(sandbox))
    main = groups.make(api_of(sandbox), sandbox, "task-1")
    assert main is not None
    home = Path(main).parent.parent
    assert (home / "memory.max").read_text() == f"{512 << 20}\n"
    assert (home / "task-1" / "memory.max").read_text() == "max\n"
    assert (home / "task-1" / "memory.oom.group").read_text() == "1\n"
    assert groups.differences(main, sandbox) == ""


def test_it_leaves_the_unit_s_group_and_comes_back(tree: Tree) -> None:
    groups, sandbox = tree.groups(), box()
    unit = tree.place / "unit"
    groups.fit(plan_of(sandbox))
    assert (unit / "cgroup.procs").read_text() == ""
    assert (unit / f"initspawn-{NAME}.supervisor" / "cgroup.procs").read_text() == f"{ME}\n"
    # What is needed, and what tells what was used.
    assert (unit / "cgroup.subtree_control").read_text() == "cpu cpuset io memory pids"
    groups.close()
    assert (unit / "cgroup.procs").read_text() == f"{ME}\n"
    assert (unit / "cgroup.subtree_control").read_text() == ""
    assert tree.left() == ["unit"]


def test_its_end_needs_no_look_at_who_it_is(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be no descriptor for it."""
    groups, sandbox = tree.groups(), box()
    groups.fit(plan_of(sandbox))

    def fails(*_: str) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(process, "began", fails)
    groups.close()
    assert tree.left() == ["unit"]


def test_the_root_of_the_hierarchy_need_not_be_left(tree: Tree) -> None:
    tree.real_root = True
    (tree.place / "cgroup.procs").write_text(f"{ME}\n1\n")
    groups = Groups(str(tree.place))
    groups.fit(plan_of(box()))
    groups.close()
    assert tree.left() == []


def test_groups_go_with_their_last_task(tree: Tree) -> None:
    groups, sandbox = tree.groups(), box()
    groups.fit(plan_of(sandbox))
    own = f"unit/initspawn-{NAME}.supervisor"
    mains = [groups.make(api_of(sandbox), sandbox, f"task-{number}") for number in (1, 2)]
    for main in mains:
        assert main is not None
        (Path(main) / "cgroup.procs").write_text("77\n")
        assert not groups.remove(main)
        (Path(main) / "cgroup.procs").write_text("")
        assert groups.remove(main)
    assert tree.left() == ["unit", f"unit/initspawn-{NAME}", own]


def lose(tree: Tree) -> None:
    (tree.place / "unit" / "cgroup.controllers").write_text("cpu\n")


def crowd(tree: Tree) -> None:
    (tree.place / "unit" / "cgroup.procs").write_text(f"{ME}\n1\n")


def old(tree: Tree) -> None:
    (tree.place / "cgroup.controllers").write_text("hugetlb\n")
    cgroup.old_controllers = lambda: {"cpu", "memory", "name=systemd"}


def ignoring(tree: Tree) -> None:
    tree.ignores = "memory.high"


def narrow(tree: Tree) -> None:
    tree.processors = "0"


WITHOUT = [
    (lose, "unit has no cpuset memory to hand on (start it in a unit with Delegate=yes"),
    (crowd, "others are in "),
    (old, "version 2 hierarchy has no cpu cpuset memory (version 1 has cpu memory: boot with cgroup_no_v1"),
    (ignoring, f"memory.high is 'max', not '{256 << 20}'"),
    (narrow, "cpuset.cpus is '0 in effect', not '1-4'"),
]


@pytest.mark.parametrize(("spoil", "said"), WITHOUT)
def test_what_cannot_be_applied_is_refused(
    tree: Tree, spoil: Callable[[Tree], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "old_controllers", set)  # put back whatever `old` does
    groups = tree.groups()
    spoil(tree)
    with pytest.raises(PlanError) as caught:
        groups.fit(plan_of(box()))
    assert str(caught.value).startswith("api: sandbox `box`: its cgroups cannot be made: ")
    assert said in str(caught.value)
    assert str(caught.value).endswith("`optional: true` runs it without them")
    groups.close()
    assert tree.left() == ["unit"]


def test_a_file_that_is_not_there_is_named(tree: Tree) -> None:
    groups, sandbox = tree.groups(), box(cgroup=(("memory.bax", "1"),))
    with pytest.raises(PlanError, match=r"trial/memory\.bax: No such file or directory"):
        groups.fit(plan_of(sandbox))
    assert not (tree.place / "unit" / "trial").exists()
    groups.close()
    assert tree.left() == ["unit"]


def test_check_121_optional_limits_are_left_out_with_a_notice(
    tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = tree.groups()
    lose(tree)
    plan = plan_of(box(cgroup_optional=True), Sandbox(uid="other", user=1, group=1))
    fitted = groups.fit(plan)
    assert [sandbox.cgroup for sandbox in fitted.sandboxes()] == [None, None]
    assert fitted.sandboxes()[1] is plan.sandboxes()[1]
    assert "api: sandbox `box` runs without its limits: " in capsys.readouterr().err


def test_a_plan_without_limits_is_left_alone(tree: Tree) -> None:
    groups, plan = tree.groups(), plan_of(box(cgroup=None))
    assert groups.fit(plan) is plan
    assert tree.left() == ["unit"]


def test_a_sandbox_without_limits_gets_a_group_too(tree: Tree) -> None:
    groups, sandbox = tree.groups(), box(uid="procs", cgroup=None)
    main = groups.make(api_of(sandbox).replace(api="cgroup"), sandbox, "task-1")  # `cgroup.procs` is a file
    assert main is not None
    assert Path(main).is_dir()
    groups.close()
    assert tree.left() == ["unit"]
    assert (tree.place / "unit" / "cgroup.procs").read_text() == f"{ME}\n"


def test_other_limits_under_the_same_name_are_another_home(tree: Tree) -> None:
    """After a reload: what runs keeps its limits, and what had them before finds them again."""
    groups, old, new = tree.groups(), box(cgroup_shared=True), box(cgroup_shared=True, cgroup=LIMITS[1:])
    groups.fit(plan_of(old))
    homes = [groups.make(api_of(old), sandbox, f"task-{at}") for at, sandbox in enumerate((old, new, old))]
    assert [str(home).split("/")[-3] for home in homes] == ["_api.box", "+1_api.box", "_api.box"]
    assert [groups.differences(str(home), box) for home, box in zip(homes, (old, new, old), strict=True)] == [
        "", "", "",
    ]  # fmt: skip
    groups.close()
    assert tree.left() == ["unit"]


def test_a_refused_plan_leaves_the_groups_of_what_runs(tree: Tree) -> None:
    groups, good = tree.groups(), box()
    groups.fit(plan_of(good))
    main = groups.make(api_of(good), good, "task-1")
    with pytest.raises(PlanError):
        groups.fit(plan_of(box(cgroup=(("memory.bax", "1"),))))
    assert Path(str(main)).is_dir()
    groups.close()


def test_usage_is_what_the_files_say(tmp_path: Path) -> None:
    group = str(tmp_path)
    assert cgroup.usage(group, {}) == {}
    assert not cgroup.out_of_memory(group)
    (tmp_path / "cpu.stat").write_text("usage_usec 3500000\nuser_usec 1500000\nsystem_usec 2000000\n")
    assert cgroup.usage(group, {}) == {"user-seconds": 1.5, "system-seconds": 2.0}
    (tmp_path / "memory.peak").write_text("4096\n")
    (tmp_path / "pids.peak").write_text("7\n")
    (tmp_path / "io.stat").write_text("8:0 rbytes=10 wbytes=1 rios=1\n259:0 rbytes=5 wbytes=2 rios=1\n")
    more = {"peak-bytes": 4096, "processes": 7, "read-bytes": 15, "written-bytes": 3}
    assert cgroup.usage(group, {}) == {"user-seconds": 1.5, "system-seconds": 2.0, **more}
    # Of another group, which its processes have left: peaks are not added up.
    before = {"user-seconds": 1.0, "peak-bytes": 1, "read-bytes": 5}
    found = cgroup.usage(group, before)
    assert found["user-seconds"] == 2.5
    assert found["peak-bytes"] == more["peak-bytes"]
    assert found["read-bytes"] == more.get("read-bytes", 0) + 5
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    assert cgroup.out_of_memory(group)


def test_memory_is_kept_in_whole_pages() -> None:
    assert cgroup.kept("memory.max", "5000") == str(5000 // os.sysconf("SC_PAGE_SIZE") * 4096)
    assert cgroup.kept("memory.max", "max") == "max"
    assert cgroup.kept("cpu.weight", "5000") == "5000"
