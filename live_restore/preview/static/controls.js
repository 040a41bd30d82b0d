// The controls on the right: what they are set to, kept over a reload, and told when they change.

import { COLOURS, table, usualColour } from "./colours.js";
import { histogram } from "./contrast.js";
import { svg } from "./chart.js";
import { whole } from "./words.js";

const byId = (id) => document.getElementById(id);
const KEPT = "live_restore";
const BINS = 96;
const STEPS = 1000;

const FRESH = {
  channel: "", position: "", z: 0, projection: true, layout: "divide", share: 50,
  auto: true, low: 0, high: 1, gamma: 0, colours: {}, overlay: false, opacity: 80, marks: true,
};

export class Controls {
  /** `onWish`: what is asked of the restore process changed. `onLook`: how it is drawn changed. */
  constructor({ onWish, onLook }) {
    this.onWish = onWish;
    this.onLook = onLook;
    this.set = { ...FRESH, ...read() };
    this.span = { low: 0, high: 1000 };
    this.planes = 0;
    byId("colour").append(...COLOURS.map((name) => new Option(name, name)));
    this.put();
    this.listen();
  }

  /** The z of the wish: -1 is the maximum projection. */
  get z() {
    return this.set.projection ? -1 : this.set.z;
  }

  put() {
    const { set } = this;
    byId("projection").checked = set.projection;
    byId("auto").checked = set.auto;
    byId("overlay").checked = set.overlay;
    byId("marks-shown").checked = set.marks;
    byId("opacity").value = set.opacity;
    byId("gamma").value = set.gamma;
    for (const radio of document.getElementsByName("layout")) radio.checked = radio.value === set.layout;
    this.words();
  }

  words() {
    const { set } = this;
    byId("opacity-word").textContent = `${set.opacity} %`;
    byId("gamma-word").textContent = this.gamma.toFixed(2);
    byId("z-word").textContent = !this.planes ? "–" : set.projection ? `all ${this.planes}` : `${set.z + 1} of ${this.planes}`;
    byId("z").setAttribute("aria-valuetext", `plane ${set.z + 1} of ${this.planes}`);
  }

  get gamma() {
    return 3 ** (this.set.gamma / 100);
  }

  change(values, told) {
    Object.assign(this.set, values);
    keep(this.set);
    this.words();
    told?.();
  }

  listen() {
    const on = (id, event, act) => byId(id).addEventListener(event, (happened) => act(happened.target));
    on("channels", "change", (radio) => this.change({ channel: radio.value }, this.onWish));
    on("position", "change", (select) => this.change({ position: select.value }, this.onWish));
    on("layout", "change", (radio) => this.change({ layout: radio.value }, this.onLook));
    on("projection", "change", (box) => this.change({ projection: box.checked }, this.onWish));
    on("z", "input", (slider) => this.toPlane(Number(slider.value)));
    on("auto", "change", (box) => this.change({ auto: box.checked }, this.onLook));
    on("gamma", "input", (slider) => this.change({ gamma: Number(slider.value) }, this.onLook));
    on("low", "input", () => this.byHand("low"));
    on("high", "input", () => this.byHand("high"));
    on("colour", "change", (select) => this.change({ colours: { ...this.set.colours, [this.channelShown]: select.value } }, this.onLook));
    on("overlay", "change", (box) => this.change({ overlay: box.checked }, this.onWish));
    on("marks-shown", "change", (box) => this.change({ marks: box.checked }, this.onLook));
    on("opacity", "input", (slider) => this.change({ opacity: Number(slider.value) }, this.onLook));
  }

  toPlane(z) {
    if (!this.planes) return;
    const plane = Math.min(this.planes - 1, Math.max(0, z));
    byId("projection").checked = false;
    byId("z").value = plane;
    this.change({ z: plane, projection: false }, this.onWish);
  }

  /** A slider of the range was moved: from now on it is set by hand. */
  byHand(moved) {
    const counts = (id) => this.span.low + (Number(byId(id).value) / STEPS) * (this.span.high - this.span.low);
    let [low, high] = [counts("low"), counts("high")];
    if (high <= low) [low, high] = moved === "low" ? [low, low + 1] : [high - 1, high];
    byId("auto").checked = false;
    this.change({ auto: false, low, high }, this.onLook);
  }

  /** Press a control as if by hand; keys use it. */
  press(id) {
    byId(id).click();
  }

  nextChannel(step) {
    const radios = [...byId("channels").querySelectorAll("input")];
    if (radios.length < 2) return;
    const at = radios.findIndex((radio) => radio.checked);
    radios[(at + step + radios.length) % radios.length].click();
  }

  nextPosition() {
    const select = byId("position");
    select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
    select.dispatchEvent(new Event("change", { bubbles: true }));
  }

  nextLayout() {
    const other = [...document.getElementsByName("layout")].find((radio) => !radio.checked);
    other.click();
  }

  /** Offer the channels and positions that there are; the choice stays where it still exists. */
  offer(channels, positions) {
    if (this.set.channel && channels.length && !channels.includes(this.set.channel)) this.change({ channel: "" }, this.onWish);
    if (this.set.position && positions.length && !positions.includes(this.set.position)) this.change({ position: "" }, this.onWish);
    this.offerChannels(channels);
    this.offerPositions(positions);
  }

  offerChannels(channels) {
    const wanted = channels.length ? channels : [""];
    // two channels in turn would flicker: where there are several, one is chosen
    if (!this.set.channel && channels.length > 1) this.change({ channel: channels[0] }, this.onWish);
    if (this.offered === wanted.join("\n")) return;
    this.offered = wanted.join("\n");
    const set = byId("channels");
    set.querySelectorAll("label").forEach((label) => label.remove());
    for (const name of wanted) {
      const label = document.createElement("label");
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: "channel", value: wanted.length > 1 ? name : "" });
      radio.checked = radio.value === this.set.channel;
      label.append(radio, Object.assign(document.createElement("span"), { textContent: name || "any" }));
      set.append(label);
    }
  }

  offerPositions(positions) {
    const select = byId("position");
    const wanted = ["", ...positions];
    if ([...select.options].map((option) => option.value).join("\n") === wanted.join("\n")) return;
    select.replaceChildren(...wanted.map((name) => new Option(name || "follow the stage", name)));
    select.value = this.set.position;
    select.disabled = positions.length < 2;
  }

  /** Learn what is shown: its channel and how many planes it has. */
  shown(channel, planes) {
    this.channelShown = channel ?? "";
    byId("colour").value = this.colour;
    if (planes && planes !== this.planes) {
      this.planes = planes;
      const slider = byId("z");
      slider.max = planes - 1;
      slider.disabled = planes < 2;
      const middle = this.set.z < planes ? this.set.z : planes - 1;
      slider.value = middle;
      byId("projection").disabled = planes < 2;
      this.change({ z: middle });
    }
  }

  get colour() {
    return this.set.colours[this.channelShown] ?? usualColour(this.channelShown);
  }

  /** Colours as bytes; the same object while the colour is the same. */
  colourTable() {
    if (this.tableOf !== this.colour) {
      this.tableOf = this.colour;
      this.bytes = table(this.colour);
      const image = new ImageData(new Uint8ClampedArray(this.bytes), 256, 1);
      byId("ramp").getContext("2d").putImageData(image, 0, 0);
    }
    return this.bytes;
  }

  /** Show the range in use; the sliders' own span changes only when it must, so that they do not move under the hand. */
  showRange(range, samples) {
    const least = Math.min(...samples.map((sorted) => sorted[0]), range.low);
    const most = Math.max(...samples.map((sorted) => sorted[Math.floor(0.9999 * (sorted.length - 1))]), range.high);
    const wide = this.span.high - this.span.low;
    const used = Math.max(most - least, 1);
    if (least < this.span.low || most > this.span.high || used < 0.4 * wide) {
      this.span = { low: Math.max(0, Math.floor(least - 0.1 * used)), high: Math.ceil(most + 0.3 * used) };
    }
    const place = (counts) => Math.round((STEPS * (counts - this.span.low)) / (this.span.high - this.span.low));
    for (const end of ["low", "high"]) {
      const slider = byId(end);
      if (document.activeElement !== slider || this.set.auto) slider.value = place(range[end]);
      slider.setAttribute("aria-valuetext", `${whole(range[end])} counts`);
      byId(`${end}-word`).textContent = whole(range[end]);
    }
  }

  drawHistogram(range, samples) {
    const { low, high } = this.span;
    const [raw, restored] = samples.map((sorted) => histogram(sorted, low, high, BINS));
    const box = byId("histogram");
    box.setAttribute("viewBox", `0 0 ${BINS} 100`);
    const steps = (heights) => heights.map((height, bin) => `L${bin} ${(100 - 96 * height).toFixed(1)}H${bin + 1}`).join("");
    const parts = [svg("path", { class: "raw", d: `M0 100${steps(raw)}V100Z` })];
    if (restored) parts.push(svg("path", { class: "restored", d: `M0 100${steps(restored)}V100` }));
    for (const end of [range.low, range.high]) {
      const x = (BINS * (end - low)) / (high - low);
      parts.push(svg("path", { class: "edge", d: `M${x.toFixed(2)} 0V100` }));
    }
    box.replaceChildren(...parts);
  }
}

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT)) ?? {};
  } catch {
    return {};
  }
}

function keep(set) {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(set));
  } catch {
    // a browser that keeps nothing shows everything all the same
  }
}
