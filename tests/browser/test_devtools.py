"""The reference's development pages, as far as we can have them: their sources are public, their built files
are not to be had here. So a page of our own makes the calls that theirs make, and looks into the answers as
they do, without asking whether something is there.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.devtools import browser
from tests.system.server import serving

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "configs" / "demo.yaml")
CLIENT = (ROOT / "tests" / "support" / "afb.mjs").read_text(encoding="utf-8")

pytestmark = pytest.mark.needs("userns", "chromium")

PAGE = """<!doctype html><title>tools</title><link rel="icon" href="data:,">
<body><script>window.inline = 1</script>
<script type="module">
import {Afb} from "./afb.js";
const seen = window.seen = {events: []};
const scheme = location.protocol === "https:" ? "wss:" : "ws:";
const afb = window.afb = new Afb(`${scheme}//${location.host}/api`, "HELLO");
afb.on("*", (event) => seen.events.unshift(event));
await afb.open();

// Which APIs there are; `info` of each, of which all have to come.
const listed = (await afb.call("monitor/get", {apis: false})).response.apis;
const names = Object.keys(listed).filter((name) => name !== "monitor");
const infos = await Promise.all(names.map((name) => afb.call(`${name}/info`, {}).catch((reply) => reply)));
seen.general = infos.filter((reply) => reply.response).map(({response}) => ({
  title: response.metadata.uid.toUpperCase(),
  groups: response.groups.map((group) => ({
    uid: group.uid,
    verbs: group.verbs.map((verb) => ({
      name: verb.verb || verb.uid,
      actions: verb.usage ? verb.usage.action.map((action) => `{"action": "${action}"}`) : [],
      samples: (verb.sample || []).map((sample) => JSON.stringify(sample)),
      hint: JSON.stringify(verb.usage && verb.usage.data || verb.usage),
    })),
  })),
}));

// The other view.
const {apis} = (await afb.call("monitor/get", {apis: true})).response;
seen.advanced = Object.keys(apis).filter((name) => name !== "monitor").map((name) => ({
  name,
  title: apis[name].info.title,
  version: apis[name].info.version,
  description: apis[name].info.description,
  verbs: Object.keys(apis[name].paths).map((path) => ({
    path, description: apis[name].paths[path].get.responses[200].description,
  })),
}));

// What the monitoring page does as well.
const monitoring = [
  ["monitor/trace", {drop: true}], ["monitor/get", {apis: true, verbosity: true}],
  ["monitor/set", {verbosity: {demo: "debug"}}], ["monitor/trace", {add: {name: "t", request: "common"}}],
  ["monitor/session", null], ["monitor/subscribe", "disconnected"], ["monitor/unsubscribe", ["disconnected"]],
];
seen.monitoring = [];
for (const [procedure, request] of monitoring) {
  const reply = await afb.call(procedure, request).catch((reply) => reply);
  seen.monitoring.push([procedure, reply.request.status, typeof reply.response]);
}

// A button: the query is what the page has made of it, `{}` for nothing.
const reply = await afb.call("demo/host/count", {}).catch((reply) => reply);
seen.outcome = reply.request.status === "success" ? "OK" : "ERROR";
seen.pid = reply.response.pid;
window.ready = true;
</script>"""


def test_the_calls_of_the_development_pages(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "index.html").write_text(PAGE)
    (tools / "afb.js").write_text(CLIENT)
    for path in (tmp_path, tools):
        path.chmod(0o755)
    for path in tools.iterdir():
        path.chmod(0o644)
    with serving(tmp_path, "--no-auth", "--alias", f"/devtools:{tools}", DEMO) as server, browser() as tab:
        tab.open(server.page + "devtools/")
        tab.until("window.ready")
        general = tab.value("window.seen.general")
        assert {api["title"] for api in general} >= {"DEMO"}
        verbs = [verb for api in general for group in api["groups"] for verb in group["verbs"]]
        assert "host/count" in {verb["name"] for verb in verbs}
        assert {action for verb in verbs for action in verb["actions"]} == {
            '{"action": "start"}',
            '{"action": "stop"}',
        }
        advanced = {api["name"]: api for api in tab.value("window.seen.advanced")}
        assert advanced["demo"]["title"] == "demo"
        assert all(verb["description"] for api in advanced.values() for verb in api["verbs"])
        assert tab.value("window.seen.monitoring") == [
            ["monitor/trace", "success", "undefined"],
            ["monitor/get", "success", "object"],
            ["monitor/set", "not-available", "undefined"],
            ["monitor/trace", "not-available", "undefined"],
            ["monitor/session", "success", "object"],
            ["monitor/subscribe", "success", "undefined"],
            ["monitor/unsubscribe", "success", "undefined"],
        ]
        assert tab.value("window.seen.outcome") == "OK"
        tab.until("window.seen.events.some((event) => event.data.type === 'final-event')")
        assert tab.value("window.seen.events.every((event) => event.event === 'demo/host/count')")
        assert tab.complaints == []
