"""Plans for another machine: looked up in its file tree, filters for its processor, the rest left open."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyseccomp
import pytest

from initspawn import late
from initspawn.config.compile import compile_files
from initspawn.config.target import elsewhere, here
from initspawn.errors import ConfigError, InitspawnError
from initspawn.linux.capabilities import NAMES, NUMBERS
from initspawn.plan import Plan, Sandbox
from initspawn.planfile import load, save
from initspawn.tree import Tree
from tests.unit.config.test_seccomp import ALLOW, ERRNO, KILL_PROCESS, KILL_THREAD, run

AARCH64, X86_64 = 0xC00000B7, 0xC000003E  # AUDIT_ARCH_*, linux/audit.h
Compile = Callable[..., Plan]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The file tree of a small machine that is not this one."""
    root = tmp_path / "root"
    for name in ("etc", "usr/bin", "usr/sbin", "var/lib/tool", "dev", "run", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "bin").symlink_to("usr/bin")
    (root / "usr/bin/tool").write_text("#!/usr/bin/interpreter\n")
    (root / "usr/bin/interpreter").write_bytes(b"any")
    for name in ("tool", "interpreter"):
        (root / "usr/bin" / name).chmod(0o755)
    passwd = (
        "root:x:0:0::/root:/bin/sh\nmaker:x:4711:815:,,,:/home/maker:/bin/sh\nbroken:x:1\n\nmaker:x:1:1:::\n"
    )
    (root / "etc/passwd").write_text(passwd)
    group = "root:x:0:\nmakers:x:815:maker\nmakers:x:1:\n+:::\nmine:x:9:me,maker\nhis:x:8:mak,\n"
    (root / "etc/group").write_text(group)
    return root


@pytest.fixture
def compiled(root: Path, tmp_path: Path) -> Compile:
    """compiled(sandbox keys, machine=..., last_capability=..., command keys...) for that machine, as root."""

    def compiled(
        sandbox: dict[str, Any] | None = None,
        *,
        machine: str = "aarch64",
        last: int | None = None,
        **exec: Any,
    ) -> Plan:
        import json

        command = {"uid": "c", "exec": {"cmdpath": "/usr/bin/tool", **exec}}
        data = {
            "metadata": {"uid": "u", "api": "t"},
            "sandboxes": {"uid": "s", "acls": {"user": "maker"}, "commands": command, **(sandbox or {})},
        }
        path = tmp_path / "config.json"
        path.write_text(json.dumps(data))
        target = elsewhere(str(root), machine=machine, last_capability=last)
        return compile_files([str(path)], user=0, group=0, environ={"FOO": "bar"}, target=target)

    return compiled


@pytest.fixture
def box(compiled: Compile) -> Callable[..., Sandbox]:
    """The one sandbox of such a plan."""
    return lambda *args, **options: compiled(*args, **options).apis[0].sandboxes[0]


def problems(work: Callable[..., object], *args: Any, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        work(*args, **options)
    return str(caught.value)


def test_users_and_groups_are_those_of_the_tree(box: Callable[..., Sandbox]) -> None:
    sandbox = box()
    assert (sandbox.user, sandbox.group) == (4711, 815)
    assert dict(sandbox.environment)["HOME"] == "/home/maker"
    assert box({"acls": {"user": 4711, "group": "makers"}}).group == 815
    assert box({"acls": {"user": 4711}}).group == 815
    assert "there is no user 'markel'; did you mean" in problems(box, {"acls": {"user": "markel"}}).replace(
        " (did", "; did"
    )
    assert "there is no group 'daemon'" in problems(box, {"acls": {"user": 1, "group": "daemon"}})
    assert "user 2 is not known" in problems(box, {"acls": {"user": 2}})


def test_further_groups_are_those_of_the_tree(box: Callable[..., Sandbox]) -> None:
    assert box().groups == ()
    assert box({"acls": {"user": "maker", "groups": "user"}}).groups == (9,)
    assert box({"acls": {"user": 4711, "groups": ["user", "his", 7, "7"]}}).groups == (7, 8, 9)
    assert box({"acls": {"user": "root", "groups": "user"}}).groups == ()
    said = problems(box, {"acls": {"user": "maker", "groups": ["nine"]}})
    assert "acls.groups[0]: there is no group 'nine' (did you mean `mine`?)" in said
    said = problems(box, {"acls": {"user": 12, "group": 1, "groups": "user"}})
    assert "acls.groups: user 12 is not known here and so is in no group" in said


def test_capabilities_of_a_newer_kernel(box: Callable[..., Sandbox], compiled: Compile) -> None:
    """Those that no table here names go by their numbers."""

    def held(*entries: str) -> int:
        caps = [{"cap": name.lstrip("-"), "mode": "unset" if name[0] == "-" else "set"} for name in entries]
        return box({"caps": caps}, last=45).capabilities

    assert held("44", "CAP_45") == 1 << 44 | 1 << 45
    assert held("LAST_CAP") == 1 << 45
    assert held("ALL", "-41") == (1 << 46) - 1 - (1 << 41)
    said = problems(compiled, {"caps": {"cap": "46", "mode": "set"}}, last=45)
    assert "this kernel does not know 46" in said


def test_programs_are_looked_for_in_the_tree(compiled: Compile, root: Path) -> None:
    assert compiled(cmdpath="/bin/tool").apis[0].commands[0].path == "/bin/tool"
    assert "'/bin/sh' does not exist" in problems(compiled, cmdpath="/bin/sh")
    (root / "usr/bin/tool").chmod(0o644)
    assert "is not executable" in problems(compiled)
    (root / "usr/bin/tool").chmod(0o755)
    (root / "usr/bin/interpreter").unlink()
    assert "'/usr/bin/interpreter', which '/usr/bin/tool' needs" in problems(compiled)


def test_no_link_leads_out_of_the_tree(compiled: Compile, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "tool").write_text("any")
    (outside / "tool").chmod(0o755)
    (outside / "passwd").write_text("stranger:x:1:1:::\n")
    for name, text in (("absolute", str(outside)), ("dots", "../" * 20 + str(outside)[1:])):
        (root / name).symlink_to(text)
        assert "does not exist" in problems(compiled, cmdpath=f"/{name}/tool")
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to(outside / "passwd")
    assert "there is no user" in problems(compiled, {"acls": {"user": "stranger"}})
    # The same text leads somewhere inside.
    (root / str(outside)[1:]).mkdir(parents=True)
    (root / str(outside)[1:] / "passwd").write_text("stranger:x:7:8:::\n")
    assert compiled({"acls": {"user": "stranger"}}).apis[0].sandboxes[0].user == 7


def test_links_in_a_circle(root: Path) -> None:
    (root / "circle").symlink_to("circle")
    with pytest.raises(InitspawnError, match="too many symbolic links"):
        Tree(str(root)).real("/circle")
    assert Tree(str(root)).real("/bin/../bin/tool/.") == "/usr/bin/tool"
    assert Tree(str(root)).real("/../..") == "/"


def test_a_tree_without_accounts(root: Path, compiled: Compile) -> None:
    (root / "etc/passwd").unlink()
    (root / "etc/group").unlink()
    said = problems(compiled)
    assert said.endswith("there is no user 'maker'")
    assert compiled({"acls": {"user": 5, "group": 6}}).apis[0].sandboxes[0].user == 5


def test_accounts_that_are_no_plain_file(root: Path) -> None:
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").mkdir()
    with pytest.raises(InitspawnError, match="Is a directory"):
        elsewhere(str(root))
    with pytest.raises(InitspawnError, match="no directory"):
        elsewhere(str(root / "nothing"))


def test_bind_sources_are_those_of_the_tree(box: Callable[..., Sandbox], root: Path) -> None:
    (root / "var/link").symlink_to("/var/lib/tool")
    entries = [{"target": "/usr", "mode": "ro"}, {"target": "/data", "source": "/var/link", "mode": "rw"}]
    usr, data = box({"namespace": {"mounts": entries}}).mounts
    assert (usr.source, usr.late) == ("/usr", "")
    assert (data.source, data.late) == ("/var/lib/tool", "")
    entries[1]["source"] = "/var/missing"
    assert "'/var/missing' does not exist" in problems(box, {"namespace": {"mounts": entries}})


@pytest.mark.not_emulated("openat2(2)")
def test_an_image_is_that_of_the_tree(box: Callable[..., Sandbox], root: Path) -> None:
    image = root / "var/box.squashfs"
    image.write_bytes(b"hsqs")
    image.chmod(0o644)
    (root / "var/link").symlink_to("/var/box.squashfs")
    (first,) = box({"namespace": {"root": {"image": "/var/link"}}}).mounts
    assert (first.operation, first.source, first.late) == ("image", "/var/box.squashfs", "")
    (first,) = box({"namespace": {"root": {"image": "/run/box.squashfs"}}}).mounts
    assert (first.operation, first.source, first.late) == ("image", "/run/box.squashfs", "find")
    image.write_bytes(b"hsq")
    assert "no squashfs image" in problems(box, {"namespace": {"root": {"image": "/var/box.squashfs"}}})
    image.unlink()
    assert "'/var/link' does not exist" in problems(box, {"namespace": {"root": {"image": "/var/link"}}})


def test_what_only_the_running_machine_has_is_looked_for_later(
    box: Callable[..., Sandbox], root: Path
) -> None:
    entries = [
        {"target": "/usr", "mode": "ro"},
        {"target": "/dev/ttyS0", "mode": "rw"},
        {"target": "/home", "source": "$HOME", "mode": "rw"},
        {"target": "/x", "source": "/var/lib/made", "mode": "rw"},
        {"target": "/etc/x", "source": "hostname; echo $SBOXUSER", "mode": "execfd"},
    ]
    namespace = {"mounts": entries, "opts": {"autocreate": True}}
    mounts = box({"namespace": namespace}).mounts
    assert [mount.late for mount in mounts] == ["", "create", "create", "create", "line"]
    assert mounts[4].source == "hostname; echo 4711"
    assert not (root / "var/lib/made").exists()
    namespace["opts"] = {}
    assert "'/var/lib/made' does not exist" in problems(box, {"namespace": namespace})


def test_a_program_that_may_be_there_later(compiled: Compile) -> None:
    mounts = {
        "mounts": [{"target": "/usr", "mode": "ro"}, {"target": "/opt", "source": "/run/opt", "mode": "ro"}]
    }
    assert compiled({"namespace": mounts}, cmdpath="/opt/x").apis[0].commands[0].path == "/opt/x"
    assert compiled(cmdpath="$HOME/bin/x").apis[0].commands[0].path == late.mark("HOME") + "/bin/x"
    assert "is not there inside" in problems(compiled, {"namespace": mounts}, cmdpath="/srv/x")


def test_names_that_stay_open(compiled: Compile) -> None:
    (command,) = compiled(args=["$PID $FOO", "$uuid", "${HOSTNAME:-x}%a%", "$SBINDIR $UID"]).apis[0].commands
    mark = late.mark
    assert command.arguments == (
        (("text", f"{mark('PID')} bar"),),
        (("text", mark("UUID")),),
        (("text", mark("HOSTNAME")), ("required", "a")),
        (("text", "/usr/sbin 0"),),
    )
    assert "`$NOTHING` is neither built in nor in the environment" in problems(compiled, args=["$NOTHING"])


def test_capabilities_of_another_kernel(box: Callable[..., Sandbox]) -> None:
    every = (1 << len(NAMES)) - 1
    sandbox = box({"caps": [{"cap": "ALL", "mode": "set"}, {"cap": "CHOWN", "mode": "set"}]})
    assert sandbox.capabilities == every
    assert sandbox.if_held == every & ~1
    old = NUMBERS["AUDIT_READ"]
    assert box({"caps": {"cap": "ALL", "mode": "set"}}, last=old).capabilities == (1 << old + 1) - 1
    assert "does not know BPF" in problems(box, {"caps": {"cap": "BPF", "mode": "set"}}, last=old)


def rule(syscall: str, action: str) -> dict[str, str]:
    return {"syscall": syscall, "action": action}


@pytest.mark.parametrize(("machine", "arch"), [("aarch64", AARCH64), ("x86_64", X86_64)])
def test_filters_are_for_the_other_processor(
    compiled: Compile, tmp_path: Path, machine: str, arch: int
) -> None:
    """The plan is written, read again, and its filters are run as that processor's kernel would."""
    number = {
        name: int(pyseccomp.resolve_syscall(arch, name)) for name in ("mkdirat", "read", "execve", "ptrace")
    }
    assert (
        number["mkdirat"] == {"aarch64": 34, "x86_64": 258}[machine]
    )  # asm-generic/unistd.h, syscall_64.tbl
    rules = [
        rule("mkdirat", "SCMP_ACT_ERRNO(EACCES)"),
        rule("execve", "SCMP_ACT_ALLOW"),
        rule("open", "SCMP_ACT_TRAP"),  # aarch64 has none
    ]
    plan = compiled(
        {"seccomp": {"rules": rules, "default": "SCMP_ACT_KILL", "locked": True}}, machine=machine
    )
    save(plan, str(tmp_path / "plan"))
    read = load(str(tmp_path / "plan"))
    assert read == plan
    assert (read.machine, read.late) == (machine, True)
    locked, own = read.apis[0].sandboxes[0].filters
    assert run(own, number["mkdirat"], arch=arch) == ERRNO | errno.EACCES
    assert run(own, number["execve"], arch=arch) == ALLOW
    assert run(own, number["read"], arch=arch) == KILL_THREAD
    assert run(locked, number["ptrace"], arch=arch) == ERRNO | errno.EPERM
    assert run(locked, number["read"], arch=arch) == ALLOW
    for other in {AARCH64, X86_64, 0x40000028} - {arch}:
        assert run(own, number["mkdirat"], arch=other) == KILL_PROCESS
        assert run(locked, number["read"], arch=other) == KILL_PROCESS


def test_a_call_that_only_the_other_processor_has(compiled: Compile) -> None:
    """Each of the two knows a call by name that the other has not; a rule for it does no harm."""
    for machine, arch in (("aarch64", AARCH64), ("x86_64", X86_64)):
        rules = [
            rule("open", "SCMP_ACT_ERRNO"),
            rule("renameat", "SCMP_ACT_ERRNO"),
            rule("mkdirat", "SCMP_ACT_TRAP"),
        ]
        plan = compiled({"seccomp": {"default": "SCMP_ACT_ALLOW", "rules": rules}}, machine=machine)
        (program,) = plan.apis[0].sandboxes[0].filters
        for number in range(500):
            wanted = {
                int(pyseccomp.resolve_syscall(arch, "open")): ERRNO | errno.EPERM,
                int(pyseccomp.resolve_syscall(arch, "renameat")): ERRNO | errno.EPERM,
                int(pyseccomp.resolve_syscall(arch, "mkdirat")): 0x00030000,
            }.get(number, ALLOW)
            assert run(program, number, arch=arch) == wanted


def test_sources_are_remembered_by_the_trees_names(compiled: Compile, root: Path, tmp_path: Path) -> None:
    assert [name for name, *_ in compiled().sources] == [str(tmp_path / "config.json")]
    inside = root / "etc" / "x.json"
    inside.write_bytes((tmp_path / "config.json").read_bytes())
    plan = compile_files([str(inside)], user=0, group=0, environ={}, target=elsewhere(str(root)))
    assert [name for name, *_ in plan.sources] == ["/etc/x.json"]


def test_a_filter_is_remembered_with_what_it_was(compiled: Compile, root: Path) -> None:
    def further() -> tuple[tuple[str, int, int], ...]:
        return compiled({"seccomp": {"rulespath": "/etc/filter.bpf"}}).further

    program = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    (root / "etc/filter.bpf").write_bytes(program)
    ((name, size, checksum),) = further()
    assert (name, size) == ("/etc/filter.bpf", len(program))
    (root / "etc/filter.bpf").write_bytes(struct.pack("=HBBI", 0x06, 0, 0, 0x7FFC0000))
    ((*same, other),) = further()
    assert same == [name, size]
    assert other != checksum
    assert compiled().further == ()


def test_here_is_asked_only_when_it_counts() -> None:
    assert here(late=True).bounding == -1
    assert here().machine == os.uname().machine


def test_a_page_is_one_of_the_tree(root: Path, tmp_path: Path) -> None:
    (root / "etc/page").mkdir()
    (root / "etc/page/index.html").write_text("")

    def page(text: str, file: Path) -> str | None:
        file.write_text(f'{{"metadata": {{"uid": "u", "api": "t", "page": "{text}"}}}}')
        target = elsewhere(str(root))
        return compile_files([str(file)], user=0, group=0, environ={}, target=target).apis[0].page

    assert page("page", root / "etc/c.json") == "/etc/page"
    assert page("/etc/page", tmp_path / "c.json") == "/etc/page"
    assert "only the running machine" in problems(page, "page", tmp_path / "c.json")
    assert "only the running machine" in problems(page, "/$HOME", root / "etc/c.json")
    assert "no directory" in problems(page, "/etc/other", tmp_path / "c.json")
