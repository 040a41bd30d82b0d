// How like the reference volumes raw and restored are, over time: two lines, and what restoring gains.

import { ago, Chart, svg } from "./chart.js";

const decibels = (value) => `${value.toFixed(1)}\u00a0dB`;
const signed = (value) => `${value < 0 ? "−" : "+"}${decibels(Math.abs(value))}`;

export class ReferenceChart extends Chart {
  constructor(figure) {
    super(figure, { title: "PSNR against high light", format: decibels });
    this.raw = svg("path", { class: "beside" });
    this.changes = svg("g", { class: "changes" });
    this.svg.prepend(this.changes, this.raw);
  }

  /** Entries are the run's comparisons, oldest first; `at` is the moment of the volume on the screen. Hidden without any. */
  compare(entries, at) {
    if (entries === this.compared) {
      this.drawn = { ...this.drawn, at };
      this.dot();
      return;
    }
    this.compared = entries;
    this.entries = entries.filter((entry) => Number.isFinite(entry.unix_s) && Number.isFinite(entry.raw_psnr_db));
    this.figure.hidden = !this.entries.length;
    if (this.figure.hidden) return;
    this.show(this.entries.map((entry) => [entry.unix_s, entry.psnr_db]), { at });
    const [left, right] = this.figure.querySelectorAll(".span span");
    const [first, last] = [this.entries[0], this.entries.at(-1)];
    const newest = this.entries.findLast((entry) => Number.isFinite(entry.gain_db));
    this.figure.querySelector("strong").textContent = newest ? signed(newest.gain_db) : "–";
    left.textContent = first === last ? "" : ago(last.unix_s - first.unix_s);
    right.textContent = newest ? `restored ${newest.psnr_db.toFixed(1)}, raw ${decibels(newest.raw_psnr_db)}` : `raw ${decibels(last.raw_psnr_db)}`;
    const gain = newest ? `, ${signed(newest.gain_db)} by restoring` : ", not restored";
    const models = this.swaps().map(({ model }) => `, then by ${model}`).join("");
    this.svg.setAttribute("aria-label", `${this.title}: ${right.textContent}${gain}${models}; ${this.entries.length} compared`);
  }

  /** The first comparison of every model but the first. */
  swaps() {
    const restored = this.entries.filter((entry) => entry.model);
    return restored.filter(({ model, sha256 }, at) => at && (model !== restored[at - 1].model || sha256 !== restored[at - 1].sha256));
  }

  get extent() {
    const values = this.entries.flatMap((entry) => [entry.psnr_db, entry.raw_psnr_db]).filter(Number.isFinite);
    return { first: this.entries[0].unix_s, last: this.entries.at(-1).unix_s, values };
  }

  draw() {
    super.draw();
    const { clientWidth: width, clientHeight: height } = this.svg;
    if (!this.entries?.length || !width || !height) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const { x, y } = this.scales(width, height);
    const places = this.entries.map((entry) => `${x(entry.unix_s).toFixed(1)} ${y(entry.raw_psnr_db).toFixed(1)}`);
    this.raw.setAttribute("d", `M${places.join("L")}${places.length > 1 ? "" : "h.1"}`);
    this.changes.replaceChildren(...this.swaps().map((entry) => change(x(entry.unix_s), height, entry.model)));
  }
}

/** A line where another model begins. */
function change(x, height, model) {
  const line = svg("line", { x1: x, x2: x, y1: 0, y2: height });
  line.append(svg("title", {}));
  line.firstChild.textContent = `from here on restored by ${model}`;
  return line;
}
