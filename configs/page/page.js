/* A page of one's own in forty lines. `initspawn serve configs/demo.yaml --page configs/page` serves it.

   The token comes behind the # of the address that `serve` prints and goes into the WebSocket's
   address. Calls are [2, ID, PROCEDURE, ARGUMENTS]; replies [3 or 4, ID, REPLY]; events [5, NAME, EVENT]. */
"use strict";

const VERB = "demo/host/count";
const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.hash.slice(1)).get("token") || "";
history.replaceState(null, "", location.pathname); // the token shall not stay in the address bar

const scheme = location.protocol === "https:" ? "wss:" : "ws:";
const socket = new WebSocket(`${scheme}//${location.host}/api?token=${encodeURIComponent(token)}`, "x-afb-ws-json1");
let calls = 0;
let pid = null;

function call(query) {
  socket.send(JSON.stringify([2, String(++calls), VERB, query]));
}

function running(number) {
  pid = number;
  $("start").disabled = pid !== null;
  $("stop").disabled = pid === null;
}

socket.addEventListener("open", () => { $("state").textContent = "connected"; });
socket.addEventListener("close", () => { $("state").textContent = "no connection; load the page again"; });
socket.addEventListener("message", (message) => {
  const [kind, , body] = JSON.parse(message.data);
  if (kind === 4) {
    $("state").textContent = body.request.info || body.request.status;
  } else if (kind === 3 && body.response && body.response.command) {
    running(body.response.pid);
    $("state").textContent = "running";
  } else if (kind === 5 && body.data.pid === pid) {
    $("lines").append(body.data.stdout === undefined ? "" : `${body.data.stdout}\n`);
    if (body.data.status) {
      running(null);
      $("state").textContent = `ended: ${JSON.stringify(body.data.status)}`;
    }
  }
});

$("start").addEventListener("click", () => { $("lines").textContent = ""; call({ action: "start" }); });
$("stop").addEventListener("click", () => call({ action: "stop", args: { pid } }));
