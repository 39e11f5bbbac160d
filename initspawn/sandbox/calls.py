"""A sandbox's system calls as text, to be shown to people. Boot module; pure.

The calls are those that its children make, taken from the same programs: nothing is described twice.
"""

from __future__ import annotations

import os

from initspawn.linux import capabilities, mount, namespaces, prctl, process
from initspawn.linux.numbers import table
from initspawn.sandbox import ladder, steps
from initspawn.sandbox.recipe import Recipe, outside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.plan import Sandbox
    from initspawn.sandbox.measure import Baseline
    from initspawn.sandbox.program import Argument, Call, Program

# What each argument is: d number, x flags, o octal mode, f descriptor, s text, b bytes of a structure,
# a address, p prctl option.
_ARGUMENTS = {
    "capset": "bb", "chdir": "s", "close": "f", "close_range": "dxx", "dup3": "ffx", "fchdir": "f",
    "fchmodat": "fso", "fchownat": "fsddx", "fsconfig": "fdssd", "fsmount": "fxx", "fsopen": "sx",
    "ioctl": "fxb", "ioprio_set": "ddd", "keyctl": "ds", "landlock_add_rule": "fdbx",
    "landlock_create_ruleset": "bdx", "landlock_restrict_self": "fx", "mkdirat": "fso", "mknodat": "fsod",
    "mount": "sssxs", "mount_setattr": "fsxbd",
    "move_mount": "fsfsx", "open_tree": "fsx", "openat": "fsxo", "openat2": "fsbd", "pivot_root": "ss",
    "prctl": "paaaa", "prlimit64": "ddba", "read": "fad", "rt_sigaction": "dbbd",
    "sched_setscheduler": "ddb", "seccomp": "dxa", "setpriority": "ddd",
    "rt_sigprocmask": "dbbd", "setgroups": "db", "sethostname": "sd", "setresgid": "ddd",
    "setresuid": "ddd", "setsid": "", "socket": "dxd", "symlinkat": "sfs", "umask": "o",
    "umount2": "sx", "unlinkat": "fsx", "unshare": "n", "write": "fbd",
}  # fmt: skip
_PIPES = "/dev/null as 0, a pipe as 1, a pipe as 2"
_ADDRESS = 1 << 16  # the kernel maps nothing below mmap_min_addr
_PRCTL = {
    value: name
    for name, value in vars(prctl).items()
    if name.startswith(("PR_SET_", "PR_CAP")) and not name.startswith("PR_CAP_AMBIENT_")  # its own options
}
_FLAGS = {
    process.CLONE_NEWUSER: "CLONE_NEWUSER", process.CLONE_NEWPID: "CLONE_NEWPID",
    process.CLONE_NEWNS: "CLONE_NEWNS", process.CLONE_NEWIPC: "CLONE_NEWIPC",
    process.CLONE_NEWUTS: "CLONE_NEWUTS", process.CLONE_NEWNET: "CLONE_NEWNET",
    process.CLONE_NEWCGROUP: "CLONE_NEWCGROUP",
}  # fmt: skip


def calls(sandbox: Sandbox, baseline: Baseline, *, terminal: bool = False) -> dict[str, list[str]]:
    """Step name to its calls in order, each as `name(arguments)` with a word on what it is for.

    Raises OSError for what can be seen to fail already.
    """
    found: dict[str, list[str]] = {}
    sandbox, whole = outside(sandbox, baseline), sandbox
    if ladder.clone_flags(sandbox):
        found[ladder.NAMESPACES] = [f"clone3({_names(ladder.clone_flags(sandbox))})"]
    found[ladder.DESCRIPTORS] = [
        f"dup3: {'its terminal as 0, 1 and 2' if terminal else _PIPES}, the handshake as 3",
        "close_range(4, 0xffffffff, 0)",
        "munmap: what is shared with other tasks",
    ]
    recipe = Recipe(sandbox, baseline, terminal=terminal)
    for wanted in (steps.REAPER_STEPS, steps.COMMAND_STEPS, steps.FILTER_STEPS):
        program = ladder.compile_steps(wanted, recipe)
        _add(found, program, " ".join(capabilities.names((1 << baseline.last_capability + 1) - 1)))
    if whole.bwrap:
        found[ladder.BWRAP] = [f"execve({whole.bwrap}, its options in a descriptor, no environment)"]
    found[ladder.EXEC] = ["execve(the command's path, argv, environment)"]
    return found


def _add(found: dict[str, list[str]], program: Program, every: str) -> None:
    names = {number: name for name, number in table().items()}
    for call, (step, note) in zip(program.calls, program.notes, strict=True):
        name = names[call[0]]
        word = note.removeprefix(name).strip()
        text = _text(name, call)
        if word == every:
            word = "all"
        repeats = word.lstrip("/").lower() in text.lower()
        found.setdefault(step, []).append(text if repeats else f"{text}  # {word}")


def _text(name: str, call: Call) -> str:
    kinds = _ARGUMENTS.get(name, "aaaaa")
    return f"{name}({', '.join(map(_argument, kinds, call[1:6]))})"


def _argument(kind: str, value: Argument) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f'"{repr(os.fsdecode(value))[1:-1]}"' if kind == "s" else f"<{len(value)} bytes>"
    if kind == "f":
        return "AT_FDCWD" if value == mount.AT_FDCWD else str(value)
    if kind in ("s", "b", "a"):
        return f"{value}" if 0 < value < _ADDRESS else "address" if value else "0"
    if kind == "p":
        return _PRCTL.get(value, str(value))
    if kind == "n":
        return _names(value)
    return {"x": hex(value), "o": f"0{value:o}" if value else "0"}.get(kind, str(value))


def _names(flags: int) -> str:
    return " | ".join(_FLAGS[flag] for flag in namespaces.FLAGS.values() if flags & flag)
