"""The pages in a real browser: it lists, starts, shows lines as they come, and stops."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.devtools import Tab, browser
from tests.gateway.conftest import Gateway
from tests.system.server import Server, serving, write

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "configs" / "demo.yaml")
COUNT = (
    "[...document.querySelectorAll('.card')]"
    ".find(card => card.querySelector('h3').textContent === 'host/count')"
)

pytestmark = pytest.mark.needs("userns", "chromium")


@pytest.fixture
def tab() -> Iterator[Tab]:
    with browser() as tab:
        yield tab
        assert tab.complaints == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, DEMO) as running:
        yield running


def test_the_test_page(server: Server, tab: Tab) -> None:
    tab.open(server.page)
    tab.until(f"Boolean({COUNT})")
    assert tab.value("document.querySelector('#state').textContent") == "connected"
    assert tab.value("document.querySelectorAll('.card').length") > 10
    assert server.token not in tab.value("location.href"), "the token shall not stay in the address bar"

    tab.click(f"{COUNT}.querySelector('.start')")
    output = f"{COUNT}.querySelector('.output').textContent"
    tab.until(f"{output}.includes('line 2')")
    assert "line 20" not in tab.value(output), "lines come while it runs"
    assert tab.value(f"{COUNT}.classList.contains('busy')")

    tab.click(f"{COUNT}.querySelector('.stop')")
    tab.until(f"{output}.includes('signal')")
    assert not tab.value(f"{COUNT}.classList.contains('busy')")
    assert "line 20" not in tab.value(output)
    with server.client() as client:
        (task,) = client.call("initspawn/tasks")["response"]
        assert (task["command"], task["state"]) == ("count", "ended")


SHELL = COUNT.replace("host/count", "box/shell")


def test_the_test_page_and_a_terminal(server: Server, tab: Tab) -> None:
    tab.open(server.page)
    tab.until(f"Boolean({SHELL})")
    assert tab.value(f"{COUNT}.querySelector('.feed').hidden")
    assert not tab.value(f"{SHELL}.querySelector('.feed').hidden")
    tab.click(f"{SHELL}.querySelector('.start')")
    output = f"{SHELL}.querySelector('.output').textContent"
    tab.until(f"{output}.includes('$ ')")
    line = r"printf '\033[1mbold\033[0m\001 %s\n' done"
    tab.value(f"{SHELL}.querySelector('.feed input').value = {line!r}")
    tab.click(f"{SHELL}.querySelector('.feed button')")
    tab.until(f"{output}.includes('bold\u2401 done$ ')")
    tab.click(f"{SHELL}.querySelector('.end')")
    tab.until(f"{output}.includes('exit 0')")
    assert tab.value(f"{SHELL}.querySelector('.feed button').disabled")


def test_a_plan_that_was_refused_is_told(tab: Tab) -> None:
    said = "/etc/<b>x</b>.plan: not a plan"
    info: dict[str, object] = {"plan": {"file": "/usr/lib/x.plan", "refused": [said]}}
    done = {"id": 0, "status": "success", "code": 0}
    with Gateway() as gateway:
        gateway.supervisor.script = {
            "monitor/get": [{**done, "response": {"apis": {"monitor": True}}}],
            "initspawn/info": [{**done, "response": info}],
        }
        tab.open(f"http://127.0.0.1:{gateway.port}/")
        warning = "document.querySelector('#warning')"
        tab.until(f"!{warning}.hidden")
        assert tab.value(f"{warning}.textContent") == f"It runs /usr/lib/x.plan, because of: {said}"
        info["plan"] = {"file": "/etc/x.plan", "refused": []}
        tab.open(f"http://127.0.0.1:{gateway.port}/")
        tab.until(f"{warning}.hidden && document.querySelector('.empty') !== null")


def test_without_the_token_there_is_nothing(server: Server, tab: Tab) -> None:
    tab.open(server.page.partition("#")[0])
    tab.until("!document.querySelector('#token-form').hidden")
    assert tab.value("document.querySelectorAll('.card').length") == 0
    tab.value(f"document.querySelector('#token').value = {server.token!r}")
    tab.click("document.querySelector('#token-form button')")
    tab.until(f"Boolean({COUNT})")


def test_a_page_of_the_users_own(tmp_path: Path, tab: Tab) -> None:
    with serving(tmp_path, DEMO, "--page", str(ROOT / "configs" / "page")) as server:
        tab.open(server.page)
        state = "document.querySelector('#state').textContent"
        tab.until(f"{state} === 'connected'")
        assert server.token not in tab.value("location.href")
        tab.click("document.querySelector('#start')")
        lines = "document.querySelector('#lines').textContent"
        tab.until(f"{lines}.includes('line 2\\n')")
        assert tab.value(state) == "running"
        tab.click("document.querySelector('#stop')")
        tab.until(f"{state}.startsWith('ended: ')")
        assert "signal" in tab.value(state)
        assert "line 20" not in tab.value(lines)


def test_the_policy_keeps_strangers_code_out(tmp_path: Path) -> None:
    """What a page of one's own may not do: the browser says so and does not do it."""
    page = tmp_path / "page"
    page.mkdir(mode=0o755)
    (page / "index.html").write_text(
        "<script>document.title = 'inline'</script><script src='own.js'></script>"
        "<img src='http://127.0.0.2/x.png'><p>text"
    )
    (page / "own.js").write_text("document.documentElement.dataset.own = 'ran'")
    for name in ("index.html", "own.js"):
        (page / name).chmod(0o644)
    with serving(tmp_path, DEMO, "--page", str(page)) as server, browser() as tab:
        tab.open(server.page)
        tab.until("document.documentElement.dataset.own === 'ran'")
        assert tab.value("document.title") != "inline"
        refused = " ".join(tab.complaints)
        assert "script-src" in refused
        assert "img-src" in refused


def test_hostile_output_is_text(tmp_path: Path, tab: Tab) -> None:
    """What a command writes makes no element, runs nothing, and is shown as it was written."""
    markup = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
    acls = {"acls": {"user": "nobody"}} if os.geteuid() == 0 else {}
    commands = [{"uid": "evil", "encoder": "line", "exec": {"cmdpath": "/usr/bin/printf", "args": [
        "%%s\\n\\033[2J\\033]0;ran\\007%%s\\n", markup, "behind",
    ]}}]  # fmt: skip
    box = {"uid": "box", "prefix": "", "namespace": {}, **acls, "commands": commands}
    file = write(tmp_path, "evil.json", {"metadata": {"uid": "t", "api": "t"}, "sandboxes": box})
    with serving(tmp_path, file) as server:
        tab.open(server.page)
        card = COUNT.replace("host/count", "evil")
        tab.until(f"Boolean({card})")
        tab.click(f"{card}.querySelector('.start')")
        output = f"{card}.querySelector('.output')"
        tab.until(f"{output}.textContent.includes('exit 0')")
        shown = tab.value(f"{output}.textContent")
        assert markup in shown
        assert "behind" in shown
        assert tab.value(f"{output}.querySelectorAll('script, img').length") == 0
        assert tab.value("document.title") != "ran"
