// Where the model was found to be of use, as its package says: in words, and as a line in the chart of the SNR.

import { Chart, svg } from "./chart.js";
import { number } from "./words.js";

/** Whether the light suffices, in words; nothing where the model's limits were not measured. */
export function limitWords(snr, limits = {}) {
  if (limits.never_helps) return "this model was found to help at no light";
  if (limits.always_invents) return "this model was found to invent at any light";
  const { snr_low: low, snr_invents: invents, snr_high: high } = limits;
  if (!Number.isFinite(snr) || [low, invents, high].every((limit) => limit === undefined)) return "";
  if (snr < low) return `too little: restoring helps from SNR\u00a0${number(low, 2)}`;
  if (snr < invents) return `too little: below SNR\u00a0${number(invents, 2)} the model invents`;
  if (snr > high) return `more than enough: restoring helps up to SNR\u00a0${number(high, 2)}`;
  const from = Math.max(low ?? 0, invents ?? 0);
  return from ? `enough: restoring helps from SNR\u00a0${number(from, 2)}` : "enough";
}

/** The SNR over time, and the SNR below which the model stops helping, in sight always. */
export class SnrChart extends Chart {
  show(points, drawn, limits = {}) {
    this.limit = Number.isFinite(limits.snr_low) ? limits.snr_low : undefined;
    super.show(points, drawn);
  }

  get extent() {
    const extent = super.extent;
    return this.limit === undefined ? extent : { ...extent, values: [...extent.values, this.limit] };
  }

  draw() {
    super.draw();
    this.svg.querySelector(".limit")?.remove();
    const { clientWidth: width, clientHeight: height } = this.svg;
    if (this.limit === undefined || !this.points.length || !width || !height) return;
    const y = this.scales(width, height).y(this.limit);
    const group = svg("g", { class: "limit" });
    const title = svg("title", {});
    title.textContent = `below an SNR of ${number(this.limit, 2)} this model stops helping`;
    const words = svg("text", { x: 4, y: y > 14 ? y - 3 : y + 10 });
    words.textContent = `helps from ${number(this.limit, 2)}`;
    group.append(title, svg("line", { x1: 0, x2: width, y1: y, y2: y }), words);
    this.svg.append(group);
  }
}
