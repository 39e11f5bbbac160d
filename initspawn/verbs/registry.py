"""Procedures and what they do: `api/verb` to a decision, then to an action. Boot module."""

from __future__ import annotations

import sys

from initspawn.errors import RequestError
from initspawn.limits import TABLE
from initspawn.verbs import actions, builtin, execute, query
from initspawn.verbs.access import EXECUTE, INPUT, OUTPUT, SEE, START, STOP, allowed
from initspawn.verbs.answer import Answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from initspawn.plan import Action, Api, Command, Plan
    from initspawn.supervisor.autostart import Autostart
    from initspawn.supervisor.core import Supervisor
    from initspawn.supervisor.input import Writer
    from initspawn.supervisor.running import Task
    from initspawn.verbs.access import Identity
    from initspawn.verbs.actions import Caller
    from initspawn.verbs.imports import Imported

ALLOWED = "allowed"
_ACTIONS = {
    query.START: START, query.STOP: STOP, query.SUBSCRIBE: OUTPUT, query.UNSUBSCRIBE: OUTPUT,
    query.INPUT: INPUT, query.RESIZE: INPUT,
}  # fmt: skip
_OF_COMMANDS = (START, STOP, INPUT, OUTPUT, SEE)


class Registry:
    """All procedures of one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.audit: Callable[[str, str, str, str | None, str], None] = lambda *_: None
        self.autostart: Autostart | None = None  # of a supervisor that starts commands by itself
        self.pings = 0
        self.imports: dict[str, Imported] = {}  # APIs of other servers, for the configuration's own calls
        self.watchers: dict[Writer, Callable[[str], None]] = {}  # who wants to know that one of them has gone
        self.limits: dict[str, float] = dict(TABLE)
        self.about: dict[str, Callable[[], Any]] = {}  # what `initspawn/info` says besides
        self.configure: Callable[[str, Any], Any] | None = None  # does what only the control socket may ask
        self._removed: dict[tuple[str, str], tuple[Api, Command]] = {}  # of an earlier plan
        self._commands: dict[tuple[str, str], tuple[Api, Command]] = {}
        self._take(supervisor.plan)

    def _take(self, plan: Plan) -> None:
        self.apis: dict[str, Api] = {api.api: api for api in plan.apis if not api.hidden}
        self._commands = {
            (api.api, command.verb): (api, command) for api in self.apis.values() for command in api.commands
        }
        self._extra: dict[tuple[str, str], Action] = {
            (api.api, extra.uid): extra for api in self.apis.values() for extra in api.extra
        }

    def renew(self, plan: Plan) -> None:
        """From now on these are the procedures. Tasks go on: of a verb that is gone they can be stopped and
        subscribed to as before, of others as the new plan says.
        """
        old = self._removed | self._commands
        self._take(plan)
        alive = {
            (task.api.api, task.command.verb)
            for task in self.supervisor.roster.every()
            if not task.command.executed
        }
        self._removed = {
            name: known for name, known in old.items() if name in alive and name not in self._commands
        }
        for task in (*self.supervisor.roster.every(), *self.supervisor.ended):
            name = (task.api.api, task.command.verb)
            if task.command.executed:
                for box in self.apis[name[0]].sandboxes if name[0] in self.apis else ():
                    if box.uid == task.sandbox.uid:
                        task.privilege = box.privilege
            elif name in self._commands:
                api, command = self._commands[name]
                task.privilege = command.privilege or api.sandbox(command.sandbox).privilege

    def running(self, api: str, verb: str) -> int:
        """How many tasks of a command are alive; 0 for what is no command."""
        known = self._commands.get((api, verb))
        return len(self.supervisor.roster.alive(*known)) if known is not None else 0

    def call(self, caller: Caller, procedure: str, arguments: Any, answer: Callable[[Answer], None]) -> None:
        """Do what is asked, if this caller may; `answer` is called once, now or later."""
        decision = ALLOWED
        try:
            self._call(caller, procedure, arguments, answer)
        except RequestError as error:
            decision = error.status
            answer(Answer(status=error.status, info=error.info or None))
        except Exception:  # a fault of ours: told, answered, and nobody else's trouble
            sys.excepthook(*sys.exc_info())
            decision = "internal-error"
            answer(Answer(status=decision))
        if decision != ALLOWED or not self._harmless(procedure):
            self.audit(caller.door, caller.identity.name, procedure, _action_of(arguments), decision)

    def _harmless(self, procedure: str) -> bool:
        """Whether it is built in, and only tells what everybody who may see anything may know."""
        name, _, verb = procedure.partition("/")
        return (
            (name, verb) not in self._commands
            and (name, verb) not in self._extra
            and verb != EXECUTE
            and builtin.action(name, verb) == SEE
        )

    def _call(self, caller: Caller, procedure: str, arguments: Any, answer: Callable[[Answer], None]) -> None:
        name, _, verb = procedure.partition("/")
        own = None  # what the configuration says to the query
        extra = self._extra.get((name, verb))
        if extra is not None:
            if extra.privilege is not None or extra.api in self.imports:
                self._require(caller.identity, START, extra.privilege)
            if extra.api in self.imports:
                self.call_imported(extra, arguments, answer)
                return
            name, verb, own = extra.api, extra.verb, extra.query
        known = self._commands.get((name, verb)) or self._left(name, verb)
        if known is None and verb == execute.EXEC and name in self.apis:
            self._execute(caller, self.apis[name], arguments, answer)
            return
        if known is None:
            # The right comes before the existence: who may see nothing learns nothing.
            self._require(caller.identity, builtin.action(name, verb), None)
            answer(Answer(response=builtin.call(self, caller, name, verb, arguments)))
            return
        api, command = known
        privilege = command.privilege or api.sandbox(command.sandbox).privilege
        # Whoever may do nothing with a command is not told that its query is wrong either.
        if not any(allowed(caller.identity, action, privilege) for action in _OF_COMMANDS):
            raise RequestError("insufficient-scope")
        action, arguments, verbose = query.blend(own, arguments)
        self._require(caller.identity, _ACTIONS[action], privilege)
        if action == query.START and (name, verb) in self._removed:
            raise RequestError("unknown-verb", f"`{verb}` is not in the configuration any more")
        if action == query.START:
            actions.start(self.supervisor, caller, api, command, arguments, answer, verbose)
        else:
            # Somebody else's task is as if it were not there for whoever may not touch it.
            tasks = [
                task
                for task in self.supervisor.roster.known(api, command)
                if allowed(caller.identity, _ACTIONS[action], privilege, task.owner)
            ]
            self._control(caller, tasks, action, arguments, answer)
            final = action == query.STOP and actions.is_final(arguments)
            if final and self.autostart is not None and allowed(caller.identity, STOP, privilege, ""):
                self.autostart.halt(f"{name}/{verb}")

    def _left(self, name: str, verb: str) -> tuple[Api, Command] | None:
        """The command of a verb that is gone, as long as one of its tasks is not."""
        known = self._removed.get((name, verb))
        return known if known is not None and self.supervisor.roster.alive(*known) else None

    def call_imported(self, action: Action, given: Any, answer: Callable[[Answer], None]) -> None:
        """Call another server's API as an action says, with a caller's or an event's arguments."""
        from initspawn.verbs.imports import merged

        self.imports[action.api].call(action.verb, merged(action.query, given), answer)

    def _execute(self, caller: Caller, api: Api, asked: Any, answer: Callable[[Answer], None]) -> None:
        """Start a command that is in no file, or control those that were started so."""
        self._require(caller.identity, EXECUTE, None)
        action, arguments, verbose = query.parse(asked)
        if action == query.START:
            sandbox = execute.sandbox_of(api, asked)
            self._require(caller.identity, EXECUTE, sandbox.privilege)
            command = execute.command_of(sandbox, asked)
            if (api.api, command.verb) in self._commands.keys() | self._removed.keys():
                raise RequestError("invalid-request", f"`uid`: `{command.verb}` is a verb already")
            actions.start(self.supervisor, caller, api, command, None, answer, verbose)
            return
        tasks = [
            task
            for task in [*self.supervisor.ended, *self.supervisor.tasks]
            if task.api.api == api.api
            and task.command.executed
            and allowed(caller.identity, EXECUTE, task.privilege, task.owner)
        ]
        self._control(caller, tasks, action, arguments, answer)

    def _control(
        self, caller: Caller, tasks: list[Task], action: str, arguments: Any, answer: Callable[[Answer], None]
    ) -> None:
        if action == query.INPUT:
            actions.feed(caller, tasks, arguments, answer)
        elif action == query.RESIZE:
            answer(Answer(response=actions.resize(caller, tasks, arguments)))
        else:
            answer(Answer(response=actions.control(self.supervisor, caller, tasks, action, arguments)))

    def _require(self, identity: Identity, action: str, privilege: str | None) -> None:
        if not allowed(identity, action, privilege):
            raise RequestError("insufficient-scope")


def _action_of(arguments: Any) -> str | None:
    """The action that a query names, if it names one."""
    action = arguments.get("action") if isinstance(arguments, dict) else None
    return action if isinstance(action, str) else None
