// The figures beside the images: rates, light saved, model, latency, ledger, record.

import { duration, number, rate, whole } from "./words.js";

const STAGES = ["wire", "assemble", "queue", "restore", "trust", "write", "total"];
const NORMALISATION = {
  frozen: "frozen: the range measured at training",
  rolling: "rolling: follows slowly",
  volume: "volume: each by its own percentiles",
};

const byId = (id) => document.getElementById(id);

/** Write only what changed, so that nothing flickers and no reader is disturbed. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Fill a list of terms; `pairs` are [term, words], those without words are left out. */
export function facts(list, pairs) {
  const kept = pairs.filter(([, words]) => words !== "" && words !== null && words !== undefined);
  while (list.children.length > 2 * kept.length) list.lastChild.remove();
  kept.forEach(([term, words], at) => {
    if (!list.children[2 * at]) list.append(document.createElement("dt"), document.createElement("dd"));
    say(list.children[2 * at], term);
    say(list.children[2 * at + 1], String(words));
  });
}

/** Fill a table body; every row is { head, cells, title, kind }. */
function rows(body, wanted) {
  while (body.rows.length > wanted.length) body.deleteRow(-1);
  wanted.forEach(({ head, cells, title = "", kind = "" }, at) => {
    let row = body.rows[at];
    if (!row) {
      row = body.insertRow();
      const first = document.createElement("th");
      first.scope = "row";
      row.append(first, ...cells.map(() => document.createElement("td")));
    }
    row.className = kind;
    row.title = title;
    say(row.cells[0], head);
    cells.forEach((words, column) => say(row.cells[column + 1], words));
  });
}

/** `live`: whether what the run says is of now; `latencyMs`: of the volume that is drawn. */
export function showRates(run, viewsPerSecond, live, latencyMs) {
  say(byId("frames-per-s"), rate(live ? run?.frames_per_s : NaN));
  say(byId("volumes-per-s"), rate(live ? run?.volumes_per_s : NaN));
  say(byId("total-latency"), duration(latencyMs));
  say(byId("views-per-s"), rate(viewsPerSecond));
  say(byId("run-name"), run ? `${run.run}${run.state === "ended" ? ", ended" : ""}` : "");
}

/** How much light was saved: sums over channels, where a reference exposure is known. */
export function showDose(exposures) {
  const known = Object.values(exposures ?? {}).filter((channel) => Number.isFinite(channel.low_ms));
  const low = known.reduce((sum, channel) => sum + channel.low_ms, 0);
  const complete = known.length > 0 && known.every((channel) => channel.reference_ms > 0);
  const reference = known.reduce((sum, channel) => sum + (channel.reference_ms ?? 0), 0);
  if (!known.length) {
    say(byId("dose-saved"), "–");
    say(byId("dose-words"), "no exposures known yet");
    say(byId("light-saved"), "–");
  } else if (!complete) {
    say(byId("dose-saved"), seconds(low));
    say(byId("dose-words"), "of exposure so far; what it would have been at high light is not known");
    say(byId("light-saved"), "–");
  } else {
    say(byId("dose-saved"), `${share(1 - low / reference)} %`);
    say(byId("light-saved"), `${share(1 - low / reference)} %`);
    say(byId("dose-words"), `${seconds(low)} of exposure instead of ${seconds(reference)}`);
  }
}

const seconds = (ms) => `${ms >= 100000 ? whole(ms / 1000) : number(ms / 1000)}\u00a0s`;

/** Percent, never rounded up to a hundred. */
function share(saved) {
  return saved > 0.99 ? (Math.floor(1000 * saved) / 10).toFixed(1) : Math.round(100 * saved);
}

export function showModel(model, provenance) {
  facts(byId("model-facts"), [
    ["Model", model?.model ?? provenance.model ?? "none for this channel"],
    ["Engine", engineName(model?.engine ?? provenance.engine)],
    ["Precision", [model?.precision ?? provenance.precision, model?.certified].filter(Boolean).join(": ")],
    ["Normalisation", NORMALISATION[model?.normalisation] ?? model?.normalisation],
    ["State", model && model.state !== "ready" ? `${model.state}${model.why ? `: ${model.why}` : ""}` : ""],
    ["Fingerprint", model?.sha256?.slice(0, 12)],
  ]);
  showCertificate(model);
}

/** How far the engine is from float32, measured: in short beside the precision, all of it on a click. */
function showCertificate(model) {
  const figures = model?.certificate ?? [];
  const box = byId("certificate-box");
  box.hidden = !figures.length;
  box.dataset.beyond = model?.beyond ? "yes" : "no";
  box.title = figures.map(([what, words]) => `${what}: ${words}`).join("\n");
  facts(byId("certificate"), [...figures, ["beyond", model?.beyond ?? ""]]);
}

const engineName = (engine) => (typeof engine === "string" ? engine : engine?.name);

export function showLatency(latency) {
  const known = Object.keys(latency ?? {});
  const order = [...STAGES.filter((stage) => known.includes(stage)), ...known.filter((stage) => !STAGES.includes(stage))];
  const digits = (value) => (Number.isFinite(value) ? (value >= 100 ? whole(value) : value.toFixed(1)) : "–");
  rows(
    byId("latency"),
    (order.length ? order : STAGES).map((stage) => ({
      head: stage,
      cells: ["p50", "p95", "p99"].map((part) => digits(latency?.[stage]?.[part])),
      kind: stage === "total" ? "total" : "",
    })),
  );
}

export function showLedger(body, sum, counts, columns) {
  const ends = Object.keys(columns);
  const known = Number.isFinite(counts?.taken);
  const total = ends.reduce((all, name) => all + (counts?.[name] ?? 0), counts?.waiting ?? 0);
  const balanced = known && total === counts.taken;
  sum.dataset.balanced = known && !balanced ? "no" : "yes";
  say(sum, !known ? "" : balanced ? "✓ adds up" : `✕ ${whole(Math.abs(counts.taken - total))} unaccounted for`);
  const all = [["taken", "frames taken"], ["waiting", "under way"], ...ends.map((name) => [name, columns[name]])];
  rows(
    body,
    all.map(([name, words]) => ({
      head: words,
      cells: [known ? whole(counts[name] ?? 0) : "–"],
      title: name,
      kind: name === "taken" ? "" : counts?.[name] ? "" : "zero",
    })),
  );
}

export function showRecord(run, status) {
  const volumes = Object.entries(run?.volumes ?? {}).map(([end, count]) => `${whole(count)} ${end.replaceAll("_", " ")}`);
  facts(byId("record-facts"), [
    ["Raw", run?.raw ?? ""],
    ["Restored", run?.folder ?? ""],
    ["Volumes", volumes.join(", ")],
    ["Disk free", Number.isFinite(run?.bytes_free) ? `${number(run.bytes_free / 1e9)} GB` : ""],
    ["Process", status?.server ? `${status.server.software ?? "live_restore"}, pid ${status.server.pid}, ${status.server.address}` : ""],
  ]);
  say(byId("raw-path"), run?.raw ? `Raw: ${run.raw}` : "");
  showWarnings(run?.warnings ?? []);
}

function showWarnings(warnings) {
  byId("warnings-box").hidden = !warnings.length;
  say(byId("warnings-count"), `(${warnings.length})`);
  const list = byId("warnings");
  const newest = warnings.slice(-50).reverse();
  while (list.children.length > newest.length) list.lastChild.remove();
  newest.forEach((sentence, at) => {
    if (!list.children[at]) list.append(document.createElement("li"));
    say(list.children[at], sentence);
  });
}
