"""What commands find in their environment."""

from __future__ import annotations

import pwd
from collections.abc import Callable
from typing import Any

import pytest

from initspawn.plan import Api

Build = Callable[..., Api]
Problems = Callable[..., list[str]]
SERVER = {
    "PATH": "/server",
    "SECRET": "s",
    "HOME": "/server",
    "USER": "server",
    "INITSPAWN_TOKEN": "t",
    "NOTIFY_SOCKET": "/n",
}


def environment(build: Build, sandbox: dict[str, Any], **options: Any) -> dict[str, str]:
    return dict(build(sandbox, **options).sandboxes[0].environment)


def test_nothing_is_inherited_unless_asked_for(build: Build) -> None:
    assert "SECRET" not in environment(build, {}, environ=SERVER)
    assert environment(build, {"envs_from": "clean"}, environ=SERVER) == environment(build, {})


def test_the_servers_environment_on_request(build: Build) -> None:
    acls = {"user": "daemon"}
    found = environment(build, {"envs_from": "Server", "acls": acls}, user=0, environ=SERVER)
    assert found == {
        "PATH": "/server",
        "LANG": "C.UTF-8",
        "SECRET": "s",
        "HOME": pwd.getpwnam("daemon").pw_dir,
        "USER": "daemon",
    }
    taken = {"envs_from": "server", "envs": {"name": "SECRET", "mode": "unset"}}
    assert "SECRET" not in environment(build, taken, environ=SERVER)


def test_paths_of_acls_come_before_entries(build: Build, problems: Problems) -> None:
    acls = {"path": "/opt/$SANDBOX_UID:$PATH", "ldpath": "${LIB:-/lib}"}
    found = environment(build, {"acls": acls}, environ=SERVER)
    assert (found["PATH"], found["LD_LIBRARY_PATH"]) == ("/opt/s:/server", "/lib")
    found = environment(build, {"acls": acls, "envs": {"name": "PATH", "value": "/mine"}}, environ=SERVER)
    assert found["PATH"] == "/mine"
    (said,) = problems({"acls": {"ldpath": "$NOWHERE"}})
    assert said.startswith("test: sandboxes.acls.ldpath: `$NOWHERE` is neither")


@pytest.mark.parametrize("word", ["serve", "", True, None, ["server"]])
def test_other_words_are_refused(problems: Problems, word: Any) -> None:
    assert len(problems({"envs_from": word})) == 1


def test_the_working_directory_is_expanded(build: Build, problems: Problems) -> None:
    assert build({"acls": {"chdir": "${DIR}"}}, environ={"DIR": "/usr"}).sandboxes[0].directory == "/usr"
    (said,) = problems({"acls": {"chdir": "$NOWHERE"}})
    assert "`$NOWHERE` is neither" in said
