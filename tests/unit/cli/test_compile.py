"""`compile`, and everything that takes what it made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from initspawn.cli.compiled import plan_to_serve
from initspawn.cli.main import main
from initspawn.errors import PlanError
from initspawn.plan import Plan
from initspawn.planfile import load, save


@pytest.fixture
def plan(configuration: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A plan of the trial configuration."""
    path = str(tmp_path / "plan")
    assert main(["compile", configuration, "-o", path]) == 0
    assert ": 1 API, 2 commands, " in capsys.readouterr().out
    return path


def test_it_is_for_its_owner_and_for_this_machine(plan: str) -> None:
    assert os.stat(plan).st_mode & 0o777 == 0o600
    made = load(plan)
    assert (made.user, made.group, made.machine) == (os.geteuid(), os.getegid(), os.uname().machine)


def test_what_it_replaces_is_kept(plan: str, configuration: str) -> None:
    before = load(plan)
    with open(configuration, "a", encoding="utf-8") as file:
        file.write("# another file, so another plan\n")
    assert main(["compile", configuration, "-o", plan]) == 0
    assert load(plan) != before == load(f"{plan}.last")


def test_in_the_tree_of_an_image_nothing_is(tmp_path: Path) -> None:
    """Neither what an earlier build made nor what that had kept: no device has ever used it."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/true").touch(0o755)
    configuration, made = tmp_path / "t.yaml", str(root / "boot.plan")
    for info in ("first", "second", "third"):
        commands = "[{uid: do, exec: {cmdpath: /bin/true}}]"
        configuration.write_text(
            f"metadata: {{uid: t, api: t, info: {info}}}\n"
            f"sandboxes: {{uid: s, acls: {{user: 12, group: 12}}, commands: {commands}}}\n"
        )
        assert main(["compile", "--root", str(root), str(configuration), "-o", made]) == 0
        assert sorted(os.listdir(root)) == ["bin", "boot.plan"]
        assert load(made).apis[0].info == info
        save(Plan(user=1, group=0), f"{made}.last")
    (root / "boot.plan.last").write_text("somebody's own")
    assert main(["compile", "--root", str(root), str(configuration), "-o", made]) == 0
    assert (root / "boot.plan.last").exists()


def test_check_and_explain_take_it(plan: str, configuration: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", configuration]) == 0
    wanted = capsys.readouterr().out
    assert main(["check", plan]) == 0
    assert capsys.readouterr().out == wanted
    assert main(["explain", plan, "plain/list", "dir=/etc"]) == 0
    assert "/bin/ls -l -- /etc" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["metadata: {uid: x}\n", "a: [", "", "metadata: {uid: u, api: a}\nsandboxs: 1\n"]
)
def test_an_error_is_what_check_says(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    assert main(["check", str(path)]) == 100
    wanted = capsys.readouterr().err
    assert main(["compile", str(path), "-o", str(tmp_path / "plan")]) == 100
    assert capsys.readouterr().err == wanted
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--arch", "vax"], 100, "invalid choice: 'vax' (choose from 'aarch64', 'x86_64')"),
        (["--last-cap", "CHOWN"], 100, "--last-cap goes with --root"),
        (["--root", "ROOT", "--last-cap", "NONE"], 100, "no capability"),
        (["--root", "ROOT", "--user", "maker"], 100, "there is no user 'maker'"),
        (["--root", "/nothing/here"], 111, "no directory"),
        (["--user", "nobody at all"], 100, "there is no user"),
    ],
)
def test_wrong_usage(
    words: list[str],
    code: int,
    said: str,
    configuration: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [str(tmp_path) if word == "ROOT" else word for word in words]
    assert main(["compile", *words, configuration, "-o", str(tmp_path / "plan")]) == code
    assert said in capsys.readouterr().err


def test_a_place_that_is_not_there(
    configuration: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "nowhere" / "plan")
    assert main(["compile", configuration, "-o", place]) == 111
    assert capsys.readouterr().err == f"initspawn: {place}: No such file or directory\n"


def test_a_plan_is_compiled_no_further(
    plan: str, configuration: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", plan, "-o", plan + "2"]) == 100
    assert "is a plan already" in capsys.readouterr().err
    assert main(["check", plan, configuration]) == 100
    assert "a plan stands alone" in capsys.readouterr().err
    assert main(["check", "--user", "root", plan]) == 100
    assert "compiled for one user already" in capsys.readouterr().err


def test_for_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("maker:x:4711:815::/:\n")
    (root / "tool").write_text("any")
    (root / "tool").chmod(0o755)
    config = root / "etc/c.yaml"
    config.write_text(
        "metadata: {uid: u, api: a}\n"
        "sandboxes: {uid: s, acls: {user: maker}, commands: {uid: c, exec: {cmdpath: /tool}}}\n"
    )
    out = str(tmp_path / "plan")
    words = ["compile", "--root", str(root), "--arch", "aarch64", str(config), "-o", out]
    assert main(words) == 0
    assert "for user 0 on aarch64" in capsys.readouterr().out
    assert load(out).sources[0][0] == "/etc/c.yaml"
    assert main([*words, "--user", "maker"]) == 0
    assert (load(out).user, load(out).group) == (4711, 815)


@pytest.mark.parametrize(("alias", "machine"), [("arm64", "aarch64"), ("amd64", "x86_64")])
def test_other_names_of_processors(alias: str, machine: str, configuration: str, tmp_path: Path) -> None:
    made = str(tmp_path / "other")
    assert main(["compile", "--arch", alias, configuration, "-o", made]) == 0
    assert load(made).machine == machine


class TestServing:
    """What `serve` makes of files and plans."""

    def test_files_alone_leave_nothing_open(self, configuration: str) -> None:
        assert not plan_to_serve([configuration], None).late

    def test_a_plan_alone(self, plan: str) -> None:
        assert plan_to_serve([plan], None) == load(plan)

    def test_a_stale_plan_is_made_anew(
        self, plan: str, configuration: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        text = Path(configuration).read_text()
        Path(configuration).write_text(text.replace("for tests", "for more"))
        assert plan_to_serve([plan], None).apis[0].info == "for more"
        assert "has changed since" in capsys.readouterr().err
        assert plan_to_serve([plan], None).apis[0].info == "for more"
        assert capsys.readouterr().err == ""

    def test_without_its_files_a_plan_is_as_it_is(self, plan: str, configuration: str) -> None:
        os.unlink(configuration)
        assert plan_to_serve([plan], None) == load(plan)

    def test_a_damaged_plan_is_refused_without_its_files(self, plan: str) -> None:
        content = bytearray(Path(plan).read_bytes())
        content[-3] ^= 1
        Path(plan).write_bytes(content)
        with pytest.raises(PlanError, match="damaged"):
            plan_to_serve([plan], None)

    @pytest.mark.parametrize(
        "how", ["missing", "damaged", "empty", "open", "older", "other files", "other user"]
    )
    def test_kept_for_files_it_is_made_anew(
        self, how: str, plan: str, configuration: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        good = load(plan)
        if how == "missing":
            os.unlink(plan)
        elif how == "damaged":
            Path(plan).write_bytes(Path(plan).read_bytes()[:-1])
        elif how == "empty":
            Path(plan).write_bytes(b"")
        elif how == "open":
            os.chmod(plan, 0o666)
        elif how == "older":
            Path(plan).write_bytes(b"initspawn-plan\n1 0.0.1 00000000\n")
        elif how == "other files":
            save(good.replace(sources=()), plan)
        else:
            save(good.replace(user=good.user + 1), plan)
        assert plan_to_serve([configuration], plan) == good
        assert "compiling anew" in capsys.readouterr().err
        assert plan_to_serve([configuration], plan) == good
        assert load(plan) == good
        assert capsys.readouterr().err == ""

    def test_kept_where_it_cannot_be_written(
        self, configuration: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert plan_to_serve([configuration], "/proc/plan").apis
        assert "/proc/plan cannot be kept" in capsys.readouterr().err

    def test_another_users_plan_alone(self, plan: str, configuration: str) -> None:
        save(load(plan).replace(group=4711, sources=()), plan)
        with pytest.raises(PlanError, match="and group 4711, and we are"):
            plan_to_serve([plan], None)

    def test_another_processors_plan(self, plan: str) -> None:
        save(load(plan).replace(machine="riscv64", sources=()), plan)
        with pytest.raises(PlanError, match="the plan is for riscv64"):
            plan_to_serve([plan], None)

    def test_a_plan_and_a_place_to_keep_it(self, plan: str) -> None:
        assert main(["serve", "--plan", plan, plan]) == 100
