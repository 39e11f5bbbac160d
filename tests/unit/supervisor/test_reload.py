"""From one plan to another: what stays the same object, what is refused, and that nothing changes before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.errors import PlanError
from initspawn.plan import NOTIFY, Action, Api, Autostart, Command, Guard, Mount, Plan, Sandbox
from initspawn.supervisor.images import Images
from initspawn.supervisor.reload import Change
from initspawn.supervisor.roster import Roster
from initspawn.supervisor.task import Life


def box(uid: str, **keys: Any) -> Sandbox:
    return Sandbox(uid=uid, **{"user": 1, "group": 1, **keys})


def command(verb: str, sandbox: str = "a", **keys: Any) -> Command:
    return Command(uid=verb, verb=verb, sandbox=sandbox, path="/c", **keys)


def api(name: str, *boxes: Sandbox, commands: tuple[Command, ...] = (), **keys: Any) -> Api:
    return Api(uid=name, api=name, sandboxes=boxes, commands=commands, **keys)


def plan(*apis: Api, **keys: Any) -> Plan:
    return Plan(**{"user": 0, "group": 0, "apis": apis, **keys})


HOSTS = api("hosts", box("h"), hidden=True)
GUARD = Guard(until="t/c", api=api("guard", box("g"), hidden=True))
DOOR = api("gateway", box("gateway"), hidden=True)


class Fake:
    """A supervisor that has fitted its plan: each sandbox is another object than in its file."""

    def __init__(self, loaded: Plan) -> None:
        self.lacking = ""  # the uid of a sandbox that this machine cannot limit
        self.fitted: list[str] = []
        self.known: list[Sandbox] = []
        self.refilled: list[Plan] = []
        self.turned_away: list[Any] = []
        self.groups = self
        self.images = Images()
        self.launcher = SimpleNamespace(renew=self.known.extend)
        self.reserve = SimpleNamespace(renew=self.refilled.append)
        self.roster = Roster()
        self.plan = self.fit(loaded)
        self.fitted.clear()

    def fit(self, plan: Plan) -> Plan:
        self.fitted += [one.uid for api in plan.apis for one in api.sandboxes]
        if self.lacking in self.fitted:
            raise PlanError("no limits here")

        def made(api: Api) -> Api:
            return api.replace(sandboxes=tuple(one.replace(info="fitted") for one in api.sandboxes))

        return plan.replace(apis=tuple(made(one) for one in plan.apis))

    def turn_away(self, task: Any, why: Exception) -> None:
        self.turned_away.append(task)


def change(fake: Fake, old: Plan, new: Plan) -> Change:
    return Change(fake, None, old, new)  # type: ignore[arg-type]


OLD = plan(
    api("t", box("a"), box("b"), commands=(command("c"), command("d", "b")), onload=(
        Action(uid="o", api="t", verb="c"),
    )),
    api("u", box("a")),
    DOOR,
    hosts=HOSTS, guard=GUARD, watcher=api("watcher", box("kernel"), hidden=True),
)  # fmt: skip


def again(old: Plan, **keys: Any) -> Plan:
    """The same, as it comes from a file: no object is an old one."""
    return Plan.from_plain(old.to_plain()).replace(**keys)


def test_what_is_equal_stays_the_same_object() -> None:
    fake = Fake(OLD)
    first, second, _ = again(OLD).apis
    other = first.replace(sandboxes=(box("b"), box("a", umask=0o77), box("c")), info="new")
    made = change(fake, OLD, again(OLD, apis=(second, other)))
    assert fake.fitted == ["a", "c"]
    old = {sandbox.uid: sandbox for sandbox in fake.plan.apis[0].sandboxes}
    t = made.plan.apis[1]
    assert t.sandboxes[0] is old["b"]
    assert [one.uid for one in t.sandboxes] == ["b", "a", "c"]
    assert [one.info for one in t.sandboxes] == ["fitted"] * 3
    assert t.sandboxes[1].umask == 0o77
    assert made.plan.apis[0].sandboxes[0] is fake.plan.apis[1].sandboxes[0]
    assert all(new is one for new, one in zip(t.commands, OLD.apis[0].commands, strict=True))
    assert t.onload[0] is OLD.apis[0].onload[0]
    for new, one in (
        (made.plan.hosts, fake.plan.hosts), (made.plan.watcher, fake.plan.watcher),
        (made.plan.guard and made.plan.guard.api, fake.plan.guard and fake.plan.guard.api),
    ):  # fmt: skip
        assert new is not None
        assert one is not None
        assert new.sandboxes[0] is one.sandboxes[0]
    assert made.plan.apis[2].sandboxes[0] is fake.plan.apis[2].sandboxes[0]  # the gateway's
    assert made.told() == {
        "apis": 2, "commands": 2, "new-commands": 0, "gone": 0, "sandboxes": 4, "new-sandboxes": 2,
    }  # fmt: skip


def test_commands_that_are_new_another_or_gone_are_told() -> None:
    first, second, _ = again(OLD).apis
    other = first.replace(commands=(command("d", "b", info="new"), command("e")))
    told = change(Fake(OLD), OLD, again(OLD, apis=(other, second))).told()
    assert (told["commands"], told["new-commands"], told["gone"], told["new-sandboxes"]) == (2, 2, 1, 0)


def test_each_new_sandbox_is_where_it_belongs() -> None:
    fake = Fake(OLD)
    hosts, watcher = HOSTS.replace(sandboxes=(box("x"),)), api("watcher", box("y"), box("z"), hidden=True)
    made = change(fake, OLD, again(OLD, apis=(api("t", box("w")),), hosts=hosts, watcher=watcher))
    assert [one.uid for one in made.plan.sandboxes()] == ["w", "gateway", "x", "g", "y", "z"]
    assert made.plan.hosts is not None
    assert made.plan.watcher is not None
    assert [one.uid for one in made.plan.hosts.sandboxes] == ["x"]
    assert [one.uid for one in made.plan.watcher.sandboxes] == ["y", "z"]


def test_the_next_change_begins_where_the_last_one_ended() -> None:
    fake, first = Fake(OLD), again(OLD)
    loaded = OLD
    for uid in ("x", "y", "x"):
        new = first.replace(apis=(api("t", box("a"), box(uid), commands=(command("c"),)),))
        made = change(fake, loaded, again(new))
        kept = fake.plan.apis[0].sandboxes[0]
        made.commit()
        loaded = made.loaded
        assert fake.plan is made.plan
        assert fake.plan.apis[0].sandboxes[0] is kept
        assert fake.refilled[-1] is fake.plan
        assert all(any(one is known for known in fake.known) for one in fake.plan.sandboxes())


STARTS = Autostart()
NOTIFIES = Autostart(ready=NOTIFY)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (OLD, again(OLD, user=1), "not for this supervisor"),
        (OLD, again(OLD, group=1), "not for this supervisor"),
        (OLD, again(OLD, late=True), "not for this supervisor"),
        (OLD, again(OLD, doors={}), "doors"),
        (OLD, again(OLD, guard=None), "guard"),
        (OLD, again(OLD, apis=(DOOR.replace(sandboxes=(box("gateway", umask=1),)),)), "the gateway"),
        (plan(api("t")), plan(api("t", page="/x")), "`page`"),
        (plan(api("t", page="/x")), plan(), "`page`"),
    ],
)
def test_what_is_refused_changes_nothing(old: Plan, new: Plan, told: str) -> None:
    fake = Fake(old)
    before = fake.plan
    with pytest.raises(PlanError, match=told):
        change(fake, old, new)
    assert fake.plan is before
    assert (fake.known, fake.refilled, fake.fitted) == ([], [], [])


def test_a_machine_that_cannot_do_it_refuses_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    fake = Fake(OLD)
    before = fake.plan
    fake.lacking = "x"
    with pytest.raises(PlanError, match="no limits here"):
        change(fake, OLD, again(OLD, apis=(api("t", box("x")),)))
    fake.lacking = ""
    image = Mount(operation="image", target="/", source="/none/image", read_only=True)
    with pytest.raises(PlanError, match="an image cannot be used: /none/image: "):
        change(fake, OLD, again(OLD, apis=(api("t", box("y", mounts=(image,), new_root=True)),)))
    assert fake.plan is before
    assert fake.images.fault(plan(api("t", box("y", mounts=(image,))))) == ""
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("was", "wanted", "same"),
    [
        (STARTS, NOTIFIES, False), (NOTIFIES, STARTS, False), (NOTIFIES, NOTIFIES, True),
        (NOTIFIES, NOTIFIES.replace(stage="early"), True), (NOTIFIES, NOTIFIES.replace(watchdog=1.0), False),
        (STARTS, None, True),
    ],
)  # fmt: skip
def test_who_sends_messages_is_part_of_what_a_sandbox_is(was: Any, wanted: Any, same: bool) -> None:
    old = plan(api("t", box("a"), commands=(command("c", autostart=was),)))
    fake = Fake(old)
    new = api("t", box("a"), commands=(command("c", autostart=wanted),))
    made = change(fake, old, again(old, apis=(new,)))
    assert (made.plan.apis[0].sandboxes[0] is fake.plan.apis[0].sandboxes[0]) == same


def test_only_who_would_get_something_else_is_turned_away() -> None:
    fake = Fake(OLD)
    t = fake.plan.apis[0]

    def waits(command: Command, sandbox: Sandbox) -> Any:
        task = in_state("queued", api=t, command=command, sandbox=sandbox)
        fake.roster.waiting.append(task)
        return task

    kept = waits(t.commands[0], t.sandboxes[0])
    gone, moved = waits(t.commands[1], t.sandboxes[1]), waits(t.commands[0], box("a"))
    starting = in_state("starting", api=api("t", box("x")))
    fake.roster.starting.append(starting)
    held, runs = (in_state(state, api=api("t", box("z"))) for state in ("held", "running"))
    fake.roster.tasks.extend((held, runs))
    new = OLD.apis[0].replace(commands=OLD.apis[0].commands[:1])
    made = change(fake, OLD, again(OLD, apis=(new,)))
    made.commit()
    assert fake.turned_away == [gone, moved]
    assert kept.api is made.plan.apis[0]  # what it starts besides is of the new plan
    known = [[any(one is box for box in fake.known) for one in task.api.sandboxes] for task in (held, runs)]
    assert known == [[True], [False]]  # who is not at its exec may need it once more
    assert any(one is starting.api.sandboxes[0] for one in fake.known)


def test_a_spawner_that_cannot_be_told_leaves_all_as_it_was() -> None:
    fake = Fake(OLD)
    before = fake.plan

    def fails(sandboxes: list[Sandbox]) -> None:
        raise OSError(24, "Too many open files")

    fake.launcher.renew = fails
    made = change(fake, OLD, again(OLD, apis=(api("t", box("x")),)))
    with pytest.raises(OSError, match="Too many"):
        made.commit()
    assert (fake.plan, fake.refilled) == (before, [])


def test_who_begins_keeps_the_image_of_its_sandbox() -> None:
    """Its device must not become another one's before it is mounted."""
    fake = Fake(OLD)
    kept: list[list[Sandbox]] = []
    fake.images = SimpleNamespace(fit=lambda plan: plan, fault=lambda _: "", keep=kept.append)  # type: ignore[assignment]
    before = fake.plan
    begins, runs = (in_state(state, api=api("t", box(state))) for state in ("held", "running"))
    fake.roster.tasks.extend((begins, runs))
    made = change(fake, OLD, again(OLD, apis=(api("t", box("x")),)))
    made.drop()
    made.commit()
    for boxes, of in zip(kept, (before, made.plan), strict=True):
        assert [one.uid for one in boxes] == [*(one.uid for one in of.sandboxes()), "held"]


def in_state(state: str, **keys: Any) -> Any:
    life = Life()
    life.state = state
    return SimpleNamespace(life=life, **keys)
