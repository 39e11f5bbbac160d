"""Making starts in the cgroups they need, and clearing up behind them. Boot module."""

from __future__ import annotations

import errno

from initspawn.errors import LaunchRefused, PlanError
from initspawn.limits import OWN_BYTES, STOP_GRACE_SECONDS
from initspawn.linux import process
from initspawn.linux.libc import missing
from initspawn.sandbox.ladder import NAMESPACES
from initspawn.sandbox.launcher import Launcher
from initspawn.say import say
from initspawn.supervisor import task as life
from initspawn.supervisor.room import CALLER, RESERVE, STEP, remedy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from initspawn.plan import Api, Plan, Sandbox
    from initspawn.sandbox.launch import Start
    from initspawn.sandbox.streams import Streams
    from initspawn.supervisor.groups import Groups
    from initspawn.supervisor.images import Images
    from initspawn.supervisor.reactor import Reactor
    from initspawn.supervisor.running import Task

_REMOVE_SECONDS = 0.05  # killed processes leave their group a moment later
_REMOVE_AT_LEAST_EVERY = 60.0


def begin(plan: Plan, groups: Groups, images: Images, reactor: Reactor) -> Launcher:
    """What all starts share. Raises OSError; then groups and images are given back."""
    try:
        return Launcher(plan.sandboxes(), reactor.after)
    except BaseException:
        images.close()
        groups.leave()
        raise


class Preparer:
    """Makes starts for tasks and for the reserve."""

    def __init__(self, launcher: Launcher, groups: Groups, images: Images, reactor: Reactor) -> None:
        self._launcher = launcher
        self._groups = groups
        self._images = images
        self._reactor = reactor
        self._made = 0

    def prepare(
        self,
        api: Api,
        sandbox: Sandbox,
        descriptors: tuple[int, ...] = (),
        *,
        streams: Streams | None = None,
        spare: bool = False,
    ) -> Start:
        """Have a sandbox built, and a command wait in it; in a new cgroup where it needs one. `spare`: for
        the reserve, which is given up where there is no room for others.

        Raises LaunchRefused.
        """
        try:
            return self._prepare(api, sandbox, descriptors, streams, spare=spare)
        except LaunchRefused as refusal:
            if spare or not self.short(refusal):
                raise
        return self._prepare(api, sandbox, descriptors, streams, spare=spare)

    def failed(self, start: Start, refusal: LaunchRefused) -> LaunchRefused:
        """A start came to nothing: it may be that there are no more processes to be had, for anybody."""
        if refusal.step not in (NAMESPACES, "clone") or start.sandbox.cgroup is not None:
            return refusal
        if refusal.errno not in (errno.EAGAIN, errno.ENOMEM):
            return refusal
        self._reactor.room.lack(errno.EAGAIN)
        return LaunchRefused(refusal.step, refusal.errno, remedy(errno.EAGAIN))

    def short(self, refusal: LaunchRefused) -> bool:
        """Take note of a start that was refused for want of room; True where it may be tried once more."""
        if refusal.step == "slot":  # there may be no more, however much room there is
            return False
        return self._reactor.room.lack(refusal.errno, group=refusal.step == "cgroup")

    def _prepare(
        self,
        api: Api,
        sandbox: Sandbox,
        descriptors: tuple[int, ...],
        streams: Streams | None,
        *,
        spare: bool,
    ) -> Start:
        room = self._reactor.room
        if not api.own and room.fits(OWN_BYTES) < OWN_BYTES:
            raise LaunchRefused(STEP, errno.ENOMEM, remedy(errno.ENOMEM))
        share = RESERVE if spare else 0.0 if api.own else CALLER
        self._images.check(sandbox)
        group = None
        if "pid" not in sandbox.namespaces or sandbox.cgroup is not None or self._groups.each:
            self._made += 1
            try:
                group = self._groups.make(api, sandbox, f"task-{self._made}")
            except OSError as error:
                raise LaunchRefused("cgroup", error.errno or 0, str(error.filename or "")) from error
        try:
            return self._launcher.prepare(
                sandbox, cgroup=group, descriptors=descriptors, streams=streams, ceiling=room.ceiling(share)
            )
        except LaunchRefused as refusal:
            self._remove(group)
            if refusal.step == "slot" or not remedy(refusal.errno):
                raise
            raise LaunchRefused(refusal.step, refusal.errno, remedy(refusal.errno)) from refusal
        except BaseException:
            self._remove(group)
            raise

    def kill(self, task: Task, *, late: bool = False) -> None:
        """End a task with all that is left of it, by force. `late`: the spawner goes with it that should have
        cloned it long ago.
        """
        if task.start is None or not task.life.alive:
            return
        self.kill_group(task.start)
        whole = task.start.ends_all or task.start.cgroup is not None
        task.start.kill(reaper=whole or not task.life.started)
        if not whole:  # the reaper ends the rest itself; if it is kept from that, it goes too
            task.timers.append(self._reactor.after(STOP_GRACE_SECONDS, lambda: _kill_reaper(task)))
        if not task.start.pid:  # still with the spawner, which will find that nobody wants it
            task.start.dismiss()
            if late and self._launcher.spawner_pid:
                self._launcher.kill()

    def end_others(self, known: Collection[Start]) -> None:
        """End the starts that nobody knows of any more: an error came between them and who should."""
        for start in self._launcher.starts.difference(known):
            self.kill_group(start)
            if not start.pid and start.handshake is not None:
                start.dismiss()
            elif start.pid and process.is_child(start.pid):
                start.kill(reaper=True)

    @property
    def empty(self) -> bool:
        """Whether no start has a process left, known or not, and the spawner is to make none."""
        return not any(
            process.is_child(start.pid) if start.pid else start.unheard for start in self._launcher.starts
        )

    def close(self) -> None:
        """Give back all that starts share."""
        self._launcher.close()
        self._images.close()
        self._groups.leave()

    def kill_group(self, start: Start | None) -> None:
        """End everything in a start's cgroup, if it has one."""
        if start is not None and start.cgroup is not None:
            try:
                try:
                    self._groups.kill(start.cgroup)
                except OSError as error:
                    if not (number := missing(error)) or not self._reactor.room.spend(number):
                        raise
                    self._groups.kill(start.cgroup)
            except OSError as error:  # a command that may write the cgroup tree can have removed it
                say(f"{start.cgroup}: {error.strerror}")

    def drop(self, start: Start) -> None:
        """Nothing of it is left: close its descriptors, and remove its cgroup when that is empty."""
        start.close()
        self._remove(start.cgroup)

    def _remove(self, group: str | None, again: float = _REMOVE_SECONDS) -> None:
        """Remove a cgroup as soon as it is empty; one that does not get empty is tried ever more rarely."""
        if group is not None and not self._groups.remove(group):
            later = min(2 * again, _REMOVE_AT_LEAST_EVERY)
            self._reactor.after(again, lambda: self._remove(group, later))


def fitted(plan: Plan, groups: Groups, images: Images) -> Plan:
    """The plan as this machine can run it. Raises PlanError, and no group is left then: see Groups.fit."""
    try:
        return images.fit(groups.fit(plan))
    except PlanError:
        groups.close()
        raise


def _kill_reaper(task: Task) -> None:
    if task.start is not None and task.life.alive and task.life.state != life.DRAINING:
        task.start.kill(reaper=True)
