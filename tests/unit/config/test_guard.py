"""`guard`: what is refused, and the rules made of it, for a machine whose tree lies here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from initspawn.config.compile import compile_files
from initspawn.config.target import elsewhere
from initspawn.errors import ConfigError
from initspawn.plan import Plan

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
PROGRAMS = ("usr/sbin/nft", "usr/bin/sh", "usr/bin/wg", "usr/bin/wg-quick", "usr/sbin/ip")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with these programs, which nobody runs here."""
    tree = tmp_path / "root"
    for name in PROGRAMS:
        place = tree / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"not run\n")
        place.chmod(0o755)
    (tree / "etc/wireguard").mkdir(parents=True)
    (tree / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tree / "etc/group").write_text("dialout:x:20:\n")
    return tree


def compiled(root: Path, config: Any, user: int = 0) -> Plan:
    file = root.parent / "test.json"
    file.write_text(json.dumps(config))
    return compile_files(
        [str(file)], user=user, group=user, environ={}, target=elsewhere(str(root), machine="x86_64")
    )


def config(start: dict[str, Any] | None = None, **guard: Any) -> dict[str, Any]:
    up: dict[str, Any] = {"uid": "up", "exec": {"cmdpath": "/usr/bin/wg"}}
    if start is not None:
        up["autostart"] = start
    plain = {"uid": "plain", "exec": {"cmdpath": "/usr/bin/wg"}}
    return {
        "metadata": {"uid": "t", "api": "t"},
        "guard": {"until": "up", **guard},
        "sandboxes": {"uid": "s", "acls": {"user": "root"}, "commands": [up, plain]},
    }


DONE = {"ready": "exited"}


def rules(plan: Plan, name: str = "close") -> str:
    assert plan.guard is not None
    (command,) = (one for one in plan.guard.api.commands if one.uid == name)
    ((_, text),) = command.arguments[0]
    return text


def hook(text: str, name: str) -> list[str]:
    """The rules of one hook, without what every one begins and ends with."""
    first, *lines = text.partition(f"chain {name} {{\n")[2].partition("\n}")[0].split("\n")
    assert first == f"type filter hook {name} priority filter; policy drop;"
    assert lines.pop() == "counter"
    return lines


def test_nothing_is_let_out_that_is_not_named(root: Path) -> None:
    made = compiled(root, config(DONE))
    assert made.guard is not None
    assert (made.guard.until, made.guard.open_on_failure) == ("t/up", False)
    text = rules(made)
    assert text.startswith("add table inet initspawn\ndelete table inet initspawn\ntable inet initspawn {\n")
    assert hook(text, "output") == ["oif lo accept"]
    assert hook(text, "input") == ["iif lo accept", "ct state established accept"]
    assert hook(text, "forward") == []
    assert rules(made, "open") == "add table inet initspawn\ndelete table inet initspawn"
    assert [box.capabilities for box in made.guard.api.sandboxes] == [1 << 12]
    assert made.guard.api.hidden
    assert made.guard.api.sandboxes[0] in made.sandboxes()


@pytest.mark.parametrize(
    ("allow", "out", "back"),
    [
        ({"mark": "0xca6c"}, "meta mark 0xca6c", None),
        (
            {"mark": 1, "endpoint": "192.0.2.1:51820"},
            "meta mark 0x1 ip daddr 192.0.2.1 udp dport 51820",
            "ip saddr 192.0.2.1 udp sport 51820",
        ),
        (
            {"endpoint": "[2001:DB8:0::1]:1"},
            "ip6 daddr 2001:db8::1 udp dport 1",
            "ip6 saddr 2001:db8::1 udp sport 1",
        ),
        ({"link": "wg0"}, 'oifname "wg0"', 'iifname "wg0"'),
        ({"link": "eth0", "mark": 5}, 'oifname "eth0" meta mark 0x5', None),
    ],
)
def test_what_is_named_is_let_out(root: Path, allow: Any, out: str, back: str | None) -> None:
    text = rules(compiled(root, config(DONE, allow=allow)))
    assert hook(text, "output")[1:] == [f"{out} counter accept"]
    assert hook(text, "input")[2:] == ([f"{back} accept"] if back else [])


def test_addresses(root: Path) -> None:
    text = rules(compiled(root, config(DONE, addresses=["dhcp", "neighbours"])))
    assert "udp sport 68 udp dport 67 accept" in hook(text, "output")
    assert "udp sport 547 udp dport 546 accept" in hook(text, "input")
    assert any("nd-neighbor-solicit" in rule for rule in hook(text, "output"))
    assert any("nd-router-advert" in rule for rule in hook(text, "input"))
    assert not any("nd-router-advert" in rule for rule in hook(text, "output"))


@pytest.mark.parametrize(
    ("start", "guard", "said"),
    [
        (DONE, {"until": "op"}, "there is no command 'op'"),
        (DONE, {"until": "plain"}, "nothing starts `t/plain`"),
        ({}, {}, "is ready as soon as it runs"),
        ({**DONE, "restart": "on-failure"}, {"on_failure": "open"}, "it would never open"),
        (DONE, {"allow": {}}, "would let all out"),
        (DONE, {"allow": {"mark": "wg"}}, "must be a whole number"),
        *(
            (DONE, {"allow": {"link": name}}, "is no link's name")
            for name in ('w"', "w*", "w 0", "..", "a" * 16)
        ),
        *(
            (DONE, {"allow": {"endpoint": text}}, "is no address and port")
            for text in (
                "vpn.example:51820", "192.0.2.1", "192.0.2.1:0", "192.0.2.1:65536", "2001:db8::1:1",
                "[192.0.2.1]:1", "192.0.2.1:1 accept", "[fe80::1%eth0]:1", "192.0.2.1:\u0661",
            )
        ),
    ],
)  # fmt: skip
def test_what_is_refused(root: Path, start: Any, guard: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compiled(root, config(start, **guard))
    (problem,) = caught.value.problems
    assert said in str(problem)
    assert "guard" in str(problem)


def test_a_number_of_tries_lets_it_open_on_failure(root: Path) -> None:
    start = {**DONE, "restart": {"policy": "on-failure", "tries": 3}}
    made = compiled(root, config(start, on_failure="open"))
    assert made.guard is not None
    assert made.guard.open_on_failure


def test_only_root_may_say_who_talks(root: Path) -> None:
    made = config(DONE)
    del made["sandboxes"]["acls"]
    with pytest.raises(ConfigError, match="only root may say who talks"):
        compiled(root, made, user=1000)


def test_an_image_without_nft_is_told_what_to_install(root: Path) -> None:
    (root / "usr/sbin/nft").unlink()
    with pytest.raises(ConfigError, match=r"there is no nft in .*install nftables"):
        compiled(root, config(DONE))


def test_only_one_file_may_have_a_guard(root: Path) -> None:
    files = []
    for name in ("a", "b"):
        made = config(DONE)
        made["metadata"] = {"uid": name, "api": name}
        files.append(root.parent / f"{name}.json")
        files[-1].write_text(json.dumps(made))
    with pytest.raises(ConfigError, match="another file has a guard already"):
        compile_files(list(map(str, files)), user=0, group=0, environ={}, target=elsewhere(str(root)))


def test_our_sample_compiles(root: Path) -> None:
    for link, text in (("bin", "usr/bin"), ("sbin", "usr/sbin")):
        (root / link).symlink_to(text)
    for name in ("lib", "lib64"):
        (root / "usr" / name).mkdir()
        (root / name).symlink_to(f"usr/{name}")
    script = root / "srv/configs/scripts/vpn-up.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(CONFIGS / "scripts/vpn-up.sh", script)
    sample = str(CONFIGS / "vpn-autostart.yaml")
    target = elsewhere(str(root), machine="x86_64")
    made = compile_files([sample], user=0, group=0, environ={"PWD": "/srv"}, target=target)
    assert made.guard is not None
    up = made.apis[0].commands[0]
    assert made.guard.until == "vpn/up"
    assert up.autostart is not None
    assert up.autostart.handover
    assert made.apis[0].sandboxes[0].capabilities == 1 << 12
    assert "meta mark 0xca6c ip daddr 203.0.113.1 udp dport 51820 counter accept" in rules(made)


def test_a_tunnel_that_is_called_at_the_start_is_taken_as_it_is(root: Path) -> None:
    """The form of spawn-binding's own sample: a call without arguments, one sandbox that is no list, root in
    another group, one capability, `wg-quick` with plain arguments.
    """
    commands = [
        {"uid": uid, "info": "x", "exec": {"cmdpath": f"/usr/bin/{program}", "args": [word, "spawn-binding"]}}
        for uid, program, word in (
            ("vpn-start", "wg-quick", "up"),
            ("vpn-stop", "wg-quick", "down"),
            ("vpn-info", "wg", "show"),
        )
    ]
    sandbox = {
        "uid": "sandbox-autostart", "info": "x",
        "acls": {"runmod": "admin", "user": "root", "group": "dialout"},
        "caps": [{"cap": "NET_ADMIN", "mode": "set"}], "commands": commands,
    }  # fmt: skip
    onload = [{"uid": "vpn-autostart", "info": "x", "action": "api://autostart#vpn-start"}]
    metadata = {"uid": "spawn-basic", "info": "x", "api": "autostart", "version": "1.0"}
    made = compiled(root, {"metadata": metadata, "onload": onload, "sandboxes": sandbox})
    (api,) = made.apis
    assert [(action.api, action.verb) for action in api.onload] == [("autostart", "vpn-start")]
    assert (api.sandboxes[0].group, api.sandboxes[0].capabilities) == (20, 1 << 12)
    assert made.guard is None
