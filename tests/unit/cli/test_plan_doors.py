"""`compile --gateway`: the doors of a device that serves by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from initspawn.cli.compiled import given_plan
from initspawn.cli.main import main
from initspawn.config.interpreter import GATEWAY
from initspawn.planfile import load

DIST = "usr/local/lib/python3.11/dist-packages"
FILE = """
metadata: {uid: t, api: t}
sandboxes:
  - uid: s
    acls: {user: "12", group: "12"}
    commands: [{uid: do, exec: {cmdpath: /bin/true}}]
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The tree of a machine with a Python, and with initspawn in a directory that a link leads to."""
    root = tmp_path / "root"
    standard = [f"usr/lib/python3.11/{name}/__init__.py" for name in GATEWAY.standard[1:]]
    compiled = "usr/lib/python3.11/lib-dynload/_ssl.so", f"{DIST}/msgspec/_core.so"
    for name in ("bin/true", "usr/bin/python3.11", "opt/ours/initspawn/__init__.py", *standard, *compiled):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch(0o755)
    (root / "usr/bin/python3").symlink_to("python3.11")
    (root / "usr/lib/initspawn").symlink_to("../../opt/ours")
    for name in GATEWAY.packages[1:]:
        (root / DIST / name).mkdir(parents=True, exist_ok=True)
        (root / DIST / name / "__init__.py").touch()
    (tmp_path / "t.yaml").write_text(FILE)
    return root


def compile_(root: Path, *words: str) -> int:
    arguments = ["--root", str(root), str(root.parent / "t.yaml"), "-o", str(root.parent / "plan"), *words]
    return main(["compile", *arguments])


def test_the_plan_has_them_and_the_gateway_of_the_image(image: Path) -> None:
    words = ["--gateway", "while-up", "--host", "0.0.0.0", "--port", "80", "--limit", "calls=3"]
    assert compile_(image, *words) == 0
    plan = load(str(image.parent / "plan"))
    assert plan.doors == {
        "host": "0.0.0.0", "port": 80, "gateway": "while-up", "up": "address",
        "state": "/var/lib/initspawn", "limits": {"address_calls": 3}, "unix": (),
    }  # fmt: skip
    own, gateway = plan.apis
    assert (own.hidden, gateway.hidden, gateway.api) == (False, True, "gateway")
    (box,) = gateway.sandboxes
    assert (box.user, box.capabilities) == (64999, 0)
    assert ("PYTHONPATH", f"/opt/ours:/{DIST}") in box.environment
    shown = {mount.source for mount in box.mounts if mount.operation == "bind"}
    assert shown == {"/usr", "/bin", "/opt/ours/initspawn", "/run/initspawn/gateway"}
    assert not any(str(image) in mount.source for mount in box.mounts)
    assert gateway.commands[0].path == "/usr/bin/python3"


def test_unix_sockets(image: Path) -> None:
    words = ["--unix", "/run/t", "--ws-server", "unix:@t", "--ws-server", "unix:/run/x?as-api=t"]
    assert compile_(image, "--gateway", "up", *words) == 0
    plan = load(str(image.parent / "plan"))
    assert plan.doors["unix"] == (("/run/t", "http"), ("\0t", "wsapi t"), ("/run/x", "wsapi t"))


def test_pages_of_the_image(image: Path) -> None:
    (image / "srv/site").mkdir(parents=True)
    (image / "srv/site/index.html").touch(0o644)
    (image / "site").symlink_to("/srv/site")
    assert compile_(image, "--gateway", "up", "--page", "/site", "--alias", "/files:/site") == 0
    plan = load(str(image.parent / "plan"))
    (box,) = plan.apis[1].sandboxes
    shown = {mount.target: mount.source for mount in box.mounts if mount.operation == "bind"}
    assert shown["/page"] == shown["/alias/0"] == "/srv/site"
    words = ["".join(text for _, text in item) for item in plan.apis[1].commands[0].arguments]
    assert {"--page=/page", "--alias=/files=/alias/0"} <= set(words)


def test_tls_with_files_that_the_device_may_get_later(image: Path) -> None:
    words = ["--gateway", "up", "--tls-certificate", "/var/c.pem", "--tls-key", "/var/k.pem"]
    assert compile_(image, *words) == 0
    plan = load(str(image.parent / "plan"))
    assert plan.doors["tls"] == ("/var/c.pem", "/var/k.pem")
    (command,) = plan.apis[1].commands
    assert "--tls" in ["".join(text for _, text in item) for item in command.arguments]


def test_a_command_line_takes_none_of_that(image: Path) -> None:
    assert compile_(image, "--gateway", "up") == 0
    plan = given_plan([str(image.parent / "plan")])
    assert plan is not None
    assert plan.doors is None
    assert [api.api for api in plan.apis] == ["t"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "80"], "--port goes with --gateway"),
        (["--state-dir", "/x"], "--state-dir goes with --gateway"),
        (["--gateway", "up", "--host", "localhost"], "write an address"),
        (["--gateway", "up", "--port", "0"], "nobody would know it"),
        (["--gateway", "up", "--state-dir", "x"], "write the device's path"),
        (["--gateway", "up", "--user", "12"], "there is no user"),
        (["--gateway", "up", "--gateway-user", "nobody"], "there is no user 'nobody'"),
        (["--gateway", "up", "--gateway-user", "12"], "sandbox `s` of `t` runs as user 12"),
        (["--gateway", "soon"], "invalid choice"),
        (["--unix", "/run/t"], "--unix goes with --gateway"),
        (["--gateway", "up", "--unix", "t"], "'t': write the device's path"),
        (["--gateway", "up", "--ws-server", "unix:a/t"], "'a/t': write the device's path"),
        (["--gateway", "up", "--ws-server", "unix:/run/other"], "there is no API 'other'"),
        (["--page", "/srv"], "--page goes with --gateway"),
        (["--gateway", "up", "--page", "srv"], "--page srv: write the device's path"),
        (["--gateway", "up", "--page", "/bin"], "holds no index.html"),
        (["--gateway", "up", "--alias", "/a:srv"], "--alias srv: write the device's path"),
        (["--gateway", "up", "--alias", "/a:/srv"], "there is no directory /srv"),
        (["--tls-key", "/k"], "--tls-key goes with --gateway"),
        (["--gateway", "up", "--tls-key", "/k"], "--tls-certificate and --tls-key belong together"),
        (["--gateway", "up", "--tls-certificate", "c", "--tls-key", "/k"], "certificate c: write the dev"),
        (["--gateway", "up", "--tls-certificate", "/c", "--tls-key", "k"], "--tls-key k: write the device's"),
    ],
)
def test_what_does_not_fit(
    words: list[str], said: str, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compile_(image, *words) == 100
    assert said in capsys.readouterr().err
    assert not (image.parent / "plan").exists()


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("usr/bin/python3", "needs /usr/bin/python3"),
        ("usr/lib/initspawn", "needs `initspawn`"),
        (f"{DIST}/msgspec/__init__.py", "needs `msgspec`"),
        (f"{DIST}/h11/__init__.py", "needs `h11`"),
        ("usr/lib/python3.11/lib-dynload/_ssl.so", "BR2_PACKAGE_PYTHON3_SSL=y"),
    ],
)
def test_what_the_image_has_not_got(
    gone: str, said: str, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image / gone).unlink()
    assert compile_(image, "--gateway", "up") != 0
    assert said in capsys.readouterr().err
