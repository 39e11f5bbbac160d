"""Running things as an ordinary user."""

from __future__ import annotations

import os
import pickle
import shutil
import site
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.probes import NOBODY

ROOT = Path(__file__).parents[2]
# Development tools are large and no ordinary user's command needs them.
TOOLS = ("*mypy*", "ruff*", "pip*", "setuptools*", "*pytest*", "hypothesis*", "ast_serialize*", "pygments*")


Process = subprocess.Popen[str]
Completed = subprocess.CompletedProcess[str]


class Ordinary:
    """One ordinary user: a number, a directory of its own, and an initspawn it can read.

    As root, a process gets the user's id, a group of the same number and no further groups. Without
    privileges the user is ourselves.
    """

    def __init__(self, uid: int, home: Path, library: str) -> None:
        self.uid = uid
        self.gid = uid if os.geteuid() == 0 else os.getgid()
        self.home = home
        self.python = os.path.realpath(sys.executable)  # a venv's own link may lie where only root may go
        self.environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": library,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.initspawn = [self.python, "-c", "from initspawn.cli.main import main; raise SystemExit(main())"]
        if os.geteuid() == 0:
            os.chown(home, self.uid, self.gid)

    def popen(self, argv: list[str], *, env: Mapping[str, str] | None = None, **options: Any) -> Process:
        """Start a command; `env` comes on top of the user's environment."""
        identity = {"user": self.uid, "group": self.gid, "extra_groups": []} if os.geteuid() == 0 else {}
        settings = {"cwd": self.home, "text": True, "env": {**self.environment, **(env or {})}}
        return subprocess.Popen(argv, **{**settings, **identity, **options})

    def run(self, argv: list[str], *, timeout: float = 30, **options: Any) -> Completed:
        """Run a command to its end and keep its output. Raises subprocess.TimeoutExpired."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self.popen(argv, **{**pipes, **options}) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns when that user calls it, in a child process.

        Raises AssertionError with the child's traceback if it raises. Modules the function imports come
        from the readable copy; the result must be picklable.
        """
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # fork beside xdist's threads
            child = os.fork()
        if child == 0:
            self._answer(writer, function, arguments)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert answer, f"the child ended with {status} and no answer"
        failure, result = pickle.loads(answer)
        assert not failure, failure
        return result

    def _answer(self, writer: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """The child's part of `call`; does not return."""
        try:
            os.chdir(self.home)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(self.gid, self.gid, self.gid)
                os.setresuid(self.uid, self.uid, self.uid)
            sys.path[:0] = self.environment["PYTHONPATH"].split(os.pathsep)
            answer = pickle.dumps(("", function(*arguments)))
        except BaseException:
            answer = pickle.dumps((traceback.format_exc(), None))
        try:
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(answer)
        finally:
            os._exit(0)


def library_for_all(place: Path) -> str:
    """Where every user finds initspawn and what it imports: the checkout itself, or a copy in `place`."""
    packages = site.getsitepackages()[0]
    if os.geteuid() != 0:
        return os.pathsep.join((str(ROOT), packages))
    probe = [os.path.realpath(sys.executable), "-c", "import initspawn.record, msgspec"]
    original = os.pathsep.join((str(ROOT), packages))
    identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    tried = subprocess.run(probe, env={"PYTHONPATH": original}, cwd="/", capture_output=True, **identity)  # type: ignore[call-overload]
    if tried.returncode == 0:
        return original
    shutil.copytree(packages, place, ignore=shutil.ignore_patterns("__pycache__", *TOOLS), dirs_exist_ok=True)
    shutil.copytree(ROOT / "initspawn", place / "initspawn", ignore=shutil.ignore_patterns("__pycache__"))
    for folder, _, names in os.walk(place):
        os.chmod(folder, 0o755)
        for name in names:
            path = os.path.join(folder, name)
            os.chmod(path, 0o755 if os.access(path, os.X_OK) else 0o644)
    return str(place)
