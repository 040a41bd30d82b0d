// The frame with the images: where they lie in it, the divider, zoom and pan, and what is written over them.

import { GlPainter } from "./gl_painter.js";
import { Marks } from "./marks.js";
import { PlainPainter } from "./plain_painter.js";

const LARGEST_ZOOM = 64;
const INVENTED = [0.902, 0.624, 0.0];
const ERASED = [0.337, 0.706, 0.914];
const GAP = 2;
// The z-score at which the overlay begins to show, where the check does not say its own.
const THRESHOLD = 4.2;
// How long a hidden tab waits between views.
const HIDDEN_MS = 1000;

const byId = (id) => document.getElementById(id);

export class Stage {
  /** `onDivider`: it was moved. `onPlace`: other parts of the image may be needed. `onMark`: a mark was chosen. */
  constructor({ onDivider, onPlace, onMark }) {
    this.onDivider = onDivider;
    this.onPlace = onPlace;
    this.element = byId("stage");
    this.canvas = byId("canvas");
    this.divider = byId("divider");
    this.layout = "divide";
    this.share = 50;
    this.place = { x: 0, y: 0, zoom: 1, fitted: true };
    this.pixelSize = null;
    this.painter = this.bestPainter();
    this.pointers = new Map();
    this.marks = new Marks({ onGo: onMark, canvas: () => this.canvas });
    new ResizeObserver(() => this.resize()).observe(this.element);
    this.listen();
    document.addEventListener("visibilitychange", () => {
      if (document.hidden && this.requested) setTimeout(() => this.paint(), HIDDEN_MS);
      else this.paint();
    });
    this.resize();
  }

  bestPainter() {
    if (new URLSearchParams(location.search).has("plain")) return new PlainPainter(this.canvas);
    try {
      const painter = new GlPainter(this.canvas);
      painter.onRestored = () => this.request();
      return painter;
    } catch {
      return new PlainPainter(this.freshCanvas());
    }
  }

  /** A canvas that was used for WebGL gives no other context. */
  freshCanvas() {
    const fresh = this.canvas.cloneNode(true);
    this.canvas.replaceWith(fresh);
    this.canvas = fresh;
    if (this.pointers) this.listenToCanvas();
    return fresh;
  }

  /** Take new images; `after` is called once they are on the screen. */
  load(layers, { size, region, block }, after) {
    if (!this.painter.fits(layers)) {
      this.painter = new PlainPainter(this.freshCanvas());
      this.resize();
    }
    const [width, height] = size;
    const other = this.raw?.width !== width || this.raw?.height !== height;
    this.raw = { width, height };
    this.layers = layers;
    this.block = block;
    this.region = { x: region[0], y: region[1], width: region[2] - region[0], height: region[3] - region[1] };
    this.painter.load(layers, this.region);
    if (other || this.place.fitted) this.fit();
    this.request(after);
  }

  /** Draw soon; in a hidden tab, which has no frames, later but still. `after` is called once it is drawn. */
  request(after) {
    if (after) this.after = after;
    if (this.requested) return;
    this.requested = true;
    if (document.hidden) setTimeout(() => this.paint(), HIDDEN_MS);
    else requestAnimationFrame(() => this.paint());
  }

  paint() {
    if (!this.requested) return;
    this.requested = false;
    this.draw();
    const { after } = this;
    this.after = null;
    after?.();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(this.element.clientWidth * ratio), Math.round(this.element.clientHeight * ratio)];
    if (width === this.canvas.width && height === this.canvas.height) return;
    this.canvas.width = width;
    this.canvas.height = height;
    this.ratio = ratio;
    this.letter = parseFloat(getComputedStyle(document.documentElement).fontSize);
    if (this.place.fitted) this.fit();
    this.draw();
  }

  paneWidth() {
    return this.layout === "beside" ? Math.floor((this.canvas.width - GAP * this.ratio) / 2) : this.canvas.width;
  }

  fit() {
    if (!this.raw) return;
    const zoom = Math.min(this.paneWidth() / this.raw.width, this.canvas.height / this.raw.height);
    this.place = { zoom, fitted: true, x: 0, y: 0 };
    this.centre(this.raw.width / 2, this.raw.height / 2);
    this.placed();
  }

  /** The part of the image that is in the frame, with some around it; coarser where several pixels meet in one of the screen. */
  window() {
    if (!this.raw) return { region: [], block: 1 };
    const { x, y, zoom } = this.place;
    const block = Math.min(64, Math.max(1, Math.floor(1 / zoom + 0.01)));
    const [wide, high] = [this.paneWidth() / zoom, this.canvas.height / zoom];
    const side = (value, size) => Math.min(size, Math.max(0, Math.round(value / 32) * 32));
    const region = [side(x - 0.2 * wide, this.raw.width), side(y - 0.2 * high, this.raw.height), side(x + 1.2 * wide, this.raw.width), side(y + 1.2 * high, this.raw.height)];
    const whole = (region[2] - region[0]) * (region[3] - region[1]) > 0.8 * this.raw.width * this.raw.height;
    return { region: whole ? [] : region, block };
  }

  /** The image lies elsewhere in the frame; tell if pixels that are seen now were not sent. */
  placed() {
    this.request();
    if (!this.region) return;
    const { x, y, zoom } = this.place;
    const seen = {
      left: Math.max(0, x), top: Math.max(0, y),
      right: Math.min(this.raw.width, x + this.paneWidth() / zoom), bottom: Math.min(this.raw.height, y + this.canvas.height / zoom),
    };
    const slack = this.block;
    const inside =
      seen.left >= this.region.x - slack && seen.top >= this.region.y - slack &&
      seen.right <= this.region.x + this.region.width + slack && seen.bottom <= this.region.y + this.region.height + slack;
    if (!inside || this.window().block < this.block) this.onPlace();
  }

  centre(x, y) {
    this.place.x = x - this.paneWidth() / 2 / this.place.zoom;
    this.place.y = y - this.canvas.height / 2 / this.place.zoom;
  }

  /** Bring a place (y, x, pixels of the image) to the middle of the restored side, at least twice as large as fitted. */
  bringForward({ y, x }) {
    if (!this.raw) return;
    if (this.layout === "divide" && this.share > 80) this.setShare(50);
    const fitted = Math.min(this.paneWidth() / this.raw.width, this.canvas.height / this.raw.height);
    const zoom = Math.min(LARGEST_ZOOM, Math.max(this.place.zoom, 2 * fitted));
    const middle = this.layout === "divide" ? ((1 + this.share / 100) / 2) * this.canvas.width : this.paneWidth() / 2;
    this.place = { zoom, fitted: false, x: x + 0.5 - middle / zoom, y: y + 0.5 - this.canvas.height / 2 / zoom };
    this.keepInSight();
    this.placed();
  }

  /** Zoom about a point of the frame, device pixels; without one, about its centre. */
  zoomBy(factor, x = this.paneWidth() / 2, y = this.canvas.height / 2) {
    if (!this.raw) return;
    const smallest = 0.25 * Math.min(this.paneWidth() / this.raw.width, this.canvas.height / this.raw.height);
    const zoom = Math.min(LARGEST_ZOOM, Math.max(smallest, this.place.zoom * factor));
    const kept = { x: this.place.x + x / this.place.zoom, y: this.place.y + y / this.place.zoom };
    this.place = { zoom, fitted: false, x: kept.x - x / zoom, y: kept.y - y / zoom };
    this.keepInSight();
    this.placed();
  }

  /** Move by device pixels. */
  pan(dx, dy) {
    this.place.x -= dx / this.place.zoom;
    this.place.y -= dy / this.place.zoom;
    this.place.fitted = false;
    this.keepInSight();
    this.placed();
  }

  /** Something of the image stays in the frame. */
  keepInSight() {
    if (!this.raw) return;
    const { zoom } = this.place;
    const [wide, high] = [this.paneWidth() / zoom, this.canvas.height / zoom];
    this.place.x = Math.min(this.raw.width - 0.1 * wide, Math.max(-0.9 * wide, this.place.x));
    this.place.y = Math.min(this.raw.height - 0.1 * high, Math.max(-0.9 * high, this.place.y));
  }

  setLayout(layout) {
    const centre = { x: this.place.x + this.paneWidth() / 2 / this.place.zoom, y: this.place.y + this.canvas.height / 2 / this.place.zoom };
    this.layout = layout;
    this.element.dataset.layout = layout;
    if (this.place.fitted) this.fit();
    else this.centre(centre.x, centre.y);
    if (this.raw) this.placed();
  }

  setShare(share) {
    this.share = Math.min(100, Math.max(0, share));
    const shown = Math.round(this.share);
    this.element.style.setProperty("--at", `${this.share}%`);
    this.divider.setAttribute("aria-valuenow", shown);
    this.divider.setAttribute("aria-valuetext", `raw on the left ${shown} percent of the frame`);
    this.onDivider();
    this.request();
  }

  panes() {
    const { width } = this.canvas;
    const { x, y } = this.place;
    const dim = this.settings.dim ?? 1;
    if (this.layout === "beside") {
      const pane = this.paneWidth();
      const right = width - pane;
      return [
        { layer: "raw", left: 0, width: pane, x, y, shift: 0, dim: 1 },
        { layer: "restored", left: right, width: pane, x, y, shift: right, dim },
      ];
    }
    const cut = Math.round((this.share / 100) * width);
    return [
      { layer: "raw", left: 0, width: cut, x, y, shift: 0, dim: 1 },
      { layer: "restored", left: cut, width: width - cut, x, y, shift: 0, dim },
    ];
  }

  /** Draw now. `settings` has low, high, gamma, colours, overlay, opacity, dim, and marks: [{ place, words }]. */
  draw() {
    if (!this.settings) return;
    const scene = { threshold: THRESHOLD, ...this.settings, zoom: this.place.zoom, panes: this.panes(), invented: INVENTED, erased: ERASED };
    const started = performance.now();
    this.painter.draw(scene);
    this.drawingMs = performance.now() - started;
    this.drawScale();
    this.marks.show(this.settings.marks);
    this.marks.lay(scene.panes[1], scene.zoom, this.ratio);
  }

  /** Length and words of the scale bar: a round number that is about an eighth of the pane. */
  scaleBar() {
    const unit = this.pixelSize ? "µm" : "px";
    const perUnit = this.place.zoom / (this.pixelSize || 1); // device pixels
    const wanted = Math.min(this.paneWidth() / 6, 13 * this.letter * this.ratio) / perUnit;
    const power = 10 ** Math.floor(Math.log10(wanted));
    const length = [5, 2, 1].map((digit) => digit * power).find((value) => value <= wanted) ?? power;
    return { pixels: length * perUnit, words: `${Number(length.toPrecision(1))} ${unit}` };
  }

  drawScale() {
    byId("scale").hidden = !this.raw;
    if (!this.raw) return;
    const { pixels, words } = this.scaleBar();
    byId("scale-line").style.width = `${pixels / this.ratio}px`;
    byId("scale-word").textContent = words;
  }

  listen() {
    this.listenToCanvas();
    this.listenToDivider();
  }

  listenToCanvas() {
    const { canvas } = this;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return { x: (event.clientX - box.left) * this.ratio, y: (event.clientY - box.top) * this.ratio };
    };
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const { x, y } = at(event);
      const lines = event.deltaMode === 1 ? 33 : 1;
      this.zoomBy(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015)), this.inPane(x), y);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, at(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      const now = at(event);
      this.probe(now);
      if (this.pointers.has(event.pointerId)) this.drag(event.pointerId, now);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => this.probe(null));
    canvas.addEventListener("dblclick", () => this.fit());
  }

  inPane(x) {
    return this.layout === "beside" && x > this.canvas.width / 2 ? x - (this.canvas.width - this.paneWidth()) : x;
  }

  drag(id, now) {
    const before = this.pointers.get(id);
    const others = [...this.pointers].filter(([other]) => other !== id);
    this.pointers.set(id, now);
    if (!others.length) {
      this.pan(now.x - before.x, now.y - before.y);
      return;
    }
    const [[, still]] = others; // two fingers: the distance zooms
    const distance = (point) => Math.hypot(point.x - still.x, point.y - still.y);
    if (distance(before) > 0) this.zoomBy(distance(now) / distance(before), this.inPane((now.x + still.x) / 2), (now.y + still.y) / 2);
  }

  listenToDivider() {
    const { divider } = this;
    const follow = (event) => {
      const box = this.element.getBoundingClientRect();
      this.setShare((100 * (event.clientX - box.left)) / box.width);
    };
    divider.addEventListener("pointerdown", (event) => {
      divider.setPointerCapture(event.pointerId);
      divider.focus();
      event.preventDefault();
    });
    divider.addEventListener("pointermove", (event) => divider.hasPointerCapture(event.pointerId) && follow(event));
    divider.addEventListener("dblclick", () => this.setShare(50));
    divider.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 10 : 2;
      const moves = { ArrowLeft: -step, ArrowDown: -step, ArrowRight: step, ArrowUp: step, PageDown: -10, PageUp: 10, Home: -100, End: 100 };
      if (!(event.key in moves)) return;
      event.preventDefault();
      event.stopPropagation();
      this.setShare(this.share + moves[event.key]);
    });
  }

  /** Tell the counts under the pointer. */
  probe(point) {
    const word = byId("probe");
    const spot = point && this.raw ? this.pixelAt(point) : null;
    word.textContent = spot ? `x ${spot.x}  y ${spot.y}   raw ${spot.raw}   restored ${spot.restored}${this.block > 1 ? `   (means of ${this.block}×${this.block})` : ""}` : "";
  }

  pixelAt(point) {
    const x = Math.floor(this.place.x + this.inPane(point.x) / this.place.zoom);
    const y = Math.floor(this.place.y + point.y / this.place.zoom);
    if (x < 0 || y < 0 || x >= this.raw.width || y >= this.raw.height) return null;
    return { x, y, raw: this.counts("raw", x, y, 0), restored: this.counts("restored", x, y, 1) };
  }

  counts(name, x, y, digits) {
    const layer = this.layers[name];
    if (!layer) return "–";
    const column = Math.floor(((x - this.region.x) * layer.width) / this.region.width);
    const row = Math.floor(((y - this.region.y) * layer.height) / this.region.height);
    if (column < 0 || row < 0 || column >= layer.width || row >= layer.height) return "–";
    return (layer.pixels[row * layer.width + column] * layer.step + layer.offset).toFixed(digits);
  }
}
