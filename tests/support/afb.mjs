// A client of x-afb-ws-json1 for tests, in a browser or in Node: calls by name, events, a token for each call, and
// new connections after lost ones. Speaks as the AFB client of browsers does.

const CALL = 2, RETOK = 3, RETERR = 4, EVENT = 5;

export class Afb {
  constructor(address, token) {
    this.address = address;
    this.token = token;
    this.pending = new Map();
    this.handlers = new Map();
    this.number = 0;
    this.closed = () => {};
  }

  open() {
    return new Promise((done, failed) => {
      this.socket = new WebSocket(`${this.address}?x-afb-token=${this.token}`, ["x-afb-ws-json1"]);
      this.socket.onopen = done;
      this.socket.onerror = failed;
      this.socket.onmessage = (message) => this.take(JSON.parse(message.data));
      this.socket.onclose = () => {
        const reply = {jtype: "afb-reply", request: {status: "disconnected", info: "server hung up"}};
        for (const {failed} of this.pending.values()) failed(reply);
        this.pending.clear();
        this.closed();
      };
    });
  }

  // Open again and again until somebody answers.
  async reopen() {
    for (;;) {
      try {
        return await this.open();
      } catch {
        await new Promise((done) => setTimeout(done, 50));
      }
    }
  }

  take([code, id, content]) {
    if (code === EVENT) {
      for (const name of [id, id.split("/")[0], "*"]) {
        for (const handler of this.handlers.get(name) || []) handler(content, id);
      }
      return;
    }
    const waiting = this.pending.get(id);
    this.pending.delete(id);
    if (waiting) (code === RETOK ? waiting.done : waiting.failed)(content);
    if (code !== RETOK && code !== RETERR) throw new Error(`code ${code}`);
  }

  call(procedure, request) {
    return new Promise((done, failed) => {
      const id = String(this.number = 4095 & (this.number + 1));
      this.pending.set(id, {done, failed});
      this.socket.send(JSON.stringify([CALL, id, procedure, request, this.token]));
    });
  }

  on(name, handler) {
    this.handlers.set(name, [...(this.handlers.get(name) || []), handler]);
  }
}
