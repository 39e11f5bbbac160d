"""Who may do what: deny unless a rule allows."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.verbs import access
from initspawn.verbs.access import ACTIONS, EXECUTE, NOBODY, Identity, Tokens, allowed, digest

PRIVILEGE = "urn:AGL:permission:x"
PRIVILEGES = [None, PRIVILEGE, ""]
ORDINARY = [action for action in ACTIONS if action != EXECUTE]


def token(*scopes: str) -> Identity:
    return Identity(kind="token", scopes=frozenset(scopes))


def test_the_actions() -> None:
    assert ACTIONS == ("see", "start", "stop", "output", "records", "exec")


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
    grants = {"*", action if privilege is None else privilege} & scopes
    named = action != EXECUTE or EXECUTE in scopes
    expected = action in ACTIONS and (kind == "local" or (kind == "token" and bool(grants) and named))
    assert allowed(Identity(kind=kind, scopes=scopes), action, privilege) is expected


# Tokens.


def test_a_token_is_stored_as_its_sha256() -> None:
    assert digest("s3cret") == hashlib.sha256(b"s3cret").hexdigest()
    assert digest("é") == hashlib.sha256("é".encode()).hexdigest()


def test_tokens() -> None:
    tokens = Tokens({digest("one"): frozenset(("see",)), digest("two"): frozenset(("*",))})
    assert tokens.identity("one") == token("see")
    assert tokens.identity("two") == token("*")


@pytest.mark.parametrize(
    "shown", [None, "", "On", "one ", "ONE", digest("one"), "one\0", "\ud800", "x" * 10000]
)
def test_other_tokens(shown: str | None) -> None:
    assert Tokens({digest("one"): frozenset(("*",))}).identity(shown) is NOBODY


@pytest.mark.parametrize("shown", [None, "", "one"])
def test_where_no_token_is_valid(shown: str | None) -> None:
    assert Tokens({}).identity(shown) is NOBODY


def test_every_known_token_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time must not tell which token was nearly right."""
    import _operator

    compared: list[str] = []

    def compare(shown: str, known: str) -> bool:
        compared.append(known)
        return shown == known

    monkeypatch.setattr(_operator, "_compare_digest", compare)
    hashes = {digest(name): frozenset((name,)) for name in ("one", "two", "three")}
    assert Tokens(hashes).identity("one") == token("one")
    assert compared == list(hashes)
    assert access.EVERYTHING not in Tokens(hashes).identity("one").scopes
