// How often the page draws: as often as it can, but where it shares few cores with what restores, not all of the time.

// A browser that needs longer for a frame draws without a graphics card, on the processor that also restores.
const SLOW_MS = 40;
const FEW_CORES = 4;
const LONGEST_MS = 500;
// It then draws a third of the time.
const REST = 2;

/** How long to wait before the next view is asked for, after a frame that took the browser so long. */
export function restAfter(frameMs, cores = navigator.hardwareConcurrency ?? FEW_CORES + 1) {
  return cores > FEW_CORES || !(frameMs > SLOW_MS) ? 0 : Math.min(LONGEST_MS, REST * frameMs);
}

/** Measures how long the browser takes for a frame: from the drawing of one to when it could draw the next. */
export class Pace {
  constructor() {
    this.frameMs = 0;
  }

  /** A frame was drawn; `ask` is called when the next view may be asked for. */
  drawn(ask) {
    const began = performance.now();
    if (!document.hidden) requestAnimationFrame(() => (this.frameMs = performance.now() - began));
    const rest = document.hidden ? 0 : restAfter(this.frameMs);
    if (rest) setTimeout(ask, rest);
    else ask();
  }
}
