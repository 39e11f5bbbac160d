"""`seccomp.handler`: who answers the calls that a filter notifies (seccomp_unotify(2))."""

from __future__ import annotations

from collections.abc import Sequence

from initspawn.config.schema import Seccomp
from initspawn.config.seccomp.rules import notifies
from initspawn.config.spot import Spot, nearest, shown
from initspawn.plan import REQUIRED, Command, Sandbox


def handler_of(seccomp: str | Seccomp | None) -> str:
    """The verb of the handler; empty without one."""
    return seccomp.handler or "" if isinstance(seccomp, Seccomp) else ""


def check_handler(seccomp: Seccomp, spot: Spot) -> None:
    """Note at `spot` a handler that nothing needs, and a need for one."""
    written = [rule.action for rule in seccomp.rules or ()] + ([seccomp.default] if seccomp.default else [])
    asks = any(notifies(action) for action in written)
    if asks and seccomp.handler is None:
        spot.refuse(
            "SCMP_ACT_NOTIFY needs a `handler`: without one nobody would answer and the call would fail",
            "name the command that answers, or write SCMP_ACT_ERRNO",
        )
    elif seccomp.handler is not None and not asks and seccomp.rulespath is None:
        spot["handler"].refuse("no call is notified", "write a rule with SCMP_ACT_NOTIFY, or remove it")


def check_handlers(sandboxes: Sequence[Sandbox], commands: Sequence[Command], spot: Spot) -> None:
    """Note at `spot`, that of the file's sandboxes, every handler that could not be started for a task."""
    verbs = {command.verb: command for command in commands}
    asking = {sandbox.uid for sandbox in sandboxes if sandbox.handler}
    for index, sandbox in enumerate(sandboxes):
        if not sandbox.handler or not spot[index]["seccomp"].clean:
            continue
        place = spot[index]["seccomp"]["handler"]
        command = verbs.get(sandbox.handler)
        if command is None:
            place.refuse(f"there is no verb {shown(sandbox.handler)}", nearest(sandbox.handler, verbs))
        elif command.sandbox in asking:
            hint = "give it a sandbox of its own"
            place.refuse("its sandbox has a handler too, which could wait for itself", hint)
        elif any(kind == REQUIRED for item in command.arguments for kind, _ in item):
            place.refuse("it needs arguments, and nobody gives them", "write `?name?`, or none")
        elif command.most or command.stdin:
            key = "stdin" if command.stdin else "max"
            place.refuse(f"its `{key}` does not go with a start for each task", f"remove `{key}` there")
