"""What `conditions.udev` makes of a plan: the watcher, on this machine and in an image."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from initspawn import watcher
from initspawn.cli.main import main
from initspawn.config.compile import compile_files
from initspawn.config.devices import USER, lacks_pyudev
from initspawn.config.target import Target, elsewhere, here
from initspawn.errors import ConfigError
from initspawn.plan import Plan, devices_of
from initspawn.planfile import load, save

ORDINARY = os.getuid() or 1000
DISK, STICK = {"SUBSYSTEM": "block", "ID_FS_LABEL": "d$$ata"}, {"ID_BUS": "usb"}
TOLD = (tuple(DISK.items()), tuple(STICK.items()))


def config(*devices: Any, **acls: Any) -> dict[str, Any]:
    """A command for each; None: one that waits for no device."""
    commands = [
        {
            "uid": f"c{number}", "exec": {"cmdpath": "/bin/true"},
            "autostart": {} if device is None else {"conditions": {"udev": device}},
        }
        for number, device in enumerate(devices)
    ]  # fmt: skip
    box = {"uid": "s", "commands": commands, **({"acls": acls} if acls else {})}
    return {"metadata": {"uid": "t", "api": "t"}, "sandboxes": box}


def compiled(place: Path, raw: dict[str, Any], user: int = ORDINARY, target: Target | None = None) -> Plan:
    file = place / "t.json"
    file.write_text(json.dumps(raw))
    return compile_files([str(file)], user=user, group=user, environ={}, target=target)


def words(plan: Plan, number: int = 0) -> list[str]:
    assert plan.watcher is not None
    return ["".join(text for _, text in item) for item in plan.watcher.commands[number].arguments]


def test_who_waits_for_no_device_has_no_watcher(tmp_path: Path) -> None:
    assert compiled(tmp_path, config(None)).watcher is None


def test_each_device_once_in_the_order_that_the_supervisor_has(tmp_path: Path) -> None:
    made = compiled(tmp_path, config(DISK, None, [STICK, DISK]))
    assert devices_of(made.apis) == [*TOLD]
    for number, source in enumerate(("kernel", "udev")):
        found = words(made, number)
        assert found[:5] == ["-s", "-P", "-B", os.path.abspath(watcher.__file__), source]
        assert [json.loads(text) for text in found[5:]] == [DISK, STICK], "no `$` of it is expanded"
    save(made, str(tmp_path / "plan"))
    assert load(str(tmp_path / "plan")) == made


def test_an_ordinary_users_may_read_and_no_more(tmp_path: Path) -> None:
    made = compiled(tmp_path, config(DISK))
    assert made.watcher is not None
    assert made.watcher.hidden
    for box in made.watcher.sandboxes:
        assert box in made.sandboxes()
        assert (box.user, box.namespaces, box.mounts) == (ORDINARY, (), ())
        assert box.landlock is not None
        assert [path for path, _ in box.landlock.paths] == ["/"]
        assert box.filters
        assert box.limits


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The tree of a machine with a Python and initspawn."""
    root = tmp_path / "root"
    for name in ("bin/true", "usr/bin/python3.11", "usr/lib/initspawn/initspawn/__init__.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch(0o755)
    (root / "usr/bin/python3").symlink_to("python3.11")
    return root


def with_pyudev(root: Path) -> None:
    (root / "usr/lib/python3/dist-packages/pyudev").mkdir(parents=True)
    (root / "usr/lib/python3/dist-packages/pyudev/__init__.py").touch()


def of_image(root: Path, raw: dict[str, Any]) -> Plan:
    return compiled(root.parent, raw, 0, elsewhere(str(root), machine="x86_64"))


def test_that_of_an_image(image: Path) -> None:
    with_pyudev(image)
    made = of_image(image, config(DISK, user=12, group=12))
    assert made.watcher is not None
    kernel, udev = made.watcher.sandboxes
    assert (udev.user, udev.group, udev.groups, udev.capabilities) == (int(USER), int(USER), (), 0)
    assert not {"net", "user"} & set(udev.namespaces)
    assert {"pid", "mnt", "ipc", "uts", "cgroup"} <= set(udev.namespaces)
    shown = [(mount.source, mount.read_only) for mount in udev.mounts if mount.operation == "bind"]
    assert shown == [("/usr", True), ("/bin", True), ("/sys", True), ("/run/udev", True)]
    assert [one for one in udev.mounts if one not in kernel.mounts] == [udev.mounts[-1]]
    assert not any(mount.late for mount in udev.mounts)
    assert ("PYTHONPATH", "/usr/lib/initspawn:/usr/lib/python3/dist-packages") in udev.environment
    assert words(made)[3] == "/usr/lib/initspawn/initspawn/watcher.py"
    assert made.watcher.commands[0].path == "/usr/bin/python3"


def test_an_image_without_pyudev_is_warned_of(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = config(DISK, user=12, group=12)
    (image.parent / "t.json").write_text(json.dumps(raw))
    arguments = ["compile", "--root", str(image), str(image.parent / "t.json"), "-o", str(image.parent / "p")]
    assert main(arguments) == 0
    first, *others = capsys.readouterr().err.splitlines()
    assert first == (
        f"warning: the image at {image} has no pyudev, and without it commands that wait for devices "
        "(`conditions.udev`) are not started: install initspawn[udev] (Debian: python3-pyudev)"
    )
    with_pyudev(image)
    assert main(arguments) == 0
    assert capsys.readouterr().err.splitlines() == others  # what it lacks for a boot


def test_an_image_that_could_not_run_it(image: Path) -> None:
    (image / "usr/bin/python3").unlink()
    with pytest.raises(ConfigError, match=r"what follows devices .* needs /usr/bin/python3, and the image"):
        of_image(image, config(DISK, user=12, group=12))
    assert of_image(image, config(None, user=12, group=12)).watcher is None


def test_the_file_is_named_that_waits_for_a_device(image: Path) -> None:
    (image / "usr/bin/python3").unlink()
    files = []
    for name, device in (("first", None), ("second", DISK)):
        raw = config(device, user=12, group=12)
        raw["metadata"]["api"] = name
        files.append(image.parent / f"{name}.json")
        files[-1].write_text(json.dumps(raw))
    with pytest.raises(ConfigError) as caught:
        compile_files(
            [str(file) for file in files], user=0, group=0, environ={},
            target=elsewhere(str(image), machine="x86_64"),
        )  # fmt: skip
    assert [problem.file for problem in caught.value.problems] == [str(files[1])]


def test_nobody_else_has_its_user(image: Path) -> None:
    raw = config(DISK, user=int(USER), group=12)
    with pytest.raises(ConfigError, match=f"what follows devices runs as user {USER}, and nobody else may"):
        of_image(image, raw)
    assert of_image(image, config(None, user=int(USER), group=12)).watcher is None


def test_this_machine_is_asked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = compiled(tmp_path, config(DISK))
    assert lacks_pyudev(made.apis, here()) == ""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyudev" else found(name))
    assert lacks_pyudev(made.apis, here()).startswith("this machine has no pyudev")
    assert lacks_pyudev(compiled(tmp_path, config(None)).apis, here()) == ""
    assert compiled(tmp_path, config(DISK)).watcher is not None, "it may be installed later"
