"""Who may do what: deny unless a rule allows."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.verbs.access import (
    ACTIONS,
    EXECUTE,
    INPUT,
    NOBODY,
    OTHERS,
    OUTPUT,
    RECORDS,
    SESSION_SECONDS,
    STOP,
    Identity,
    Token,
    Tokens,
    allowed,
    digest,
)

PRIVILEGE = "urn:AGL:permission:x"
PRIVILEGES = [None, PRIVILEGE, ""]
ORDINARY = [action for action in ACTIONS if action not in (EXECUTE, OTHERS)]


def token(*scopes: str) -> Identity:
    return Identity(kind="token", scopes=frozenset(scopes))


def test_the_actions() -> None:
    assert ACTIONS == ("see", "start", "stop", "input", "output", "others", "records", "exec")


@pytest.mark.parametrize("action", ORDINARY)
@pytest.mark.parametrize("privilege", PRIVILEGES)
@pytest.mark.parametrize(
    ("identity", "may"),
    [
        (Identity(kind="local", user=0), True),
        (Identity(kind="local", user=1000), True),
        (NOBODY, False),
        (Identity(kind="nobody", user=0, scopes=frozenset(("*",))), False),
        (Identity(kind="other", scopes=frozenset(("*", *ACTIONS, PRIVILEGE))), False),
        (Identity(kind="", scopes=frozenset(("*",))), False),
        (Identity(kind="Local"), False),
        (token(), False),
        (token("*"), True),
        (token("*", "see"), True),
        (token("all"), False),
    ],
)
def test_kinds(identity: Identity, action: str, privilege: str | None, may: bool) -> None:
    assert allowed(identity, action, privilege) is may


@pytest.mark.parametrize("action", ORDINARY)
@pytest.mark.parametrize("scope", [*ACTIONS, PRIVILEGE])
@pytest.mark.parametrize("privilege", [None, PRIVILEGE])
def test_a_scope_is_a_right_or_a_privilege(action: str, scope: str, privilege: str | None) -> None:
    wanted = action if privilege is None else privilege
    assert allowed(token(scope), action, privilege) is (scope == wanted)


@pytest.mark.parametrize(
    ("identity", "privilege", "may"),
    [
        (Identity(kind="local", user=1000), None, True),
        (Identity(kind="local", user=1000), PRIVILEGE, True),
        (NOBODY, None, False),
        (token("*"), None, False),
        (token("*"), PRIVILEGE, False),
        (token(*ORDINARY, PRIVILEGE, "*"), PRIVILEGE, False),
        (token("exec"), None, True),
        (token("exec"), PRIVILEGE, False),
        (token("exec", PRIVILEGE), PRIVILEGE, True),
        (token("exec", "*"), PRIVILEGE, True),
    ],
)
def test_free_commands_have_to_be_granted_by_name(
    identity: Identity, privilege: str | None, may: bool
) -> None:
    assert allowed(identity, EXECUTE, privilege) is may


def test_all_rights_are_no_privilege_and_a_privilege_is_no_right() -> None:
    assert not any(allowed(token(*ACTIONS), action, PRIVILEGE) for action in ACTIONS)
    assert not any(allowed(token(PRIVILEGE), action, None) for action in ACTIONS)


@pytest.mark.parametrize("action", ["", "START", "start ", "*", "none", None, PRIVILEGE])
@pytest.mark.parametrize("identity", [Identity(kind="local"), token("*"), token("", "START", "none")])
def test_unknown_actions_are_denied(identity: Identity, action: Any) -> None:
    assert not allowed(identity, action, None)
    assert not allowed(identity, action, PRIVILEGE)


@given(
    kind=st.sampled_from(["local", "token", "nobody"]) | st.text(max_size=5),
    scopes=st.frozensets(st.sampled_from([*ACTIONS, "*", "p", "q"])),
    action=st.sampled_from(ACTIONS) | st.text(max_size=5),
    privilege=st.none() | st.sampled_from(["p", "q", ""]),
)
def test_nothing_else_allows(kind: str, scopes: frozenset[str], action: str, privilege: str | None) -> None:
    one = action if privilege is None else privilege
    grants = {"*", *([one] if privilege is None or action != OTHERS else [])} & scopes
    named = action != EXECUTE or EXECUTE in scopes
    expected = action in ACTIONS and (kind == "local" or (kind == "token" and bool(grants) and named))
    assert allowed(Identity(kind=kind, scopes=scopes), action, privilege) is expected


# Other people's tasks, and actions granted apart.


def named(name: str, *scopes: str) -> Identity:
    return Identity(kind="token", name=name, scopes=frozenset(scopes))


@pytest.mark.parametrize("privilege", [None, "p"])
@pytest.mark.parametrize("action", [STOP, OUTPUT, INPUT, RECORDS])
def test_the_tasks_of_others(action: str, privilege: str | None) -> None:
    plain = ("p",) if privilege else (action,)
    apart = (f"p#{action}",) if privilege else (action,)
    more = "p#others" if privilege else "others"
    for scopes in (plain, apart):
        assert allowed(named("me", *scopes), action, privilege, "me")
        assert not allowed(named("me", *scopes), action, privilege, "you")
        assert not allowed(named("me", *scopes), action, privilege, "")
        assert allowed(named("me", *scopes, more), action, privilege, "you")
    assert not allowed(named("me", more), action, privilege, "you")
    assert allowed(named("me", "*"), action, privilege, "you")
    assert allowed(Identity(kind="local", name="me"), action, privilege, "you")
    assert not allowed(NOBODY, action, privilege, NOBODY.name)


@pytest.mark.parametrize("granted", ACTIONS)
@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_of_a_privilege_can_be_granted_alone(granted: str, action: str) -> None:
    identity = token(f"p#{granted}")
    assert allowed(identity, action, "p") is (granted == action and action != EXECUTE)
    assert not allowed(identity, action, None)
    assert not allowed(identity, action, "q")


# Tokens.


def valid(text: str, *scopes: str, expires: float | None = None) -> Token:
    return Token(name=text, digest=digest(text), scopes=frozenset(scopes), expires=expires)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_token_is_stored_as_its_sha256() -> None:
    assert digest("s3cret") == hashlib.sha256(b"s3cret").hexdigest()
    assert digest("é") == hashlib.sha256("é".encode()).hexdigest()


def test_tokens() -> None:
    tokens = Tokens([valid("one", "see"), valid("two", "*")])
    assert tokens.identity("one") == Identity(
        kind="token", scopes=frozenset(("see",)), name="token:one", key=digest("one")
    )
    assert tokens.identity("two").scopes == {"*"}


@pytest.mark.parametrize(
    "shown", [None, "", "On", "one ", "ONE", digest("one"), "one\0", "\ud800", "x" * 10000]
)
def test_other_tokens(shown: str | None) -> None:
    assert Tokens([valid("one", "*")]).identity(shown) is NOBODY


@pytest.mark.parametrize("shown", [None, "", "one"])
def test_where_no_token_is_valid(shown: str | None) -> None:
    assert Tokens().identity(shown) is NOBODY


def test_every_known_token_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time must not tell which token was nearly right."""
    import _operator

    compared: list[str] = []

    def compare(shown: str, known: str) -> bool:
        compared.append(known)
        return shown == known

    monkeypatch.setattr(_operator, "_compare_digest", compare)
    tokens = Tokens([valid(name, name) for name in ("one", "two", "three")])
    assert tokens.identity("one").scopes == {"one"}
    assert compared == [digest(name) for name in ("one", "two", "three")]


def test_a_token_is_over() -> None:
    clock = Clock()
    tokens = Tokens([valid("one", "*", expires=1010.0), valid("two", "*")], clock)
    identity = tokens.identity("one")
    assert tokens.next_expiry() == 10.0
    assert tokens.current(identity) == identity
    clock.now = 1010.0
    assert tokens.identity("one") is NOBODY
    assert tokens.current(identity) is NOBODY
    assert tokens.next_expiry() is None
    assert tokens.identity("two").kind == "token"


def test_a_stored_token_is_revoked() -> None:
    tokens, told = Tokens([valid("fixed", "*")]), []
    tokens.on_change.append(lambda: told.append(True))
    tokens.store([valid("one", "see")])
    identity = tokens.identity("one")
    assert identity.name == "token:one"
    tokens.store([Token(name="one", digest=digest("other"), scopes=frozenset(("see",)))])
    assert tokens.current(identity) is NOBODY
    assert tokens.identity("fixed").kind == "token"
    assert told == [True, True]
    local = Identity(kind="local")
    assert tokens.current(local) is local


def test_logging_in() -> None:
    clock = Clock()
    tokens = Tokens([valid("one", "see", expires=5000.0)], clock)
    assert tokens.log_in("wrong") is None
    assert tokens.log_in(None) is None
    fresh = tokens.log_in("one")
    assert fresh is not None
    assert fresh != "one"
    identity = tokens.identity(fresh)
    assert (identity.name, identity.scopes) == ("token:one", {"see"})
    assert tokens.log_in(fresh) is None  # it does not renew itself
    told = []
    tokens.on_change.append(lambda: told.append(True))
    tokens.log_out("one")
    tokens.log_out("wrong")
    assert told == []  # every open connection would be looked at
    assert tokens.identity(fresh) == identity
    tokens.log_out(fresh)
    assert told == [True]
    assert tokens.identity(fresh) is NOBODY
    again = tokens.log_in("one")
    clock.now = 5000.0  # with the token it came from
    assert tokens.identity(again) is NOBODY


def test_log_ins_are_bounded_and_end() -> None:
    clock = Clock()
    tokens = Tokens([valid("one", "see")], clock)
    fresh = [tokens.log_in("one") for _ in range(65)]
    assert tokens.identity(fresh[0]) is NOBODY
    assert tokens.identity(fresh[1]).kind == "token"
    clock.now += SESSION_SECONDS
    assert tokens.identity(fresh[1]) is NOBODY


def test_a_log_in_ends_with_the_token_it_came_from() -> None:
    tokens = Tokens()
    tokens.store([valid("one", "see")])
    fresh = tokens.log_in("one")
    tokens.store([])
    assert tokens.identity(fresh) is NOBODY
