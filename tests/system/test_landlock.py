"""Landlock rules: what they let through, and what they hold back, from a command that tries."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from initspawn.linux.landlock import BIND, CONNECT, FS, SCOPES
from initspawn.plan import Landlock
from tests.system import boxes
from tests.system.conftest import everybody, root_and_a_user
from tests.system.harness import PYTHON, Person, bench

ALL = sum(FS.values())
RUN = FS["read"] | FS["execute"]
# Everything that a rule can be about, in /data/in (where `allow` says) and in /data/out (where nothing is).
TRY = """
import errno, os, sys
def attempt(word, place, what):
    try: what(); print(word, place, "done")
    except OSError as error: print(word, place, errno.errorcode[error.errno])
for place in ("in", "out"):
    at = f"/data/{place}/"
    attempt("read", place, lambda: os.listdir(at))
    attempt("read", place, lambda: open(at + "file").close())
    attempt("write", place, lambda: open(at + "file", "a").close())
    attempt("write", place, lambda: os.truncate(at + "file", 1))
    attempt("create", place, lambda: os.mkdir(at + "made"))
    attempt("create", place, lambda: os.symlink("x", at + "link"))
    attempt("create", place, lambda: os.mkfifo(at + "fifo"))
    attempt("move", place, lambda: os.rename(at + "file", at + "sub/file"))
    attempt("remove", place, lambda: os.unlink(at + "gone"))
    attempt("remove", place, lambda: os.rmdir(at + "empty"))
    attempt("execute", place, lambda: os.posix_spawn(at + "true", ["true"], {}))
"""


def prepared(who: Person) -> None:
    for place in ("in", "out"):
        top = who.home / place
        for directory in (top, top / "sub", top / "empty"):
            directory.mkdir()
        for name in ("file", "gone"):
            (top / name).write_text("text")
        (top / "true").write_bytes(b"#!/bin/true\n")
        (top / "true").chmod(0o755)
        for each in (top, *top.iterdir()):
            os.chown(each, who.command_uid, who.command_gid)


def tried(who: Person, rules: Landlock) -> dict[tuple[str, str], set[str]]:
    prepared(who)
    result = who.run(boxes.full(who, filters=(), landlock=rules), PYTHON, "-I", "-S", "-c", TRY)
    assert (result.step, result.status, result.err) == ("", {"exit": 0}, ""), result
    found: dict[tuple[str, str], set[str]] = {}
    for line in result.out.splitlines():
        word, place, answer = line.split()
        found.setdefault((word, place), set()).add(answer)
    return found


def everywhere(access: int) -> tuple[tuple[str, int], ...]:
    """What Python needs to start, and `access` in /data/in."""
    below = [entry.target for entry in boxes.programs() if entry.operation == "bind"]
    return (*((path, RUN) for path in below), ("/data/in", access))


WORDS = ("read", "write", "create", "remove", "move", "execute")


@pytest.mark.needs("landlock")
@everybody
@pytest.mark.parametrize("word", [*WORDS, ""])
def test_a_word_allows_what_it_says_and_nothing_else(who: Person, word: str) -> None:
    # What they are made of besides.
    also = {"move": ("create", "remove"), "execute": ("read",)}.get(word, ())
    found = tried(who, Landlock(fs=ALL, paths=everywhere(sum(FS[each] for each in (word, *also) if each))))
    for (what, place), answers in found.items():
        if place == "in" and what == word:
            assert answers == {"done"}, what
        elif place == "out" or what not in also:
            assert answers <= {"EACCES", "EXDEV"}, (what, place)


@pytest.mark.needs("landlock")
@root_and_a_user
def test_what_is_not_restricted_needs_no_rule(who: Person) -> None:
    found = tried(who, Landlock(fs=FS["write"]))
    for (word, _), answers in found.items():
        assert answers == {"write": {"EACCES"}, "move": {"EXDEV"}}.get(word, {"done"}), word


@pytest.mark.needs("landlock")
@root_and_a_user
def test_a_rule_for_a_single_file(who: Person) -> None:
    prepared(who)
    wanted = ("/data/in/file", FS["write"] | FS["create"])  # as a plan made ahead may have it
    box = boxes.full(who, landlock=Landlock(fs=FS["write"] | FS["create"], paths=(wanted,)))
    line = "echo x > /data/in/file && cat /data/in/file; echo y > /data/in/gone"
    result = who.run(box, "/bin/sh", "-c", line)
    assert result.out == "x"
    assert "Permission denied" in result.err


@pytest.mark.needs("landlock")
@root_and_a_user
def test_the_program_itself_needs_a_rule(who: Person) -> None:
    result = who.run(boxes.full(who, landlock=Landlock(fs=ALL)), "/bin/true")
    assert result.refused_at() == ("exec", "EACCES")


@root_and_a_user
@pytest.mark.parametrize(
    ("rules", "number"),
    [
        ({"fs": 1 << 40}, "EINVAL"), ({"fs": 1, "net": 1 << 40}, "EINVAL"), ({"scopes": 1 << 40}, "EINVAL"),
        ({"fs": 1, "paths": (("/nothing", 1),)}, "ENOENT"),
    ],
)  # fmt: skip
@pytest.mark.needs("landlock")
def test_what_the_kernel_does_not_know_is_refused(who: Person, rules: Any, number: str) -> None:
    result = who.run(boxes.full(who, landlock=Landlock(**rules)), "/bin/true")
    assert result.refused_at() == ("Landlock", number), result


@root_and_a_user
def test_where_it_is_optional_it_starts_with_whatever_there_is(who: Person) -> None:
    rules = Landlock(fs=FS["device"] | 1 << 40, scopes=1 << 40, optional=True)
    assert who.run(boxes.full(who, landlock=rules), "/bin/true").status == {"exit": 0}


@pytest.mark.needs("landlock")
@root_and_a_user
def test_a_link_on_the_way_is_an_error(who: Person) -> None:
    (who.home / "link").symlink_to("/usr")
    box = boxes.full(who, landlock=Landlock(fs=FS["write"], paths=(("/data/link", FS["write"]),)))
    assert who.run(box, "/bin/true").refused_at() == ("Landlock", "ELOOP")


CONNECT_TO = """
import errno, socket, sys
for kind, where in (("connect", ("127.0.0.1", {port})), ("connect", ("127.0.0.1", {other}))):
    try: socket.create_connection(where).close(); print(kind, "done")
    except OSError as error: print(kind, errno.errorcode[error.errno])
try: socket.socket().bind(("127.0.0.1", 0)); print("bind done")
except OSError as error: print("bind", errno.errorcode[error.errno])
"""


@pytest.mark.needs("landlock")
@root_and_a_user
def test_ports(who: Person) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        port, other = one.getsockname()[1], two.getsockname()[1]
        box = boxes.sandbox(who, landlock=Landlock(net=BIND | CONNECT, ports=((port, CONNECT),)))
        result = who.run(box, PYTHON, "-I", "-S", "-c", CONNECT_TO.format(port=port, other=other))
    assert result.out.split("\n") == ["connect done", "connect EACCES", "bind EACCES"], result


ABSTRACT = """
import errno, os, socket, sys
try: socket.socket(socket.AF_UNIX).connect("\\0" + sys.argv[1]); print("done")
except OSError as error: print(errno.errorcode[error.errno])
try: os.kill(int(sys.argv[2]), 0); print("done")
except OSError as error: print(errno.errorcode[error.errno])
"""


@pytest.mark.needs("landlock")
@root_and_a_user
@pytest.mark.parametrize("scopes", [0, sum(SCOPES.values())])
def test_scopes(who: Person, scopes: int) -> None:
    name = f"initspawn-test-{os.getpid()}"
    rules = Landlock(fs=FS["device"], scopes=scopes)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        out = who.call(_scoped, boxes.sandbox(who, landlock=rules), name)
    assert out == ("EPERM\nEPERM" if scopes else "done\ndone")


def _scoped(box: Any, name: str) -> str:
    """The one that is signalled is another task of the same sandbox."""
    with bench(box) as made:
        other = made.start("/bin/sleep", "60").begin()
        result = made.run(PYTHON, "-I", "-S", "-c", ABSTRACT, name, str(other.pid))
        other.stop().end()
        return str(result.out)
