"""The steps by which a child becomes the command, put into programs. Boot module.

A step puts its system calls into a program; the call that fails refuses the start under the step's name.
"""

from __future__ import annotations

import _signal
import errno
import os

from initspawn.linux import namespaces
from initspawn.sandbox import steps
from initspawn.sandbox.program import Program
from initspawn.sandbox.recipe import Recipe, Step, outside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.plan import Sandbox
    from initspawn.sandbox.measure import Baseline

EXEC = "exec"
BWRAP = "bubblewrap"
DESCRIPTORS = "descriptors"
NAMESPACES = "namespaces"


def compile_steps(wanted: tuple[Step, ...], recipe: Recipe) -> Program:
    """The program of the steps this sandbox needs, behind what the recipe has been through already.

    Raises OSError for what can be seen to fail.
    """
    recipe.program = recipe.program.follow()
    for step in wanted:
        if step.needed(recipe):
            recipe.program.step = step.name
            step.add(recipe)
    return recipe.program


def names(sandbox: Sandbox, baseline: Baseline, *, terminal: bool = False) -> list[str]:
    """The steps a sandbox goes through, in order."""
    sandbox, whole = outside(sandbox, baseline), sandbox
    recipe = Recipe(sandbox, baseline, terminal=terminal)
    every = (*steps.REAPER_STEPS, *steps.COMMAND_STEPS, *steps.FILTER_STEPS)
    taken = [step.name for step in every if step.needed(recipe)]
    born = [NAMESPACES] if clone_flags(sandbox) else []
    return [*born, DESCRIPTORS, *taken, *([BWRAP] if whole.bwrap else []), EXEC]


def clone_flags(sandbox: Sandbox) -> int:
    """The clone3 flags of the namespaces the reaper is born in: not those that are made later."""
    late = {"cgroup"}
    if sandbox.id_map is not None and not sandbox.id_map.first:
        late.add("user")
    flags = 0
    for name in sandbox.namespaces:
        if name not in late:
            flags |= namespaces.FLAGS[name]
    return flags


def descriptors(sources: tuple[int, ...], kept: tuple[int, ...]) -> Program:
    """Put `sources` in place as 0, 1, 2, ..., behind them what is kept until the exec; close all others."""
    program = Program()
    program.step = DESCRIPTORS
    wanted = [*sources, *kept]
    if min(wanted) < len(wanted):  # first out of the way of the numbers they are to have
        base = max(wanted) + 1
        for offset, fd in enumerate(wanted):
            program.call("dup3", fd, base + offset, os.O_CLOEXEC, note=f"{fd} as {base + offset}")
        wanted = list(range(base, base + len(wanted)))
    for number, fd in enumerate(wanted):
        flags = os.O_CLOEXEC if number >= len(sources) else 0
        program.call("dup3", fd, number, flags, note=f"{fd} as {number}")
    program.call("close_range", len(wanted), 0xFFFFFFFF, 0, note=f"all from {len(wanted)}")
    return program


# Limits that an exec itself can run into, by their numbers for setrlimit(2).
_DATA, _STACK, _NPROC, _NOFILE, _AS = 2, 3, 6, 7, 9
_OF_MEMORY = {_DATA: "data", _STACK: "stack", _AS: "as"}


def refusal_hint(step: str, number: int, sandbox: Sandbox) -> str:
    """What an errno usually means at a step, in words a configuration's author can use."""
    limited = [which for which, _, _ in sandbox.limits]
    if step == EXEC and number == errno.ENOENT:
        return "it, or the interpreter it names, does not exist in the sandbox"
    if step == EXEC and number == errno.ENOEXEC:
        return "it is no program of this machine, and no script: those begin with a line such as #!/bin/sh"
    if step == EXEC and number == errno.EAGAIN and _NPROC in limited:
        return "its user has more processes than `limits.nproc` allows"
    if step == EXEC and number == errno.E2BIG and _STACK in limited:
        return "arguments and environment may take a quarter of `limits.stack`"
    if number == errno.EMFILE and _NOFILE in limited:
        return "`limits.nofile` is too low to build its sandbox"
    if step == NAMESPACES and number in (errno.EPERM, errno.ENOSPC):
        return "this kernel or its settings do not let this user make namespaces (see `initspawn doctor`)"
    return ""


def ended_in_exec(sandbox: Sandbox, status: int | None) -> str:
    """Why the kernel ended a command in its exec, as far as its limits can tell; empty if they cannot.

    Behind the point of no return execve(2) can only kill, with whatever it lacks memory for.
    """
    found = [
        f"`{_OF_MEMORY[which]}: {soft}`"
        for which, soft, _ in sandbox.limits
        if which in _OF_MEMORY and soft >= 0
    ]
    if not found or status is None or not os.WIFSIGNALED(status):
        return ""
    if os.WTERMSIG(status) not in (_signal.SIGKILL, _signal.SIGSEGV, _signal.SIGBUS):
        return ""
    return f"its `limits` are too low for a program to begin: {', '.join(found)}"
