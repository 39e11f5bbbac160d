"use strict";

/* One WebSocket to the gateway this page came from, one card per verb.
   Text that comes from commands enters the page as textContent only. */

const SUBPROTOCOL = "x-afb-ws-json1";
const CALL = 2, RETOK = 3, RETERR = 4, EVENT = 5;
const MAX_LINES = 1000;         // lines kept per card
const MAX_WAIT = 10000;         // milliseconds between two attempts to connect
const REFUSALS = ["unauthorized", "invalid-token", "forbidden", "insufficient-scope"];

const $ = (id) => document.getElementById(id);

/* The token: from the address, and away from there at once. */
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token")
    || new URLSearchParams(location.search).get("token");
  if (given) {
    history.replaceState(null, "", location.pathname);
  }
  return given || "";
}

/* Trades a token for a cookie that no script can read; false if it is not valid. */
async function login(token) {
  const headers = { Authorization: `Bearer ${token}` };
  const answer = await fetch("/login", { method: "POST", headers }).catch(() => null);
  return answer !== null && answer.ok;
}

/* Calls and events over one WebSocket, which is opened again when it is lost. */
class Link {
  constructor(hooks) {
    this.hooks = hooks;
    this.pending = new Map();
    this.number = 0;
    this.wait = 500;
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/api`, SUBPROTOCOL);
    this.socket = socket;
    socket.onopen = () => {
      this.wait = 500;
      this.hooks.opened();
    };
    socket.onmessage = (message) => this.receive(JSON.parse(message.data));
    socket.onclose = () => {
      for (const { reject } of this.pending.values()) {
        reject(new Error("disconnected"));
      }
      this.pending.clear();
      this.hooks.lost(this.wait);
      setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(this.wait * 2, MAX_WAIT);
    };
  }

  /* The reply object of a call; rejects only when the connection is lost. */
  call(procedure, args) {
    return new Promise((resolve, reject) => {
      if (this.socket.readyState !== WebSocket.OPEN) {
        reject(new Error("not connected"));
        return;
      }
      const id = String(++this.number);
      this.pending.set(id, { resolve, reject });
      this.socket.send(JSON.stringify([CALL, id, procedure, args]));
    });
  }

  receive([kind, name, value]) {
    if (kind === EVENT) {
      this.hooks.event(name, value.data);
    } else if (kind === RETOK || kind === RETERR) {
      const waiting = this.pending.get(name);
      this.pending.delete(name);
      if (waiting) {
        waiting.resolve(value);
      }
    }
  }
}

/* Text lines in a box that keeps its end in view while the reader does not scroll up. */
class Output {
  constructor(box, clear) {
    this.box = box;
    this.button = clear;
    clear.addEventListener("click", () => this.clear());
  }

  clear() {
    this.unfinished = null;
    this.box.replaceChildren();
    this.box.hidden = this.button.hidden = true;
  }

  add(text, kind) {
    const box = this.box;
    const following = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
    const line = document.createElement("div");
    line.className = kind;
    line.textContent = text === "" ? "\u00a0" : text;
    box.append(line);
    this.unfinished = null;
    while (box.childElementCount > MAX_LINES) {
      box.firstElementChild.remove();
    }
    box.hidden = this.button.hidden = false;
    if (following) {
      box.scrollTop = box.scrollHeight;
    }
    return line;
  }

  /* Output as it comes, in pieces that may end anywhere. This is no terminal: what would move a cursor or colour
     a text is left out, other control characters are shown as symbols. */
  piece(text, kind) {
    const shown = text
      .replace(/\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\-~])/g, "")
      .replace(/\r+\n/g, "\n")
      .replace(/[\x00-\x08\x0b-\x1f\x7f]/g, (found) =>
        found === "\x7f" ? "\u2421" : String.fromCharCode(0x2400 + found.charCodeAt(0)));
    const lines = shown.split("\n");
    const rest = lines.pop();
    for (const line of lines) {
      this.grow(line, kind);
      this.unfinished = null;
    }
    if (rest) {
      this.grow(rest, kind);
    }
  }

  grow(text, kind) {
    if (this.unfinished && this.unfinished.className === kind) {
      this.unfinished.textContent += text;
    } else {
      this.unfinished = this.add(text, kind);
    }
  }

  /* A stream's value: one text, a list of lines, or any JSON. */
  stream(value, kind) {
    for (const item of Array.isArray(value) ? value : [value]) {
      if (typeof item === "string") {
        for (const line of item.replace(/\n$/, "").split("\n")) {
          this.add(line, kind);
        }
      } else {
        this.add(JSON.stringify(item), kind);
      }
    }
  }
}

/* One verb: its request, its running tasks, its output. */
class Card {
  constructor(link, api, verb) {
    const name = (verb.verb || verb.uid).replace(/^\//, "");
    this.link = link;
    this.procedure = `${api}/${name}`;
    this.tasks = new Set();
    this.over = new Set();      // tasks whose answer, with their end, came before their first event
    this.node = $("verb-template").content.cloneNode(true).firstElementChild;
    const find = (selector) => this.node.querySelector(selector);
    this.request = find("textarea");
    this.wrong = find(".wrong");
    this.taskList = find(".tasks");
    this.stopButton = find(".stop");
    this.startButton = find(".start");
    this.output = new Output(find(".output"), find(".clear"));
    this.feedForm = find(".feed");
    this.feedForm.hidden = verb.input === undefined;
    this.feedForm.addEventListener("submit", (submit) => {
      submit.preventDefault();
      const line = this.feedForm.querySelector("input");
      this.feed({ data: `${line.value}\n` });
      line.value = "";
    });
    find(".end").addEventListener("click", () => this.feed({ eof: true }));
    find("h3").textContent = name;
    find(".card > .about").textContent = verb.info || "";
    this.describe(verb, find(".query"), find(".samples"));
    this.startButton.addEventListener("click", () => this.start());
    this.stopButton.addEventListener("click", () => this.stop(null));
  }

  describe(verb, details, list) {
    const usage = verb.usage || {};
    const documented = "args" in usage ? { args: usage.args } : null;
    const samples = [].concat(verb.sample === undefined ? [] : verb.sample);
    const first = samples.length ? samples[0] : documented;
    this.request.placeholder = JSON.stringify(documented || { args: {} });
    this.request.value = first === null ? "" : JSON.stringify(first);
    details.open = first !== null;
    for (const sample of samples.length > 1 ? samples : []) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = JSON.stringify(sample);
      button.addEventListener("click", () => { this.request.value = button.textContent; });
      list.append(button);
    }
  }

  async start() {
    let query = { action: "start" };
    this.wrong.hidden = true;
    if (this.request.value.trim()) {
      try {
        query = JSON.parse(this.request.value);
      } catch (error) {
        this.wrong.textContent = error.message;
        this.wrong.hidden = false;
        return;
      }
    }
    this.startButton.disabled = true;
    const response = await this.call(query);
    this.startButton.disabled = false;
    if (response && typeof response === "object") {
      this.show(response);
    } else if (response !== undefined) {
      this.output.add(JSON.stringify(response), "stdout");
    }
  }

  stop(pid) {
    this.call(pid === null ? { action: "stop" } : { action: "stop", args: { pid } });
  }

  /* To the newest of its tasks. */
  feed(what) {
    this.call({ action: "input", args: { pid: [...this.tasks].pop(), ...what } });
  }

  /* What runs already: its output is sent again from the beginning of what is kept. */
  async follow() {
    this.output.clear();
    this.tasks.clear();
    this.over.clear();
    this.draw();
    let reply;
    try {
      reply = await this.link.call(this.procedure, { action: "subscribe" });
    } catch {
      return null;
    }
    const locked = REFUSALS.includes(reply.request.status);
    this.node.classList.toggle("locked", locked);
    this.startButton.disabled = locked;
    for (const task of Array.isArray(reply.response) ? reply.response : []) {
      this.began(Number(String(task).split("@").pop()));
    }
    return reply.request.status;
  }

  async call(query) {
    let reply;
    try {
      reply = await this.link.call(this.procedure, query);
    } catch (error) {
      this.output.add(error.message, "error");
      return undefined;
    }
    const { status, info, code } = reply.request;
    if (code < 0) {
      this.output.add(info ? `${status}: ${info}` : status, "error");
      if (REFUSALS.includes(status)) {
        askForToken();
      }
    }
    return reply.response;
  }

  /* A reply of a start or an event: they share their keys. */
  show(data) {
    if (data === null || typeof data !== "object" || Array.isArray(data)) {
      this.output.stream(data, "stdout");
      return;
    }
    const { type, api, sandbox, command, pid, status, stdout, stderr, piece, ...rest } = data;
    const starts = type === undefined || type === "initial-event";
    if (starts && status === undefined && pid !== undefined && !this.tasks.has(pid) && !this.over.delete(pid)) {
      this.began(pid);
      this.output.add(`started, pid ${pid}`, "note");
    }
    for (const [kind, value] of Object.entries({ stdout, stderr })) {
      if (value !== undefined && piece !== undefined) {
        this.output.piece(piece === "base64" ? fromBase64(value) : value, kind);
      } else if (value !== undefined) {
        this.output.stream(value, kind);
      }
    }
    if (Object.keys(rest).length) {
      this.output.add(`${type || "answer"} ${JSON.stringify(rest)}`, "note");
    }
    if (status !== undefined) {
      if (!this.tasks.delete(pid)) {
        this.over.add(pid);
      }
      this.draw();
      this.output.add(`ended, pid ${pid}: ${ending(status)}`, status.exit === 0 ? "note" : "error");
    }
  }

  began(pid) {
    if (Number.isInteger(pid)) {
      this.tasks.add(pid);
      this.draw();
    }
  }

  draw() {
    this.node.classList.toggle("busy", this.tasks.size > 0);
    this.stopButton.disabled = this.tasks.size === 0;
    for (const button of this.feedForm.querySelectorAll("button")) {
      button.disabled = this.tasks.size === 0;
    }
    const several = this.tasks.size > 1 ? [...this.tasks] : [];
    this.taskList.replaceChildren(...several.map((pid) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `stop pid ${pid}`;
      button.addEventListener("click", () => this.stop(pid));
      return button;
    }));
  }
}

function fromBase64(text) {
  return new TextDecoder().decode(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
}

function ending(status) {
  const what = status.exit !== undefined ? `exit ${status.exit}`
    : status.signal !== undefined ? `signal ${status.signal}` : JSON.stringify(status);
  return status.info ? `${what} (${status.info})` : what;
}

function askForToken() {
  $("token-form").hidden = false;
}

/* The page: APIs and their cards, made again at each connect. */
class Page {
  constructor() {
    this.cards = new Map();
    this.link = new Link({
      opened: () => this.load(),
      lost: (wait) => this.state("lost", `no connection, next attempt in ${Math.ceil(wait / 1000)} s`),
      event: (name, data) => this.event(name, data),
    });
    $("token-open").addEventListener("click", () => {
      $("token-form").hidden = !$("token-form").hidden;
    });
    $("token-form").addEventListener("submit", (submit) => {
      submit.preventDefault();
      const token = $("token").value.trim();
      $("token").value = "";
      $("token-form").hidden = true;
      login(token).then(() => this.link.socket.close());  // and open it again with the cookie
    });
  }

  state(kind, text) {
    $("state").className = `state ${kind}`;
    $("state").textContent = text;
  }

  async load() {
    this.state("open", "connected");
    try {
      const reply = await this.link.call("monitor/get", { apis: false });
      if (REFUSALS.includes(reply.request.status)) {
        this.state("lost", reply.request.status);
        this.empty("A token is needed to see anything here.");
        askForToken();
        return;
      }
      const names = Object.keys((reply.response || {}).apis || {}).filter((name) => name !== "monitor");
      this.warn((((await this.link.call("initspawn/info", {})).response || {}).plan) || {});
      const infos = await Promise.all(names.map((name) => this.link.call(`${name}/info`, {})));
      this.draw(names.map((name, index) => [name, infos[index].response || {}]));
      await Promise.all([...this.cards.values()].map((card) => card.follow()));
    } catch (error) {
      this.state("lost", error.message);
    }
  }

  /* Which plan a device runs in place of one that was refused. */
  warn(plan) {
    const refused = plan.refused || [];
    $("warning").hidden = !refused.length;
    $("warning").textContent = refused.length
      ? `It runs ${plan.file || "no plan"}, because of: ${refused.join("; ")}` : "";
  }

  /* Cards survive a reconnect, so that a request being typed is not lost. */
  draw(apis) {
    const cards = new Map();
    const sections = [];
    for (const [name, info] of apis) {
      const verbs = (info.groups || []).flatMap((group) => group.verbs || []);
      const about = info.metadata || {};
      const section = $("api-template").content.cloneNode(true).firstElementChild;
      section.querySelector("h2").textContent = about.uid || name;
      section.querySelector(".about").textContent = [about.info, about.version].filter(Boolean).join(", version ");
      for (const verb of verbs) {
        const fresh = new Card(this.link, name, verb);
        const card = this.cards.get(fresh.procedure) || fresh;
        cards.set(card.procedure, card);
        section.querySelector(".cards").append(card.node);
      }
      if (verbs.length) {
        sections.push(section);
      }
    }
    this.cards = cards;
    $("apis").replaceChildren(...sections);
    if (!sections.length) {
      this.empty("There are no verbs to be seen.");
    }
  }

  empty(text) {
    const note = document.createElement("p");
    note.className = "empty";
    note.textContent = text;
    $("apis").replaceChildren(note);
  }

  event(name, data) {
    const card = this.cards.get(name);
    if (card) {
      card.show(data);
    }
  }
}

const token = takeToken();
(token ? login(token) : Promise.resolve()).then(() => new Page());
