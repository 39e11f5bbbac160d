"""The command line itself: help, exit codes, what is imported, what is printed when things go wrong."""

from __future__ import annotations

import socket
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from initspawn.cli import exits, main
from initspawn.cli.check import confinement
from initspawn.cli.sockets import listen_network
from initspawn.errors import ConfigError, InitspawnError, LaunchRefused, Problem, RequestError


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """A call of `initspawn check` whose work raises."""

    def work(_: object) -> int:
        raise error

    module = types.SimpleNamespace(HELP="h", configure=lambda parser: None, main=work)
    monkeypatch.setattr(main, "import_module", lambda name: module)
    return lambda: main.main(["check"])


def test_help_lists_all_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in (*main.COMMANDS, "examples:", "exit codes:", "125"):
        assert word in text


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: initspawn {name}" in text
    assert "examples:" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("initspawn ")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "a command is missing"),
        (["serv"], "did you mean 'serve'?"),
        (["--nonsense"], "unknown option --nonsense"),
        (["check"], "required: FILE"),
        (["check", "--nonsense", "file"], "--nonsense"),
        (["call"], "required: API/VERB\n"),
        (["compare", "file"], "required: VERB\n"),
        (["explain", "file"], "write either a VERB or --boot\n"),
        (["run", "file"], "required: VERB\n"),
        (["call", "a/b", "c:=/d=e"], "(for text write c=/d=e)"),
        (["call", "a/b", "--timeout", "soon"], "'soon' is no number of seconds"),
        (["call", "nothing"], "write API/VERB"),
        (["call", "a/b", "c"], "'c' is no argument"),
        (["check", "--user", "nobody at all", "file"], "there is no user"),
    ],
)
def test_wrong_usage(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(argv) == exits.USAGE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "/x"), 111, "/x: No such file or directory"),
        (OSError("just so"), 111, "just so"),
        (InitspawnError("broken\nin two"), 111, "broken in two"),
        (exits.UsageError("wrong"), 100, "wrong"),
        (RequestError("timeout"), 124, "timeout"),
        (RequestError("insufficient-scope"), 126, "insufficient-scope"),
        (RequestError("unknown-verb", "a/b"), 127, "unknown-verb: a/b"),
        (RequestError("invalid-request"), 100, "invalid-request"),
        (RequestError("internal-error", "start refused at 'user'"), 125, "start refused at 'user'"),
        (RequestError("disconnected"), 111, "disconnected"),
        (LaunchRefused("mounts", 1), 125, "start refused at 'mounts'"),
        (ZeroDivisionError("oh"), 111, "internal error: ZeroDivisionError: oh (INITSPAWN_DEBUG=1 "),
    ],
)
def test_an_error_is_one_line_and_a_code(
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert raising(error, monkeypatch)() == code
    said = capsys.readouterr().err
    assert said.startswith("initspawn: ")
    assert line in said
    assert said.count("\n") == 1


def test_every_problem_is_told_and_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = [Problem(file="f", line=line, key="k", message="m", hint="h") for line in (3, 5)]
    assert raising(ConfigError(problems), monkeypatch)() == exits.USAGE
    assert capsys.readouterr().err == "f:3: k: m (h)\nf:5: k: m (h)\ninitspawn: 2 problems\n"


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(KeyboardInterrupt(), monkeypatch)() == 130
    assert capsys.readouterr().err == ""


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INITSPAWN_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError(), monkeypatch)()


def test_nobody_reading_is_no_error() -> None:
    # `true` reads nothing: our output goes into a pipe that is closed already.
    script = "import sys, time; sys.stdin.read(); from initspawn.cli.main import main; sys.exit(main(['-h']))"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) == 128 + 13


def test_a_call_imports_no_compiler() -> None:
    script = (
        "import sys; from initspawn.cli.main import main; main(['call', 'a/b', '--socket', '/nonexistent']);"
        "print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True
    )
    loaded = set(result.stdout.split())
    assert "initspawn.cli.call" in loaded
    unwanted = {"yaml", "msgspec", "asyncio", "socket", "typing", "initspawn.plan", "initspawn.sandbox"}
    assert not loaded & unwanted


def test_running_the_package_is_running_the_command() -> None:
    argv = [sys.executable, "-m", "initspawn", "--version"]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert (result.returncode, result.stdout.split()[0]) == (0, "initspawn")


@pytest.mark.parametrize(("held", "words"), [(1 << 12, "one capability"), (3, "2 capabilities")])
def test_check_counts_capabilities(held: int, words: str) -> None:
    box = types.SimpleNamespace(
        new_root=False, namespaces=(), filters=(), capabilities=held, no_new_privileges=True, cgroup=None
    )
    assert confinement(box) == words  # type: ignore[arg-type]  # what it asks of a sandbox


def test_a_scope_that_may_be_misspelt_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add = ["token", "add", "--state-dir", str(tmp_path / "state")]
    for number, scope in enumerate(("see", "*", "urn:acme:see", "staff")):
        assert main.main([*add, f"right{number}", "--scope", scope]) == 0
    assert capsys.readouterr().err == ""
    assert main.main([*add, "viewer", "--scope", "sea"]) == 0
    assert "`sea` is taken for a privilege; did you mean the action `see`?" in capsys.readouterr().err


def test_tokens_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    for order, code in ((["list"], 0), (["revoke", "viewer"], 127)):
        assert main.main(["token", *order, "--state-dir", str(state)]) == code
        assert f"there are no tokens in {state}" in capsys.readouterr().err
    assert not state.exists()


def test_a_directory_of_everybody_is_not_to_be_closed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mode, said in ((0o1777, "name one of your own inside it"), (0o755, "chmod 700 it")):
        tmp_path.chmod(mode)
        assert main.main(["token", "list", "--state-dir", str(tmp_path)]) == 111
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "said"),
    [("192.0.2.1", "another --host"), ("127.0.0.1", "another --port"), ("a b", "another --host")],
)
def test_an_address_that_cannot_be_had(host: str, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InitspawnError, match=said):
        listen_network(host, taken.getsockname()[1])
