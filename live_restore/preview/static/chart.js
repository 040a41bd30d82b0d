// A line over time, drawn as SVG: its value in the volume that is drawn, and between what it was.

import { say } from "./figures.js";

const NS = "http://www.w3.org/2000/svg";
const ROOM = 4;

export class Chart {
  /** `format` turns a value into words; `fromZero` keeps zero in sight. */
  constructor(figure, { title, format, fromZero = false }) {
    Object.assign(this, { figure, title, format, fromZero, points: [], placed: [] });
    figure.innerHTML =
      '<figcaption><span></span><strong></strong></figcaption><div class="plot"><svg role="img"><path class="area"/><path class="curve"/><circle class="now" r="2.5"/></svg></div><div class="span"><span></span><span></span></div>';
    figure.querySelector("figcaption span").textContent = title;
    this.svg = figure.querySelector("svg");
    new ResizeObserver(() => this.draw()).observe(this.svg);
    this.show([]);
  }

  /**
   * Points are [seconds, value], oldest first; those without a value are left out. They are the history only:
   * `drawn` is { value, at }, of the volume on the screen, with its seconds where the history has it.
   * The same array as before is the same history: then only the figure and the dot are new.
   */
  show(points, { value = NaN, at = NaN } = {}) {
    const anew = points !== this.given;
    this.drawn = { value, at };
    if (anew) this.take(points);
    const known = Number.isFinite(value);
    say(this.figure.querySelector("strong"), known ? this.format(value) : "–");
    const words = [known ? `${this.format(value)} in the volume shown` : "", this.between].filter(Boolean);
    this.svg.setAttribute("aria-label", `${this.title}: ${words.join(", ") || "nothing yet"}`);
    if (anew) this.draw();
    else this.dot();
  }

  take(points) {
    this.given = points;
    this.points = points.filter(([at, value]) => Number.isFinite(at) && Number.isFinite(value));
    const values = this.points.map(([, value]) => value);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const [left, right] = this.figure.querySelectorAll(".span span");
    left.textContent = values.length > 1 ? ago(this.points.at(-1)[0] - this.points[0][0]) : "";
    right.textContent = values.length > 1 ? `${this.format(least)} to ${this.format(most)}` : "";
    this.between = values.length ? `between ${this.format(least)} and ${this.format(most)} over ${values.length} volumes` : "";
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.svg;
    const [area, curve] = [".area", ".curve"].map((name) => this.svg.querySelector(name));
    this.placed = [];
    if (!this.points.length || !width || !height) {
      this.dot();
      curve.removeAttribute("d");
      area.removeAttribute("d");
      return;
    }
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const places = this.places(width, height);
    const line = places.map(([x, y], at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
    curve.setAttribute("d", places.length > 1 ? line : `${line}h.1`); // a single one is a dot
    area.setAttribute("d", `${line}L${places.at(-1)[0].toFixed(1)} ${height}L${places[0][0].toFixed(1)} ${height}Z`);
    this.placed = places;
    this.dot();
  }

  /** Put the dot where the volume on the screen stands in the line. */
  dot() {
    const dot = this.svg.querySelector("circle");
    const shown = this.points.findIndex(([at]) => at === this.drawn.at);
    dot.style.visibility = shown < 0 ? "hidden" : "visible";
    if (!this.placed[shown]) return;
    dot.setAttribute("cx", this.placed[shown][0]);
    dot.setAttribute("cy", this.placed[shown][1]);
  }

  places(width, height) {
    const { x, y } = this.scales(width, height);
    return this.points.map(([at, value]) => [x(at), y(value)]);
  }

  /** What the plot must have room for: the first and the last moment, and values. */
  get extent() {
    return { first: this.points[0][0], last: this.points.at(-1)[0], values: this.points.map(([, value]) => value) };
  }

  /** From seconds and values to places in the plot. */
  scales(width, height) {
    const { first, last, values } = this.extent;
    let [least, most] = [this.fromZero ? 0 : Math.min(...values), Math.max(...values)];
    const margin = Math.max((most - least) * 0.1, Math.abs(most) * 0.02, 1e-9);
    most += margin;
    if (!this.fromZero) least -= margin;
    const x = (at) => ROOM + (last > first ? (at - first) / (last - first) : 1) * (width - 2 * ROOM);
    const y = (value) => height - ROOM - ((value - least) / (most - least)) * (height - 2 * ROOM);
    return { x, y };
  }
}

export function ago(seconds) {
  if (seconds < 120) return `last ${Math.round(seconds)} s`;
  if (seconds < 7200) return `last ${Math.round(seconds / 60)} min`;
  return `last ${(seconds / 3600).toFixed(1)} h`;
}

/** An SVG element with attributes. */
export function svg(name, attributes) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
