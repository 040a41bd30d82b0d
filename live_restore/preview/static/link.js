// The line to the preview's server: says what is wanted, hands on views, comes back by itself.

const LONGEST_WAIT_MS = 5000;
const SILENCE_MS = 8000;

/** One WebSocket after another. `told` has: onWelcome(said), onStatus(status), onView(header, layers), onLink(link), onServer(state). */
export class Link {
  constructor(told) {
    this.told = told;
    this.wish = null;
    this.tries = 0;
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/watch`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = (event) => this.hear(event.data);
    this.socket.onclose = (event) => this.lost(event);
  }

  /** Ask for one view; the server answers with the newest there is then. */
  ask(wish) {
    this.wish = wish;
    if (this.socket.readyState === WebSocket.OPEN && this.welcomed) {
      this.socket.send(JSON.stringify(wish));
      this.watchSilence();
    }
  }

  hear(data) {
    this.watchSilence();
    if (data instanceof ArrayBuffer) {
      const { header, layers } = unpack(data);
      this.told.onView(header, layers);
      return;
    }
    const said = JSON.parse(data);
    if (said.kind === "welcome") {
      this.welcomed = true;
      this.tries = 0;
      this.told.onServer({ state: "open" });
      this.told.onWelcome(said);
      if (this.wish) this.ask(this.wish);
    } else if (said.kind === "status") {
      this.told.onStatus(said.status);
    } else if (said.kind === "link") {
      this.told.onLink(said);
    }
  }

  watchSilence() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.socket.close(), SILENCE_MS);
  }

  lost(event) {
    clearTimeout(this.silence);
    this.welcomed = false;
    const wait = Math.min(LONGEST_WAIT_MS, 250 * 2 ** this.tries) * (0.75 + 0.5 * Math.random());
    this.tries += 1;
    const refused = event.code === 1008 || event.code === 1013;
    this.told.onServer({ state: "lost", tries: this.tries, why: refused ? event.reason : "" });
    setTimeout(() => this.open(), refused ? LONGEST_WAIT_MS : wait);
  }
}

const ARRAYS = { uint8: Uint8Array, uint16: Uint16Array, int8: Int8Array };

/** Take a binary message apart; the layers are views of it, nothing is copied. */
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const layers = {};
  for (const [name, layer] of Object.entries(header.layers)) {
    const [height, width] = layer.shape;
    const pixels = new ARRAYS[layer.dtype](buffer, 4 + length + layer.start, height * width);
    layers[name] = { pixels, height, width, dtype: layer.dtype, step: layer.step, offset: layer.offset };
  }
  return { header, layers };
}
