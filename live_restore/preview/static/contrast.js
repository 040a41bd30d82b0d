// Which counts are black and which are white: from what is shown, and steady.

const SAMPLES = 12000;
const LOW_SHARE = 0.01;
const HIGH_SHARE = 0.998;
// The range stays until it is off by this share of its width, and then glides.
const DEAD_BAND = 0.08;
const ARRIVED = 0.02;
const GLIDE = 0.3;

/** Some pixels of a layer in counts, sorted; a stride that shares no factor with the width runs through all columns. */
export function sample(layer) {
  const stride = Math.max(1, Math.floor(layer.pixels.length / SAMPLES)) | 1;
  const counts = new Float32Array(Math.ceil(layer.pixels.length / stride));
  for (let from = 0, to = 0; from < layer.pixels.length; from += stride, to += 1) {
    counts[to] = layer.pixels[from] * layer.step + layer.offset;
  }
  return counts.sort();
}

function share(sorted, part) {
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))];
}

/** Black and white for sorted samples of all that is shown: the darkest hundredth to the brightest five hundredth of either. */
export function percentiles(samples) {
  const low = Math.min(...samples.map((sorted) => share(sorted, LOW_SHARE)));
  const high = Math.max(...samples.map((sorted) => share(sorted, HIGH_SHARE)));
  return { low, high: Math.max(high, low + 1) };
}

/** Automatic ranges, one per channel and kind of view; they follow slowly, so that the picture does not flicker. */
export class SteadyRanges {
  constructor() {
    this.ranges = new Map();
  }

  follow(key, wanted) {
    const range = this.ranges.get(key);
    if (!range) {
      this.ranges.set(key, { ...wanted, gliding: false });
      return wanted;
    }
    const width = range.high - range.low;
    const off = Math.max(Math.abs(wanted.low - range.low), Math.abs(wanted.high - range.high)) / width;
    if (!range.gliding && off < DEAD_BAND) return range;
    range.gliding = off > ARRIVED;
    const step = off > 1 ? 1 : GLIDE;
    range.low += step * (wanted.low - range.low);
    range.high += step * (wanted.high - range.high);
    return range;
  }
}

/** Heights of a histogram, 0 to 1, on a square-root scale. */
export function histogram(sorted, low, high, bins) {
  const counts = new Array(bins).fill(0);
  for (const value of sorted) {
    const bin = Math.floor(((value - low) / (high - low)) * bins);
    if (bin >= 0 && bin < bins) counts[bin] += 1;
  }
  const most = Math.sqrt(Math.max(1, ...counts));
  return counts.map((count) => Math.sqrt(count) / most);
}
