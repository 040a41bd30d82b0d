// The Trust panel: what the check says of the volume that is drawn, and the places that it points at.

import { facts, say } from "./figures.js";
import { limitWords } from "./limits.js";
import { number, percent } from "./words.js";

const byId = (id) => document.getElementById(id);
const DID = { erased: "removed", invented: "invented" };

/** How the volume stands: "" not measured, "no" not to be trusted, "doubt" or "yes". */
export function standing(trust) {
  if (trust.trusted === undefined) return "";
  if (!trust.trusted) return "no";
  return trust.doubts?.length ? "doubt" : "yes";
}

/** What the check says of a volume; of one that went unchecked, what it said last there, with the time point it is `of_time`. */
export function trustOf(said) {
  const own = said?.trust ?? {};
  if (own.trusted !== undefined || !said?.checked) return own;
  return { ...said.checked.trust, of_time: said.checked.time };
}

const WORDS = { "": "not measured yet", no: "✕ do not trust", doubt: "△ agrees, with a doubt", yes: "✓ agrees with the photons" };

/** The places whose figures can be drawn, as { z, y, x, scale_px, score, sign }. */
export function placesOf(trust) {
  return (trust.places ?? []).filter(({ y, x, sign }) => Number.isFinite(y) && Number.isFinite(x) && sign in DID);
}

/** A place in words; planes count from one, as the slider does. */
export function placeWords({ z, y, x, score, sign }, planes) {
  const plane = planes > 1 && Number.isFinite(z) ? `plane ${z + 1}, ` : "";
  const sd = Number.isFinite(score) ? `, ${Math.round(Math.abs(score))}\u00a0sd` : "";
  return `${plane}y\u00a0${y}, x\u00a0${x}: ${DID[sign]}${sd}`;
}

/** The panel; `onGo(place)` is called when a place is chosen. */
export class TrustPanel {
  constructor({ onGo }) {
    this.onGo = onGo;
    this.places = [];
  }

  /** `time`: of the volume that is drawn; `volumes`: how many were restored, and how many of them unchecked. */
  show(trust, { planes, time, limits, volumes }) {
    const stands = standing(trust);
    const left = volumes?.unchecked ?? 0;
    byId("trust-word").dataset.trusted = stands;
    say(byId("trust-word"), `${WORDS[stands]}${left && stands ? `, time\u00a0${trust.of_time ?? time}` : ""}`);
    facts(byId("trust-facts"), [
      ["Checked", left ? `${volumes.restored - left} of ${volumes.restored} volumes, as many as there was time for` : ""],
      ["Disagreeing area", Number.isFinite(trust.raised) ? percent(trust.raised) : ""],
      ["SNR of raw", Number.isFinite(trust.snr) ? number(trust.snr) : ""],
      ["Light", limitWords(trust.snr, limits)],
      ["Spread of residuals", spread(trust.sd_z)],
      ["Would be noticed", smallest(trust.smallest_e)],
      ["Camera noise", { configuration: "from the configuration", estimated: "estimated" }[trust.noise] ?? trust.noise],
    ]);
    this.showNotes(trust);
    this.showPlaces(placesOf(trust), planes);
  }

  showNotes({ doubts = [], notes = [] }) {
    const said = [...doubts.map((words) => ["doubt", words]), ...notes.map((words) => ["note", words])];
    const list = byId("trust-notes");
    list.hidden = !said.length;
    fill(list, said.length, () => document.createElement("li"));
    said.forEach(([kind, words], at) => {
      list.children[at].className = kind;
      say(list.children[at], words);
    });
  }

  showPlaces(places, planes) {
    this.places = places;
    const list = byId("trust-places");
    list.hidden = !places.length;
    fill(list, places.length, (at) => this.entry(at));
    places.forEach((place, at) => {
      const button = list.children[at].firstChild;
      button.dataset.sign = place.sign;
      say(button, placeWords(place, planes));
    });
  }

  entry(at) {
    const entry = document.createElement("li");
    const button = Object.assign(document.createElement("button"), { type: "button", title: "Go to this place" });
    button.addEventListener("click", () => this.onGo(this.places[at]));
    entry.append(button);
    return entry;
  }
}

/** Make a list as long as wanted; what stays is kept, so that the keyboard's focus is. */
function fill(list, length, make) {
  while (list.children.length > length) list.lastChild.remove();
  while (list.children.length < length) list.append(make(list.children.length));
}

function spread(byScale) {
  if (Number.isFinite(byScale)) return `${number(byScale)} (1 is perfect)`;
  const [first] = Object.values(byScale ?? {});
  return Number.isFinite(first) ? `${number(first)} (1 is perfect)` : "";
}

function smallest(byScale) {
  const parts = Object.entries(byScale ?? {}).filter(([, electrons]) => Number.isFinite(electrons));
  return parts.slice(0, 2).map(([scale, electrons]) => `${number(electrons, 2)}\u00a0e⁻ at ${scale}\u00a0px`).join(", ");
}
