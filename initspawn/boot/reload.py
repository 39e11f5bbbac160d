"""What a supervisor does when it is asked to reload, and tells whoever makes the new plan. Boot module.

The plan is made by who asks, as one is made for a start, and put into the run directory; here it is loaded,
and taken as a whole or not at all. Loaded with the first such call.
"""

from __future__ import annotations

import os

from initspawn.errors import PlanError, RequestError
from initspawn.planfile import load
from initspawn.supervisor.autostart import notifications_of
from initspawn.supervisor.reload import Change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from initspawn.boot.supervise import Main
    from initspawn.plan import Plan
    from initspawn.supervisor.notify import Notifications

PREFIX = "plan."  # and the pid of who made it: its name in the run directory


def _sources(main: Main, _: Any) -> dict[str, Any]:
    """What a plan for this supervisor is made of, and where: environment and directory are its own. Bytes are
    told as Latin-1.
    """
    try:
        directory = os.getcwdb()
    except OSError:  # it has been removed
        directory = b"/"
    return {
        "files": main.start.get("files"),
        "plan": main.start.get("plan"),
        "environment": {
            os.fsencode(name).decode("latin-1"): os.fsencode(value).decode("latin-1")
            for name, value in os.environ.items()
        },
        "directory": directory.decode("latin-1"),
        "pid": os.getpid(),
        "run-dir": os.fsencode(os.path.abspath(main.run_dir)).decode("latin-1"),
    }


def _reload(main: Main, arguments: Any) -> dict[str, int]:
    """Take the plan of the run directory's file that the arguments name. Raises RequestError, and nothing has
    changed then.
    """
    known = isinstance(arguments, dict) and arguments.keys() == {"plan", "file"}
    name, file = (arguments["plan"], arguments["file"]) if known else ("", "")
    if not _is_name(name) or not isinstance(file, str):
        said = f'{{"plan": "{PREFIX}PID", "file": TEXT}}: a file of the run directory, and where it is from'
        raise RequestError("invalid-request", f"write {said}")
    if main.supervisor.closing:
        raise RequestError("not-available", "the supervisor is stopping")
    if waits := main.waits_for():
        raise RequestError("not-available", waits)
    try:
        plan = _taken(os.path.join(main.run_dir, name))
        _check(main, plan)
        change = Change(main.supervisor, _notifications(main, plan), main.loaded, plan)
    except PlanError as error:
        raise RequestError("invalid-request", f"refused, all is as it was: {error}") from error
    except OSError as error:
        raise RequestError("invalid-request", f"{error.filename or name}: {error.strerror}") from error
    try:
        loaded = [action for api in main.registry.apis.values() for action in api.onload]
        change.commit()
    except OSError as error:
        change.drop()
        raise RequestError("not-available", f"refused, all is as it was: {error.strerror}") from error
    main.loaded = change.loaded
    main.registry.renew(change.plan)
    main.autostart.renew(change.plan)
    if change.plan.watcher is not None:
        main.registry.about["devices"] = main.autostart.devices
    main.follow_network()
    main.tokens.changed()  # and so may be what they are good for
    main.controller.renew()
    if main.controller.hearers or any(api.imports for api in change.plan.apis):
        from initspawn.verbs.foreign import begin

        begin(main.controller)
    main.controller.load(loaded)
    if file:
        main.registry.about["plan"] = lambda: {"file": file, "refused": []}
    return change.told()


def _notifications(main: Main, plan: Plan) -> Notifications | None:
    """The sockets for messages, where one of the plans has any."""
    if main.autostart.notifications is None and (made := notifications_of(plan, main.run_dir)) is not None:
        main.listen(made)
    return main.autostart.notifications


def _taken(path: str) -> Plan:
    """The plan of a file that is nobody's any more: who made it may have been ended meanwhile. Raises
    PlanError, OSError.
    """
    try:
        return load(path)
    finally:
        try:
            os.unlink(path)
        except OSError:  # it is none, and stays
            pass


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name.startswith(PREFIX) and name.removeprefix(PREFIX).isdecimal()


def _check(main: Main, plan: Plan) -> None:
    """Raises PlanError for a plan that does not fit the doors that are open."""
    apis = {api.api for api in plan.apis}
    for _, protocol in main.start.get("unix", ()):
        kind, _, api = protocol.partition(" ")
        if kind == "wsapi" and api not in apis:
            raise PlanError(f"`{api}` is served on a socket of its own (--ws-server): restart without it")
    gateway = {box.user for api in main.loaded.apis if api.hidden for box in api.sandboxes}
    for api in plan.apis:
        for box in api.sandboxes:
            if plan.user == 0 and box.user in gateway and not api.hidden:
                raise PlanError(
                    f"sandbox `{box.uid}` of `{api.api}` runs as user {box.user}, and so does the gateway; "
                    "give one of them another"
                )


CALLS = {"sources": _sources, "reload": _reload}
