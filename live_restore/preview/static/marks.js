// Circles over the restored image at the places that the check of trust points at.

import { svg } from "./chart.js";

export const MARK_COLOURS = { erased: "#56b4e9", invented: "#e69f00" };
// Radius in pixels of the image, and at least this on the screen, so that it is found when zoomed out.
const RADIUS_PX = 8;
const SCALES = 3;
const LEAST_ON_SCREEN = 7;

const byId = (id) => document.getElementById(id);

/** The radius around a place, pixels of the image. */
export const radiusOf = ({ scale_px: scale }) => Math.max(RADIUS_PX, SCALES * (scale || 0));

/** Where circles lie in the frame, CSS pixels: { x, y, radius, place } per place; `pane` is the restored one, device pixels. */
export function circles(places, pane, zoom, ratio) {
  return places.map((place) => ({
    place,
    x: (pane.shift + (place.x + 0.5 - pane.x) * zoom) / ratio,
    y: ((place.y + 0.5 - pane.y) * zoom) / ratio,
    radius: Math.max(LEAST_ON_SCREEN, (radiusOf(place) * zoom) / ratio),
  }));
}

/** The circles of one stage; each has a label that shows when it is pointed at or focused. */
export class Marks {
  /** `onGo(place)`: one was chosen. `canvas()`: what lies below and takes the wheel. */
  constructor({ onGo, canvas }) {
    this.onGo = onGo;
    this.canvas = canvas;
    this.box = byId("marks");
    this.label = byId("mark-label");
    this.wanted = [];
  }

  /** Take what is to be marked: [{ place, words }]. */
  show(wanted) {
    this.wanted = wanted;
    while (this.box.children.length > wanted.length) this.box.lastChild.remove();
    while (this.box.children.length < wanted.length) this.box.append(this.ring(this.box.children.length));
    wanted.forEach(({ place, words }, at) => {
      this.box.children[at].setAttribute("aria-label", words);
      this.box.children[at].dataset.sign = place.sign;
    });
    if (!(this.told < wanted.length)) this.tell(null);
  }

  ring(at) {
    const ring = svg("g", { class: "mark", tabindex: 0, role: "button" });
    ring.append(svg("circle", { class: "reach" }), svg("circle", { class: "shade" }), svg("circle", { class: "line" }));
    for (const begin of ["pointerenter", "focus"]) ring.addEventListener(begin, () => this.tell(at));
    for (const end of ["pointerleave", "blur"]) ring.addEventListener(end, () => this.tell(null));
    const go = () => this.wanted[at] && this.onGo(this.wanted[at].place);
    ring.addEventListener("click", go);
    ring.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      go();
    });
    ring.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.canvas().dispatchEvent(new WheelEvent("wheel", event));
    }, { passive: false });
    return ring;
  }

  tell(at) {
    this.told = at ?? undefined;
    this.label.hidden = at === null;
    this.put();
  }

  /** Lay the circles where the image lies now; only those in the restored pane are seen. */
  lay(pane, zoom, ratio) {
    const [left, right] = [pane.left / ratio, (pane.left + pane.width) / ratio];
    this.box.style.clipPath = `inset(0 calc(100% - ${right}px) 0 ${left}px)`;
    this.laid = circles(this.wanted.map(({ place }) => place), pane, zoom, ratio);
    this.laid.forEach(({ x, y, radius }, at) => {
      const ring = this.box.children[at];
      for (const circle of ring.children) {
        circle.setAttribute("cx", x);
        circle.setAttribute("cy", y);
        circle.setAttribute("r", radius);
      }
      // one that cannot be seen is not stepped on with the keyboard either
      const seen = x + radius > left && x - radius < right && y + radius > 0 && y - radius < this.box.clientHeight;
      ring.setAttribute("visibility", seen ? "visible" : "hidden");
    });
    this.put();
  }

  put() {
    const at = this.laid?.[this.told];
    if (!at || !this.wanted[this.told]) return;
    this.label.textContent = this.wanted[this.told].words;
    const { clientWidth: width } = this.box;
    const flip = at.x + at.radius + this.label.offsetWidth + 12 > width;
    this.label.style.left = `${flip ? at.x - at.radius - 6 - this.label.offsetWidth : at.x + at.radius + 6}px`;
    this.label.style.top = `${Math.max(4, at.y - this.label.offsetHeight / 2)}px`;
  }
}

/** Draw the same circles into a picture, CSS pixels. */
export function paintMarks(context, laid, pane, ratio, height) {
  context.save();
  context.beginPath();
  context.rect(pane.left / ratio, 0, pane.width / ratio, height);
  context.clip();
  for (const { place, x, y, radius } of laid) {
    for (const [width, colour] of [[3.5, "#000a"], [1.5, MARK_COLOURS[place.sign]]]) {
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke();
    }
  }
  context.restore();
}
