"""`$NAME` when the file is read, `%name%` when a command starts."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.config.expand import ExpandFault, Names, builtin_names, expand, template
from initspawn.plan import OPTIONAL, REQUIRED, TEXT, Api

ENVIRON = {"FOO": "foo", "EMPTY": "", "PERCENT": "50%x%", "HOME": "/root", "DOLLAR": "$FOO", "lower": "l"}
NAMES = builtin_names(ENVIRON, api="t", user=1, group=2).also(SANDBOX_UID="s", COMMAND_UID="c", SBOXUSER="7")


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("$FOO", "foo"),
        ("${FOO}", "foo"),
        ("$(FOO)", "foo"),
        ("a${FOO}b$FOO-c", "afoobfoo-c"),
        ("$home/x:$HOME;", "/root/x:/root;"),
        ("$lower", "l"),
        ("${MISSING-d}${EMPTY-d}", "d"),
        ("${MISSING:-d}${EMPTY:-d}", "dd"),
        ("${MISSING-}", ""),
        ("${MISSING-a$FOO}", "afoo"),
        ("$$FOO \\$FOO", "$FOO $FOO"),
        ("$DOLLAR", "$FOO"),
        ("$SANDBOX_UID $sandbox $COMMAND $COMMAND_UID $APINAME $API_NAME", "s s c c t t"),
        ("$UID $GID $SBOXUSER", "1 2 7"),
        ("back\\slash", "back\\slash"),
    ],
)
def test_dollar(text: str, result: str) -> None:
    assert expand(text, NAMES) == result


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$MISSING", "`$MISSING` is neither"),
        ("${SANDBOX_UIS}", "did you mean `$SANDBOX_UID`?"),
        ("$FOOBAR", "`$FOOBAR`"),
        ("100$", "`$$`"),
        ("$1", "`$$`"),
        ("${FOO", "`$$`"),
        ("${FOO+x}", "`$$`"),
        ("a${@uid}", "`${@key}` is not known: write the value itself"),
        ("${A-$MISSING}", "`$MISSING`"),
    ],
)
def test_dollar_faults(text: str, said: str) -> None:
    with pytest.raises(ExpandFault, match=re.escape(said)):
        expand(text, NAMES)


def test_built_in_names_come_before_the_environment() -> None:
    names = builtin_names({"API_NAME": "liar", "UUID": "liar", "SBIN": "liar"}, api="t", user=1, group=1)
    assert names.get("API_NAME") == "t"
    assert names.get("UUID") != names.get("UUID")
    assert names.get("sbin") in ("/sbin", "/usr/sbin")
    assert re.fullmatch(r"\d\d-\w{3}-\d{4} \d\d:\d\d:\d\d \(\S+\)", names.get("TODAY") or "")
    for name in ("LOGNAME", "HOSTNAME", "HOME", "AFB_ROOTDIR", "AFB_NAME", "PID"):
        assert names.get(name), name
    assert names.get("SANDBOX_UID") is None


def test_a_nul_from_the_environment_is_refused() -> None:
    with pytest.raises(ExpandFault, match="NUL"):
        expand("$A", Names({"A": "x\0y"}, {}))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [(TEXT, "")]),
        ("plain", [(TEXT, "plain")]),
        ("%a%", [(REQUIRED, "a")]),
        ("?a?", [(OPTIONAL, "a")]),
        ("--x=%a%!", [(TEXT, "--x="), (REQUIRED, "a"), (TEXT, "!")]),
        ("?d?%f%", [(OPTIONAL, "d"), (REQUIRED, "f")]),
        ("100%%", [(TEXT, "100%")]),
        ("what??", [(TEXT, "what?")]),
        ("50% off", [(TEXT, "50% off")]),
        ("http://h/x?y=1", [(TEXT, "http://h/x?y=1")]),
        ("u?y=%a%?z", [(TEXT, "u"), (OPTIONAL, "y=%a%"), (TEXT, "z")]),
        ("%a?%", [(REQUIRED, "a?")]),
        ("%a.b%", [(REQUIRED, "a.b")]),
        ("%" + "a" * 63 + "%", [(REQUIRED, "a" * 63)]),
        ("$FOO%a%", [(TEXT, "foo"), (REQUIRED, "a")]),
        ("$PERCENT%a%", [(TEXT, "50%x%"), (REQUIRED, "a")]),
        ("$$%a%\\$", [(TEXT, "$"), (REQUIRED, "a"), (TEXT, "$")]),
        ("${EMPTY}", [(TEXT, "")]),
    ],
)
def test_template(text: str, parts: list[tuple[str, str]]) -> None:
    assert list(template(text, NAMES)) == parts


def test_a_label_is_short() -> None:
    with pytest.raises(ExpandFault, match="`%%`"):
        template("%" + "a" * 64 + "%", NAMES)


@given(st.text())
def test_what_the_environment_brings_is_plain_text(value: str) -> None:
    if "\0" not in value:
        assert template("$V", Names({"V": value}, {})) == ((TEXT, value),)


@given(st.text(alphabet="$%?{}()-:\\aB_1 ", max_size=30))
def test_nothing_but_faults(text: str) -> None:
    for function in (expand, template):
        with contextlib.suppress(ExpandFault):
            function(text, Names({"a": "x"}, {}))


def test_where_names_are_known(build: Callable[..., Api], problems: Callable[..., list[str]]) -> None:
    api = build(
        {"envs": {"name": "A", "value": "$SANDBOX_UID"}},
        exec={"cmdpath": "/bin/${P}", "args": ["$COMMAND_UID", "$SBOXUSER", "$X"]},
        environ={"X": "%x%", "P": "true"},
    )
    (command,) = api.commands
    assert command.path == "/bin/true"
    assert command.arguments[0] == ((TEXT, "c"),)
    assert command.arguments[2] == ((TEXT, "%x%"),)
    assert ("A", "s") in api.sandboxes[0].environment
    (said,) = problems({"envs": {"name": "A", "value": "$COMMAND_UID"}})
    assert "`$COMMAND_UID` means nothing here: only a command's `exec` has one" in said


def test_an_unknown_name_is_told_how_a_plain_dollar_is_written() -> None:
    with pytest.raises(ExpandFault, match=r"; a plain `\$` is written `\$\$`$"):
        expand("$nowhere_to_be_found", Names({}, {}))


@pytest.mark.parametrize("text", ["+%Y-%m-%d", "%H:%M", "+%d.%m", "%Y %m"])
def test_a_date_format_is_told_how_percent_signs_are_written(text: str) -> None:
    with pytest.raises(ExpandFault, match="a plain `%` is written `%%`"):
        template(text, NAMES)
    assert template(text.replace("%", "%%"), NAMES) == ((TEXT, text),)


def test_the_settings_of_the_api(build: Callable[..., Api]) -> None:
    program = {"cmdpath": "/bin/true", "args": "$AFB_CONFIG"}
    raw = {
        "metadata": {"uid": "u", "api": "t", "info": "50% é"},
        "sandboxes": {"uid": "s", "commands": {"uid": "c", "exec": program}},
    }
    (((kind, text),),) = build(raw=raw).commands[0].arguments
    assert (kind, text) == (TEXT, '{"uid": "u", "api": "t", "info": "50% é"}')
