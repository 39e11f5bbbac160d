"""The supervisor as a process: load the plan, open the doors, serve until told to stop. Boot module.

Called with `--run-dir DIR --plan FILE [--start-fd N]`. The start descriptor carries what must not be on a
command line, as marshal of a dictionary:

    up         what makes the network up: LINK, ADDRESS (the default), ROUTE or NEVER
    gateway    when the gateway runs: NOW (the default), from when it is UP on, or WHILE_UP
    tokens     SHA-256 of each token of this run to its name and its scopes
    state      the directory of the token file and the audit log; default: the run directory
    open       True: whoever reaches the gateway may do everything
    listen     the descriptor of the gateway's listening socket, absent without a gateway
    tls        the files of certificate and key, absent without TLS
    limits     those of `limits.TABLE` that are others in this run
    unix       descriptors of listening unix sockets, each with the protocol spoken there: `http`, `wsapi API`
    announce   the line to print once the gateway answers
    files      the configuration files it was made of, for a reload
    plan       where their compiled plan is kept, absent if it is not
    temporary  True: the plan and the run directory were made for this one run, and go with it
"""

from __future__ import annotations

import _signal
import os
import resource
import sys

from initspawn.errors import InitspawnError, PlanError
from initspawn.limits import CLOSE_SECONDS
from initspawn.linux import cmdline, prctl, process
from initspawn.plan import ADDRESS, API, NETWORK, SYSTEM
from initspawn.planfile import load
from initspawn.say import say
from initspawn.supervisor import leftovers
from initspawn.supervisor.autostart import Autostart, notifications_of
from initspawn.supervisor.core import Supervisor
from initspawn.supervisor.reactor import Reactor
from initspawn.verbs.access import NOBODY, Identity, Token, Tokens
from initspawn.verbs.controller import Controller
from initspawn.verbs.registry import Registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from initspawn.boot.front import Front
    from initspawn.control.server import Door
    from initspawn.control.state import State
    from initspawn.plan import Plan
    from initspawn.supervisor.guard import Guard
    from initspawn.supervisor.network import Network
    from initspawn.supervisor.notify import Notifications

CONTROL = "control"  # the local door's socket, in the run directory
LOCK = "lock"  # locked for as long as a supervisor uses the run directory
NOW, UP, WHILE_UP = "now", "up", "while-up"
GATEWAY = "gateway"  # the name of the gateway's hidden API


def main(arguments: list[str]) -> int:
    """Run the supervisor. Returns the exit code: 0, or 111 with a line on stderr."""
    if arguments == ["--list-modules"]:
        print("\n".join(sorted(sys.modules)))
        return 0
    try:
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        plan = load(options["--plan"])
        if plan.late:
            from initspawn.late import settle

            plan = settle(plan, os.environ)
        start_fd = int(options.get("--start-fd", "-1"))
        return Main(plan, options["--plan"], options["--run-dir"], start_fd).run()
    except (InitspawnError, OSError, ValueError, KeyError) as error:
        say(str(error))
        return 111
    except Exception as error:
        say(f"{type(error).__name__}: {error}")
        return 111


def _start_data(fd: int) -> dict[str, Any]:
    import marshal

    if fd < 0:
        return {}
    with os.fdopen(fd, "rb") as file:
        data: dict[str, Any] = marshal.loads(file.read())
    return data


class Main:
    """One supervisor and its doors."""

    def __init__(self, plan: Plan, plan_file: str, run_dir: str, start_fd: int) -> None:
        self.plan_file = plan_file
        self.loaded = plan  # as its file has it
        self.run_dir = run_dir
        self.reactor = Reactor()
        loaded = self.reactor.clock()
        self.reactor.signals(dict.fromkeys((_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP), self.stop))
        process.set_child_subreaper()
        notifications = notifications_of(plan, run_dir)
        if notifications is not None:
            plan = notifications.equip(plan)
        try:
            self.supervisor = Supervisor(plan, self.reactor)
        except PlanError:  # somebody may go on with another plan
            if notifications is not None:
                notifications.close(self.reactor)
            self.reactor.close()
            raise
        # Only now, when the spawner has been forked: it and what it starts know no token, may open as many
        # files as was usual here before, and cannot look into us.
        self.start = _start_data(start_fd)
        prctl.prctl(prctl.PR_SET_DUMPABLE, 0)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.reactor.room.keep()
        self.registry = Registry(self.supervisor)
        self.registry.about["degraded"] = self.reactor.room.told
        self.registry.configure = self._configure
        self.registry.autostart = self.autostart = Autostart(self.supervisor, cmdline.read())
        self.autostart.mark("supervisor started", self.reactor.clock() - _age())
        self.autostart.mark("plan loaded", loaded)
        self.controller = Controller(self.registry)
        self.registry.limits.update(self.start.get("limits", {}))
        if notifications is not None:
            self.listen(notifications)
        if plan.watcher is not None:
            self.registry.about["devices"] = self.autostart.devices
        self.doors: list[Door] = []
        self.state: State | None = None
        self.tokens = Tokens(
            Token(name=name, digest=known, scopes=frozenset(scopes))
            for known, (name, scopes) in self.start.get("tokens", {}).items()
        )
        self._front: Front | None = None
        self.guard = self._guard(plan)
        self._announced = False
        self.network: Network | None = None
        self._gateway_runs: str = self.start.get("gateway", NOW)

    def run(self) -> int:
        """Serve until a signal says stop; leave nothing behind."""
        try:
            leftovers.end(self.supervisor.groups.base)
            if self.guard is not None:
                self.guard.begin()  # before anybody can have anything started
            self.follow_network()
            self._reach(SYSTEM)
            if any(api.imports for api in self.supervisor.plan.apis):
                from initspawn.verbs.foreign import begin

                begin(self.controller)
            self.controller.load()
            self._open()
            self.supervisor.reserve.fill(self.supervisor.plan)
            self.reactor.run()
        finally:
            for watch in (self.guard, self.network):
                if watch is not None:
                    watch.close()
            self.autostart.close()
            self._close_doors()
            self.reactor.close()
            if self.start.get("temporary"):
                from initspawn.boot.temporary import clean

                clean(self.plan_file, self.run_dir, GATEWAY, LOCK)
        return 0

    def _configure(self, verb: str, arguments: Any) -> Any:
        """What only clients of the control socket may ask for. Raises RequestError."""
        from initspawn.boot import reload

        return reload.CALLS[verb](self, arguments)

    def _close_doors(self) -> None:
        if self._front is not None:
            self._front.close()
            self._front = None
        for door in self.doors:
            door.close()
        self.doors.clear()
        if self.state is not None:
            self.state.close(remove=self.start.get("temporary", False) and "state" not in self.start)
            self.state = None

    def _guard(self, plan: Plan) -> Guard | None:
        """Who may talk at first, where the plan says so."""
        if plan.guard is None:
            return None
        from initspawn.supervisor.guard import Guard

        torn = lambda who: self.registry.audit("nftables", who, "guard", "change", "put-back")  # noqa: E731
        autostart = self.autostart
        guard = Guard(self.supervisor, autostart.services, plan.guard, torn, autostart.mark_again)
        self.registry.about["guard"] = guard.told
        return guard

    def _reach(self, stage: str) -> None:
        """The boot has come so far."""
        self.autostart.reach(stage)

    def listen(self, notifications: Notifications) -> None:
        """Hear what commands tell of themselves."""
        self.autostart.listen(notifications)
        self.registry.about["notifications"] = notifications.told

    def waits_for(self) -> str:
        """Why the plan cannot become another yet; empty if it can."""
        return ""

    def follow_network(self) -> None:
        """Know its state, where anybody wants to."""
        if self.network is None and (self.autostart.networked or self._gateway_runs != NOW):
            from initspawn.supervisor.network import Network

            try:
                self.network = self.autostart.network = Network(self.reactor, self._on_network)
            except OSError as error:  # a kernel without netlink: whoever waits for the network waits on
                say(f"the network cannot be followed: {error.strerror}")

    def _on_network(self) -> None:
        """The network has come, gone or become another."""
        up = self.network is not None and self.network.has(self.start.get("up", ADDRESS), "*")
        if up:
            self.autostart.mark("network up")
            self._reach(NETWORK)
        self.autostart.services.look()
        if self._front is not None and (up or self._gateway_runs == WHILE_UP):
            self._front.run(wanted=up)

    def stop(self) -> None:
        """End every task and then the loop; asked a second time, at once."""
        if self.guard is not None and self.guard.leave(self.stop):
            return
        if self.supervisor.closing:
            self.supervisor.kill_all()
        else:
            tasks, seconds = self.autostart.stop_all()
            self.supervisor.close(self.reactor.stop, but=tasks, seconds=seconds)
            self._on_stop(seconds + CLOSE_SECONDS)

    def _on_stop(self, seconds: float) -> None:
        """It will have ended so many seconds from now at the latest."""

    def _open(self) -> None:
        # JSON and all that comes with it: not before the first commands are on their way.
        from initspawn.control.server import Door, listen, remove_stale
        from initspawn.control.state import State

        self.state = State(self.start.get("state") or self.run_dir, self.reactor, self.tokens)
        self.registry.audit = self.state.audit.record
        path = os.path.join(self.run_dir, CONTROL)
        remove_stale(path)
        self.doors.append(
            Door(
                listen(path), name="control",
                reactor=self.reactor, registry=self.registry, tokens=self.tokens,
                identify=lambda user, pid, fd: self.peer(user, pid, fd, NOBODY),
            )
        )  # fmt: skip
        self.autostart.mark("control socket answers")
        self.open_network()

    def open_network(self) -> None:
        """The doors for the network, if there are to be any. Raises OSError, CertificateError."""
        found = next((api for api in self.supervisor.plan.apis if api.hidden and api.api == GATEWAY), None)
        if found is None or "listen" not in self.start:
            self._reach(API)  # the control socket is all there will be
            return
        from initspawn.boot.front import Front

        self._front = Front(self, found, self.start, self._announce)
        if self.supervisor.roster.barred:
            self._reach(API)
        elif self._gateway_runs == NOW:
            self._front.run(wanted=True)
        else:
            self._on_network()

    def peer(self, user: int, pid: int, pidfd: int, stranger: Identity) -> Identity:
        """Who a local client is. Root and our own user are trusted, unless it is one of our tasks that shows
        their number.
        """
        if user in (0, os.geteuid()) and not process.is_ours(pid, pidfd):
            return Identity(kind="local", user=user, name=f"user:{user}")
        return stranger

    def _announce(self) -> None:
        if not self._announced:
            self.autostart.mark("gateway answers")
            self._reach(API)
            print(self.start.get("announce", ""), flush=True)
            self.start.pop("announce", None)
            self._announced = True


def _age() -> float:
    """For how many seconds this process has been there; 0 where that is hidden."""
    try:
        return process.age()
    except OSError:
        return 0.0
