// Numbers and times as people read them.

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const whole = (value) => plain.format(value);

/** About three digits. */
export function number(value, digits = 3) {
  if (!Number.isFinite(value)) return "–";
  if (Math.abs(value) >= 1000) return whole(value);
  return String(Number(value.toPrecision(digits)));
}

/** A fraction as percent. */
export function percent(share) {
  if (!Number.isFinite(share)) return "–";
  const value = 100 * share;
  if (value > 0 && value < 0.01) return "<\u00a00.01\u00a0%";
  return `${value >= 10 ? Math.round(value) : Number(value.toPrecision(2))}\u00a0%`;
}

/** Milliseconds, with seconds where they are many. */
export function duration(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms >= 10000) return `${(ms / 1000).toFixed(ms >= 100000 ? 0 : 1)}\u00a0s`;
  return `${ms >= 100 ? whole(ms) : number(ms, 2)}\u00a0ms`;
}

export const atTime = (unixSeconds) => clock.format(new Date(1000 * unixSeconds));

/** A frame rate: one digit behind the point while it is small. */
export const rate = (value) => (Number.isFinite(value) ? value.toFixed(value < 100 ? 1 : 0) : "–");
