"""The plan that a command line is about: files compiled as `serve` would, or a plan made ahead.

The compiler is loaded for files only: who has a plan may lack the packages that it needs.
"""

from __future__ import annotations

import argparse
import os
import pwd
from collections.abc import Mapping

from initspawn.boot.supervise import GATEWAY
from initspawn.cli.exits import UsageError
from initspawn.cli.output import complain
from initspawn.config.files import files_of
from initspawn.errors import PlanError
from initspawn.late import check_machine, described, settle
from initspawn.plan import Plan
from initspawn.planfile import is_plan, load, save, stale

FILES = "JSON, YAML, or a directory; or one plan that `initspawn compile` made"


def add_user_option(parser: argparse.ArgumentParser) -> None:
    """`--user`: whose supervisor the files are compiled for."""
    parser.add_argument(
        "--user", metavar="NAME", help="as for a supervisor of this user, such as root (default: you)"
    )


def compile_for(files: list[str], user: str | None) -> Plan:
    """The plan of these files, to be looked at: a plan made ahead shows `$NAME` where it leaves one open.

    Raises ConfigError, PlanError, OSError, and UsageError for a user that does not exist.
    """
    made = given_plan(files)
    if made is not None:
        if user is not None:
            raise UsageError("--user: a plan was compiled for one user already")
        return described(made)
    number, group = (os.geteuid(), os.getegid()) if user is None else person(user)
    return _compiled(files, number, group, os.environ)


def plan_to_run(files: list[str]) -> Plan:
    """The plan of these files for this process, nothing left open. Raises ConfigError, PlanError, OSError."""
    made = given_plan(files)
    if made is None:
        return _compiled(files, os.geteuid(), os.getegid(), os.environ)
    check_fit(made, files[0])
    return settle(made, os.environ)


def given_plan(files: list[str]) -> Plan | None:
    """The plan if that is what was named. Raises PlanError, OSError, and UsageError for one among others."""
    if not any(map(is_plan, files)):
        return None
    if len(files) > 1:
        raise UsageError("a plan stands alone: it holds all files that it was made of")
    return _without_doors(load(files[0]))


def plan_to_serve(files: list[str], kept: str | None, environ: Mapping[str, str] = os.environ) -> Plan:
    """The plan for a supervisor of this user, with these variables.

    `kept`: where a plan of these files is kept. It is used if it is sound, for us, and as new as the
    files; else they are compiled and it is written anew. A plan that was named itself and is stale is
    made anew of the files that it was made of. Raises ConfigError, PlanError, UsageError, OSError.
    """
    made = given_plan(files)
    try:
        if kept is not None:
            if made is not None:
                raise UsageError("--plan goes with the files that it is made of")
            made = _without_doors(load(kept))
            if _names(made) != [os.path.realpath(path) for path in files_of(files)]:
                raise PlanError(f"{kept}: made of other files")
        if made is None:
            return _compiled(files, os.geteuid(), os.getegid(), environ)
        check_fit(made, kept or files[0])
        return made
    except (PlanError, FileNotFoundError) as error:
        if made is not None and kept is None:
            kept, files = files[0], _names(made)
        if kept is None or not (files and all(map(os.path.exists, files))):
            raise
        complain(f"{error if isinstance(error, PlanError) else f'{kept}: not there yet'}; compiling anew")
        return _compile_and_keep(files, kept, environ)


def _compiled(
    files: list[str], user: int, group: int, environ: Mapping[str, str], *, late: bool = False
) -> Plan:
    """The plan of these files; `late`: to be kept, see `config.target`. Raises ConfigError."""
    from initspawn.config.compile import compile_files
    from initspawn.config.target import here

    return compile_files(files, user=user, group=group, environ=environ, target=here(late=late))


def _without_doors(plan: Plan) -> Plan:
    """The plan for a supervisor whose own command line says where it listens."""
    return plan.replace(apis=tuple(api for api in plan.apis if api.api != GATEWAY), doors=None)


def _names(plan: Plan) -> list[str]:
    return [name for name, *_ in plan.sources]


def _compile_and_keep(files: list[str], kept: str, environ: Mapping[str, str]) -> Plan:
    plan = _compiled(files, os.geteuid(), os.getegid(), environ, late=True)
    try:
        save(plan, kept)
    except OSError as error:  # read-only, full: the plan in memory is as good
        complain(f"{kept} cannot be kept: {error.strerror}")
    return plan


def check_fit(plan: Plan, path: str) -> None:
    """Refuse a plan that is not for us, or whose files are others by now. Raises PlanError."""
    check_machine(plan)
    if plan.user != os.geteuid() or plan.group != os.getegid():
        wanted = f"user {plan.user} and group {plan.group}"
        raise PlanError(f"{path}: compiled for {wanted}, and we are {os.geteuid()} and {os.getegid()}")
    changed = stale(plan)
    if changed is not None:
        raise PlanError(f"{path}: stale, {changed} has changed since: compile it again")


def user_name(number: int) -> str:
    """A user's name, or its number where it has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def person(name: str) -> tuple[int, int]:
    """The ids of a user, by name or number. Raises UsageError."""
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise UsageError(f"there is no user {name!r}") from None
    return entry.pw_uid, entry.pw_gid
