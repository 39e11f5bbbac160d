"""The named profiles, for both processors: their programs are run here, call by call."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pyseccomp
import pytest

from initspawn.config.compile import compile_files
from initspawn.config.seccomp import profiles
from initspawn.config.seccomp.filter import NEWER, assemble, number_of
from initspawn.config.target import here
from initspawn.linux.capabilities import NAMES
from initspawn.linux.seccomp import INSTRUCTION
from initspawn.plan import Api
from tests.unit.config.test_seccomp import ALLOW, ERRNO, KILL_PROCESS, KILL_THREAD, LOG, rule, run

Build = Callable[..., Api]
Problems = Callable[..., list[str]]
X86_64, AARCH64 = int(pyseccomp.Arch.X86_64), int(pyseccomp.Arch.AARCH64)
I386, ARM = 0x40000003, 0x40000028  # AUDIT_ARCH_I386, AUDIT_ARCH_ARM
X32 = 0x40000000
ARCHES = {"x86_64": X86_64, "aarch64": AARCH64}
EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS

CLONE_THREAD, CLONE_VM, CLONE_NEWUSER, CLONE_NEWNET, SIGCHLD = 0x10000, 0x100, 0x10000000, 0x40000000, 17
THREAD = CLONE_VM | 0x200 | 0x400 | 0x800 | CLONE_THREAD  # as pthread_create does it, in part


class Filters:
    """The filters of a sandbox, and what they answer together."""

    def __init__(self, programs: tuple[bytes, ...], arch: int) -> None:
        self.programs = programs
        self.arch = arch

    def __call__(self, name: str, *args: int, arch: int = 0) -> int:
        number = number_of(name, self.arch)
        assert number is not None
        return self.by_number(number, *args, arch=arch)

    def by_number(self, number: int, *args: int, arch: int = 0) -> int:
        """The strictest answer, as in seccomp(2); of two equal actions the last filter's counts."""
        answers = [run(program, number, *args, arch=arch or self.arch) for program in self.programs]
        order = [KILL_PROCESS, KILL_THREAD, 0x30000, ERRNO, 0x7FF00000, LOG, ALLOW]
        return min(reversed(answers), key=lambda answer: order.index(answer & 0xFFFF0000))


Made = Callable[..., Filters]


@pytest.fixture(params=ARCHES)
def made(request: pytest.FixtureRequest, tmp_path: Any) -> Made:
    """made(seccomp, capability...): the filters for one of the processors."""

    def made(seccomp: Any, *caps: str) -> Filters:
        import json

        sandbox = {
            "uid": "s",
            "seccomp": seccomp,
            "namespace": {},
            "caps": [{"cap": name, "mode": "set"} for name in caps],
            "commands": {"uid": "c", "exec": {"cmdpath": "/bin/true"}},
        }
        file = tmp_path / "c.json"
        file.write_text(json.dumps({"metadata": {"uid": "u", "api": "t"}, "sandboxes": sandbox}))
        target = here(late=True, machine=request.param)
        plan = compile_files([str(file)], user=4000, group=4000, environ={}, target=target)
        return Filters(plan.apis[0].sandboxes[0].filters, ARCHES[request.param])

    return made


EVERYDAY = """
    read write close openat newfstatat mmap brk execve wait4 exit_group pipe2 dup3 fcntl rt_sigaction
    rt_sigprocmask getrandom futex rseq prlimit64 set_robust_list statx getdents64 unlinkat renameat2
    fchmodat2 faccessat2 epoll_pwait timerfd_create clock_nanosleep sendmsg connect accept4 kill pidfd_open
    close_range memfd_create prctl landlock_restrict_self seccomp setresuid capset ioctl inotify_init1 mseal
""".split()  # noqa: SIM905
NEVER = """
    add_key keyctl request_key io_uring_setup io_uring_enter io_uring_register userfaultfd kexec_load
    kexec_file_load swapon swapoff modify_ldt lookup_dcookie uselib nfsservctl
""".split()  # noqa: SIM905
# What administers something, and with which capability.
ADMINISTERS = {
    "mount": "SYS_ADMIN", "umount2": "SYS_ADMIN", "pivot_root": "SYS_ADMIN", "setns": "SYS_ADMIN",
    "unshare": "SYS_ADMIN", "open_tree": "SYS_ADMIN", "move_mount": "SYS_ADMIN", "fsopen": "SYS_ADMIN",
    "mount_setattr": "SYS_ADMIN", "open_tree_attr": "SYS_ADMIN", "sethostname": "SYS_ADMIN",
    "fanotify_init": "SYS_ADMIN", "quotactl": "SYS_ADMIN", "bpf": "BPF", "perf_event_open": "PERFMON",
    "syslog": "SYSLOG", "reboot": "SYS_BOOT", "chroot": "SYS_CHROOT", "init_module": "SYS_MODULE",
    "finit_module": "SYS_MODULE", "delete_module": "SYS_MODULE", "mbind": "SYS_NICE", "acct": "SYS_PACCT",
    "ptrace": "SYS_PTRACE", "process_vm_readv": "SYS_PTRACE", "pidfd_getfd": "SYS_PTRACE",
    "kcmp": "SYS_PTRACE", "settimeofday": "SYS_TIME", "clock_settime": "SYS_TIME",
    "open_by_handle_at": "DAC_READ_SEARCH", "vhangup": "SYS_TTY_CONFIG",
}  # fmt: skip


def test_the_default_profile_allows_what_programs_do_and_nothing_else(made: Made) -> None:
    default = made("default")
    assert {name: default(name) for name in EVERYDAY} == dict.fromkeys(EVERYDAY, ALLOW)
    denied = [*NEVER, *ADMINISTERS]
    found = {name: default(name) for name in denied if number_of(name, default.arch) >= 0}  # type: ignore[operator]
    assert found == dict.fromkeys(found, EPERM)
    assert len(found) > 40


@pytest.mark.parametrize(("name", "capability"), ADMINISTERS.items())
def test_what_administers_goes_with_its_capability(made: Made, name: str, capability: str) -> None:
    others = [cap for cap in NAMES if cap not in (capability, "SYS_ADMIN")]
    with_it, without = made("default", capability), made("default", *others)
    if (number_of(name, without.arch) or 0) >= 0:
        assert with_it(name) == ALLOW
        assert without(name) == EPERM


def test_every_number_there_is(made: Made) -> None:
    """No capability: how many calls are allowed, whatever their arguments, and how many fail; all newer ones
    are not there.
    """
    default = made("default")
    known = {}
    for number in range(470):
        try:
            known[number] = pyseccomp.resolve_syscall(default.arch, number).decode()
        except ValueError:
            continue
    answers = {name: default.by_number(number, 0) for number, name in known.items()}
    refused = {name for name, answer in answers.items() if answer != ALLOW}
    assert {answers[name] for name in refused} == {EPERM, ENOSYS}
    assert {name for name in refused if answers[name] == ENOSYS} == {"clone3"}
    assert 50 < len(refused) < 90
    assert {default.by_number(number) for number in range(470, 600)} == {ENOSYS}
    assert {default.by_number(NEWER[name]) for name in ("mseal", "getxattrat", "statmount")} == {ALLOW}
    assert default.by_number(NEWER["open_tree_attr"]) == EPERM


@pytest.mark.parametrize("profile", profiles.names())
def test_foreign_numbers_end_the_process(made: Made, profile: str) -> None:
    found = made(profile)
    for number in (0, 63, 300, 462, 480, 4000):  # some of them answered by our own instructions
        for arch in {X86_64, AARCH64, I386, ARM} - {found.arch}:
            assert found.by_number(number, arch=arch) == KILL_PROCESS
        if found.arch == X86_64:
            assert found.by_number(number | X32) == KILL_PROCESS


def test_namespaces_are_not_made_without_the_capability(made: Made) -> None:
    default = made("default")
    assert default("clone", SIGCHLD) == ALLOW
    assert default("clone", THREAD) == ALLOW
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, CLONE_NEWUSER, 0x20000000, CLONE_NEWNET):
        assert default("clone", SIGCHLD | flag) == EPERM
    assert default("clone3") == ENOSYS
    admin = made("default", "SYS_ADMIN")
    assert admin("clone", SIGCHLD | CLONE_NEWUSER) == admin("clone3") == admin("unshare") == ALLOW


def test_arguments_of_the_default_profile(made: Made) -> None:
    default = made("default")
    families = {family: default("socket", family) for family in range(46)}
    assert {family for family, answer in families.items() if answer == ALLOW} == {1, 2, 10, 16, 17}
    assert default("socket", 40 | 1 << 32) == EPERM  # the kernel takes the lower half
    personalities = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 0x40000, 0x400000, 0x100000)
    assert [default("personality", value) for value in personalities] == [ALLOW] * 5 + [EPERM] * 3


def test_no_new_process(made: Made) -> None:
    found = made("no-new-process")
    assert found("clone", SIGCHLD) == EPERM
    assert found("clone", CLONE_VM | 0x4000 | SIGCHLD) == EPERM  # as vfork
    assert found("clone", CLONE_NEWUSER | SIGCHLD) == EPERM
    assert found("clone", THREAD) == ALLOW
    assert found("clone3") == ENOSYS
    assert found("execve") == found("mount") == found("wait4") == ALLOW
    if found.arch == X86_64:
        assert found("fork") == found("vfork") == EPERM


def test_no_network(made: Made) -> None:
    found = made("no-network")
    refused = ERRNO | errno.EAFNOSUPPORT
    assert [found("socket", family) for family in (1, 2, 10, 16, 17, 38, 40)] == [ALLOW] + [refused] * 6
    assert [found("socketpair", family) for family in (1, 30)] == [ALLOW, refused]
    assert found("socket", 2 | 1 << 32) == refused
    assert found("io_uring_setup") == ENOSYS
    assert found("connect") == found("execve") == ALLOW


def test_profiles_hold_together(made: Made) -> None:
    found = made({"profile": ["default", "no-network", "no-new-process"]})
    assert len(found.programs) == 3
    assert found("socket", 1) == ALLOW
    assert found("socket", 2) == ERRNO | errno.EAFNOSUPPORT
    assert found("clone", SIGCHLD) == found("mount") == EPERM
    assert found("clone", THREAD) == found("read") == ALLOW
    assert made({"profile": "default"}).programs == made("default").programs
    assert made({"profile": ["default", "default"]}).programs == made("default").programs


def test_rules_widen_and_tighten_a_profile(made: Made) -> None:
    can = {"index": 0, "op": "==", "value": 29}
    rules = [
        rule(["keyctl", "mseal"], "allow"),
        rule("add_key", "log"),
        rule("socket", "allow", args=can),
        rule("mkdirat", "errno(EACCES)"),
        rule("request_key", "errno(ENOSYS)"),
        rule("dup3", "kill_process", args={"index": 1, "op": "==", "value": 2}),
        rule("clone3", "allow"),
    ]
    found = made({"profile": "default", "rules": rules})
    assert found("keyctl") == ALLOW
    assert found("add_key") == LOG
    assert [found("socket", family) for family in (1, 29, 31)] == [ALLOW, ALLOW, EPERM]
    assert found("mkdirat") == ERRNO | errno.EACCES
    assert found("request_key") == ENOSYS
    assert [found("dup3", 9, 2), found("dup3", 9, 3)] == [KILL_PROCESS, ALLOW]
    assert found("clone3") == ALLOW
    assert found("mount") == EPERM


def test_rules_take_something_back_from_a_deny_list(made: Made) -> None:
    found = made({"profile": ["no-new-process", "no-network"], "rules": rule("socket", "allow")})
    assert found("socket", 2) == ALLOW
    assert found("socketpair", 30) == ERRNO | errno.EAFNOSUPPORT
    assert found("clone", SIGCHLD) == EPERM


def test_another_default(made: Made) -> None:
    found = made({"profile": ["default", "no-network"], "default": "log"})
    assert found("mount") == found("keyctl") == LOG
    assert found("read") == ALLOW
    assert found("socket", 2) == ERRNO | errno.EAFNOSUPPORT
    assert made({"profile": "default", "default": "kill_process"})("mount") == KILL_PROCESS
    assert made({"profile": "default", "locked": True})("process_vm_readv") == EPERM


@pytest.mark.parametrize(
    ("seccomp", "said"),
    [
        ("defualt", "sandboxes.seccomp: there is no profile 'defualt' (did you mean `default`?)"),
        ({"profile": ["default", "x"]}, "seccomp.profile[1]: there is no profile 'x' (known: default, no-"),
        ({"profile": "default", "default": "allow"}, "would take the profile away"),
        ({"profile": "no-network", "default": "kill"}, "nothing is left to `default`"),
        ({"profile": "default", "rules": rule("execve", "errno")}, "`execve` is not allowed"),
        (
            {"profile": "default", "rules": rule("dup3", "allow", args={"index": 0, "op": "==", "value": 1})},
            "`dup3` is allowed by the profile already",
        ),
        (
            {
                "profile": "no-network",
                "rules": rule("socket", "allow", args={"index": 0, "op": "==", "value": 2}),
            },
            "allows it wholly or not at all",
        ),
        (
            {"profile": "default", "rules": rule("mseal", "trap", args={"index": 0, "op": "==", "value": 2})},
            "this libseccomp does not know `mseal`",
        ),
        (5, "must be text or an object"),
    ],
)
def test_refused(problems: Problems, seccomp: Any, said: str) -> None:
    (problem,) = problems({"seccomp": seccomp})
    assert said in problem


def test_a_profile_names_only_known_calls_and_each_once() -> None:
    for name in profiles.names():
        rules = profiles.profile(name).rules
        plain = [call for one in rules if not one.args and not one.caps for call in (*one.allow, *one.refuse)]
        assert len(plain) == len(set(plain))
        for one in rules:
            assert bool(one.allow) != bool(one.refuse)
            for call in (*one.allow, *one.refuse):
                assert number_of(call, X86_64) is not None, call
            for capability in (*one.caps, *one.without):
                assert capability in NAMES


def test_newer_calls_have_the_numbers_that_libseccomp_knows() -> None:
    for arch in ARCHES.values():
        for name, number in NEWER.items():
            known = int(pyseccomp.resolve_syscall(arch, name))
            assert known in (number, -1), name


def test_a_filter_with_hundreds_of_rules_is_a_tree(made: Made) -> None:
    """A load makes the kernel run it once for each call there is: a list would cost more than a start."""
    default = made("default")
    (program,) = default.programs
    assert len(program) // INSTRUCTION < 1000
    assert max(_steps(program, number, default.arch) for number in range(424)) < 80


def _steps(program: bytes, number: int, arch: int) -> int:
    """How many instructions a call takes."""
    import struct

    code = list(struct.iter_unpack("=HBBI", program))
    data = struct.pack("=iIQ6Q", number, arch, 0, *[0] * 6)
    at = steps = accumulator = 0
    while True:
        operation, true, false, value = code[at]
        at, steps = at + 1, steps + 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif operation == 0x06:
            return steps
        elif operation == 0x05:
            at += value
        elif operation == 0x54:
            accumulator &= value
        else:
            holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}
            at += true if holds[operation] else false


def test_answers_before_libseccomps_own_are_for_one_architecture() -> None:
    rules = profiles_rule("mseal"), profiles_rule("getxattrat")
    program = assemble(ERRNO | 1, rules, X86_64, newer=ENOSYS)
    found = Filters((program,), X86_64)
    assert [found(name) for name in ("mseal", "getxattrat", "setxattrat")] == [ALLOW, ALLOW, EPERM]
    assert found.by_number(470) == ENOSYS
    assert found.by_number(462, arch=AARCH64) == KILL_PROCESS


def profiles_rule(name: str) -> Any:
    from initspawn.config.seccomp.filter import Rule

    return Rule(name, NEWER[name], ALLOW)
