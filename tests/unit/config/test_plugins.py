"""Encoder plug-ins as files name them: found, looked into without running them, and confined."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from initspawn import planfile
from initspawn.config.compile import compile_files
from initspawn.config.target import elsewhere, here
from initspawn.errors import ConfigError, InitspawnError
from initspawn.plan import PLUGIN, Plan

SAMPLE = Path(__file__).resolve().parents[3] / "configs" / "plugins" / "blkcount.py"
GOOD = 'raise SystemExit("never run here")\nENCODERS = {"one": object, "Two": object}\n'
# Who the configurations are compiled for: ourselves, so that our own files are trusted.
USER = os.geteuid()


def config(plugins: Any, *encoders: Any) -> dict[str, Any]:
    exec_ = {"cmdpath": "/bin/true"}
    commands = [{"uid": f"c{n}", "exec": exec_, "encoder": encoder} for n, encoder in enumerate(encoders)]
    acls = {"acls": {"user": "nobody"}} if USER == 0 else {}
    sandbox = {"uid": "s", "commands": commands, **acls}
    return {"metadata": {"uid": "u", "api": "t"}, "plugins": plugins, "sandboxes": sandbox}


def compiled(place: Path, raw: dict[str, Any], **options: Any) -> Plan:
    file = place / "config.json"
    file.write_text(json.dumps(raw))
    return compile_files([str(file)], user=USER, group=os.getegid(), environ={"WHERE": str(place)}, **options)


def refused(place: Path, plugins: Any, *encoders: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        compiled(place, config(plugins, *encoders))
    (problem,) = caught.value.problems
    return str(problem)


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    plugins = {"uid": "Mine", "spath": "/nowhere:$WHERE", "libs": ["other.so", "gone", "good"], "info": ""}
    one = {"plugin": "MINE", "output": "ONE", "opts": {"any": [None, {"thing": 1.5}]}}
    made = compiled(tmp_path, config(plugins, one, one, {"plugin": "mine", "output": "two"}, "text"))
    first, second, third, text = made.apis[0].commands
    assert (first.encoder, text.encoder) == (PLUGIN, "text")
    assert first.encoder_options == {"host": "encoders-0", "name": "MINE", "options": one["opts"]}
    assert second.encoder_options == first.encoder_options
    assert third.encoder_options == {"host": "encoders-1", "name": "mine", "options": {}}
    hosts = made.hosts
    assert hosts is not None
    assert hosts.hidden
    assert not hosts.own
    assert [command.uid for command in hosts.commands] == ["encoders-0", "encoders-1"]
    words = ["".join(text for _, text in item) for item in hosts.commands[1].arguments]
    assert hosts.commands[1].path == sys.executable
    assert words[-2:] == [str(tmp_path / "good.py"), "Two"]
    planfile.save(made, str(tmp_path / "plan"))
    assert planfile.load(str(tmp_path / "plan")) == made


def test_its_sandbox(tmp_path: Path) -> None:
    encoder = {"plugin": "sample", "output": "blkcount"}
    made = compiled(tmp_path, config({"uid": "sample", "libs": str(SAMPLE)}, encoder))
    assert made.hosts is not None
    (box,) = made.hosts.sandboxes
    assert set(box.namespaces) == {"user", "pid", "mnt", "ipc", "uts", "net", "cgroup"}
    assert (box.capabilities, box.no_new_privileges, box.new_root) == (0, True, True)
    assert box.filters
    assert {mount.read_only for mount in box.mounts if mount.operation == "bind"} == {True}
    assert {number for number, _, _ in box.limits} >= {resource.RLIMIT_AS, resource.RLIMIT_NOFILE}
    assert box.user == (64998 if USER == 0 else USER)
    # Of the directories that hold the plug-in and our own package, only one file each.
    below = [mount.target for mount in box.mounts if mount.target.startswith(str(SAMPLE.parents[2]))]
    mine = [path for path in below if ".venv" not in path]
    assert sorted(Path(path).name for path in mine) == ["blkcount.py", "host.py"]


def test_without_plugins_there_are_no_hosts(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    assert compiled(tmp_path, config([], "text")).hosts is None
    unused = {"uid": "good", "libs": str(tmp_path / "good.py")}
    assert compiled(tmp_path, config(unused, "text")).hosts is None


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of packages, one of which has an entry point."""
    library = tmp_path / "library"
    for name in ("acme", "acme-1.dist-info"):
        (library / name).mkdir(parents=True)
    (library / "acme" / "__init__.py").write_text("raise SystemExit('never run here')")
    (library / "acme" / "encoders.py").write_text(GOOD)
    (library / "acme-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    (library / "acme-1.dist-info" / "entry_points.txt").write_text(
        "[initspawn.encoders]\nacme = acme.encoders\ngone = acme.gone\n"
    )
    monkeypatch.syspath_prepend(str(library))
    return library


def test_an_entry_point(tmp_path: Path, installed: Path) -> None:
    made = compiled(tmp_path, config({"uid": "acme"}, {"plugin": "acme", "output": "one"}))
    assert made.hosts is not None
    words = ["".join(text for _, text in item) for item in made.hosts.commands[0].arguments]
    assert words[-3:] == ["acme.encoders", "one", str(installed)]
    assert str(installed) in [mount.target for mount in made.hosts.sandboxes[0].mounts]
    said = refused(tmp_path, {"uid": "gone"})
    assert "PLUGIN_NOT_FOUND: there is no entry point 'gone' of initspawn.encoders" in said


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        ({"libs": "/nowhere/x.py"}, "plugins.libs: PLUGIN_NOT_FOUND: there is no file '/nowhere/x.py'"),
        ({"spath": "/nowhere"}, "there is neither a file in /nowhere nor an entry point 'p'"),
        ({"spath": "plugins"}, "plugins.spath: 'plugins' is not absolute"),
        ({"spath": "/$NOSUCH"}, "`$NOSUCH`"),
        ({"libs": "encoder.so"}, "plugins.libs: PLUGIN_NOT_FOUND: 'encoder.so' is compiled code"),
        ({"libs": ["/usr/lib/a.ctlso", "b.so"]}, "write the encoder in Python: docs/encoder-plugins.md"),
        ({"uid": "builtins"}, "plugins.uid: `builtins` is another plug-in already"),
        ({"lib": "x"}, "plugins.lib: unknown key in plug-in (did you mean `libs`?)"),
    ],
)  # fmt: skip
def test_plugins_that_are_not_there(tmp_path: Path, plugin: dict[str, Any], said: str) -> None:
    assert said in refused(tmp_path, {"uid": "p", **plugin})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no encoders (write ENCODERS"),
        ("ENCODERS = dict(one=object)", "has no encoders"),
        ("ENCODERS = {}", "has no encoders"),
        ("ENCODERS = {1: object}", "has no encoders"),
        ("\ndef f(:\n", "bad.py:2: invalid syntax"),
        ("x = 1\0", "null bytes"),
        ("(" * 5000, ""),
        ("#" * ((1 << 20) + 1), "more than 1048576 bytes"),
    ],
)
def test_plugins_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    plugin = {"uid": "bad", "libs": str(tmp_path / "bad.py")}
    found = refused(tmp_path, plugin, {"plugin": "bad", "output": "x"})
    assert "plugins: INVALID_ENCODER: " in found
    assert said in found


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ({"plugin": "zz", "output": "one"}, "encoder.plugin: PLUGIN_NOT_FOUND: no plug-in 'zz'"),
        ({"plugin": "p", "output": "oen"}, "encoder.output: ENCODER_NOT_FOUND: no encoder 'oen'"),
        ({"plugin": "p", "output": "text"}, "ENCODER_NOT_FOUND: no encoder 'text' (there are one, Two)"),
        ({"output": "one"}, "ENCODER_NOT_FOUND"),
        ({"plugin": "p", "output": "one", "opts": 3}, "encoder.opts: INVALID_OPTIONS: must be an object"),
    ],
)
def test_encoders_that_a_plugin_does_not_have(tmp_path: Path, encoder: Any, said: str) -> None:
    (tmp_path / "p.py").write_text(GOOD)
    assert said in refused(tmp_path, {"uid": "p", "libs": str(tmp_path / "p.py")}, encoder)


def test_two_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(GOOD)
    one = {"uid": "p", "libs": str(tmp_path / "p.py")}
    assert "plugins[1].uid: `P` is another plug-in already" in refused(tmp_path, [one, {**one, "uid": "P"}])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The tree of another machine, with a Python, initspawn, and a package that has a plug-in."""
    root = tmp_path / "root"
    library = root / "usr/lib/python3/dist-packages"
    for path, text in {
        root / "usr/bin/python3.13": "", root / "bin/true": "",
        root / "opt/ours/initspawn/__init__.py": "", root / "opt/ours/initspawn/encoders/host.py": "",
        root / "srv/there/good.py": GOOD, library / "acme/encoders.py": GOOD,
        library / "acme-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme\nVersion: 1\n",
        library / "acme-1.dist-info/entry_points.txt": "[initspawn.encoders]\nacme = acme.encoders\n",
        root / "etc/passwd": "nobody:x:65534:65534::/:/bin/false\n",
    }.items():  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    links = {"usr/bin/python3": "python3.13", "usr/lib/initspawn": "../../opt/ours", "link": "/srv"}
    for link, goal in links.items():
        (root / link).symlink_to(goal)
    return root


def words_of(plan: Plan) -> list[str]:
    assert plan.hosts is not None
    return ["".join(text for _, text in item) for item in plan.hosts.commands[0].arguments]


def test_of_an_image(tmp_path: Path, image: Path) -> None:
    plugin = {"uid": "p", "spath": "/link/there", "libs": "good"}
    raw = config(plugin, {"plugin": "p", "output": "one"})
    made = {
        machine: compiled(tmp_path, raw, target=elsewhere(str(image), machine=machine))
        for machine in ("aarch64", "x86_64")
    }
    plan = made["aarch64"]
    assert words_of(plan)[3:] == ["/opt/ours/initspawn/encoders/host.py", "/srv/there/good.py", "one"]
    assert plan.hosts is not None
    assert plan.hosts.commands[0].path == "/usr/bin/python3"
    (box,) = plan.hosts.sandboxes
    shown = {mount.source for mount in box.mounts if mount.operation == "bind"}
    assert shown == {"/usr", "/bin", "/opt/ours/initspawn/encoders/host.py", "/srv/there/good.py"}
    assert str(tmp_path) not in repr(plan.hosts)
    assert ("/srv/there/good.py", len(GOOD)) in [source[:2] for source in plan.further]
    other = made["x86_64"].hosts
    assert other is not None
    assert box.filters != other.sandboxes[0].filters


def test_of_an_image_s_package(tmp_path: Path, image: Path) -> None:
    raw = config({"uid": "acme"}, {"plugin": "acme", "output": "two"})
    plan = compiled(tmp_path, raw, target=elsewhere(str(image)))
    assert words_of(plan)[-3:] == ["acme.encoders", "Two", "/usr/lib/python3/dist-packages"]


def test_what_an_image_has_not_got(tmp_path: Path, image: Path) -> None:
    raw = config({"uid": "p", "libs": "/srv/there/good.py"}, {"plugin": "p", "output": "one"})
    (image / "usr/lib/initspawn").unlink()
    with pytest.raises(InitspawnError, match="an encoder plug-in needs `initspawn`; the image at"):
        compiled(tmp_path, raw, target=elsewhere(str(image)))
    (image / "usr/bin/python3").unlink()
    with pytest.raises(InitspawnError, match="an encoder plug-in needs /usr/bin/python3"):
        compiled(tmp_path, raw, target=elsewhere(str(image)))
    raw["plugins"] = {"uid": "p", "libs": str(tmp_path / "good.py")}
    (tmp_path / "good.py").write_text(GOOD)  # here, and not there
    with pytest.raises(ConfigError, match="there is no file"):
        compiled(tmp_path, raw, target=elsewhere(str(image)))


def test_for_another_processor(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    raw = config({"uid": "p", "libs": str(tmp_path / "good.py")}, {"plugin": "p", "output": "one"})
    filters = []
    for machine in ("aarch64", "x86_64"):
        hosts = compiled(tmp_path, raw, target=here(late=True, machine=machine)).hosts
        assert hosts is not None
        filters.append(hosts.sandboxes[0].filters)
    assert filters[0] != filters[1]


def test_nobody_else_runs_as_the_hosts(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(GOOD)
    raw = config({"uid": "p", "libs": str(tmp_path / "p.py")}, {"plugin": "p", "output": "one"})
    raw["sandboxes"]["acls"] = {"user": 64998, "group": 64998}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ConfigError) as caught:
        compile_files([str(tmp_path / "config.json")], user=0, group=0, environ={})
    (problem,) = caught.value.problems
    assert "sandboxes.acls.user: the encoder plug-ins run as user 64998" in str(problem)
    raw["sandboxes"]["commands"][0]["encoder"] = "text"
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert compile_files([str(tmp_path / "config.json")], user=0, group=0, environ={}).hosts is None
