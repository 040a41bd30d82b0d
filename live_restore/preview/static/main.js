// The page: takes views as they come, shows them, and says when it can take the next.

import { alertFor } from "./alerts.js";
import { Chart } from "./chart.js";
import { percentiles, sample, SteadyRanges } from "./contrast.js";
import { Controls } from "./controls.js";
import { say, showDose, showLatency, showLedger, showModel, showRates, showRecord } from "./figures.js";
import { keyTable, listenToKeys } from "./keys.js";
import { SnrChart } from "./limits.js";
import { Link } from "./link.js";
import { ReferenceChart } from "./reference_chart.js";
import { Pace } from "./pace.js";
import { compose, save } from "./snapshot.js";
import { Stage } from "./stage.js";
import { placesOf, placeWords, standing, TrustPanel, trustOf } from "./trust.js";
import { atTime, duration, number, percent, whole } from "./words.js";

const byId = (id) => document.getElementById(id);
const THEMES = ["dark", "light", "auto"];
// The restored image is dimmed to this while nobody restores: it is from before.
const DIM = 0.45;
const FIGURES_MS = 200;

class Page {
  constructor() {
    this.state = { server: { state: "connecting" }, link: { state: "seeking" }, heardAt: null, address: "" };
    this.serial = 0;
    this.view = null;
    this.layers = null;
    this.drawnAt = [];
    this.ranges = new SteadyRanges();
    this.pace = new Pace();
    this.controls = new Controls({ onWish: () => this.wishAnew(), onLook: () => this.lookAnew() });
    this.stage = new Stage({ onDivider: () => this.controls.change({ share: this.stage?.share ?? 50 }), onPlace: () => this.wishElsewhere(), onMark: (place) => this.goTo(place) });
    this.trustPanel = new TrustPanel({ onGo: (place) => this.goTo(place) });
    this.stage.setLayout(this.controls.set.layout);
    this.stage.setShare(this.controls.set.share);
    this.charts = {
      snr: new SnrChart(byId("chart-snr"), { title: "SNR of raw", format: (value) => number(value, 3) }),
      raised: new Chart(byId("chart-raised"), { title: "Area that disagrees with raw", format: percent, fromZero: true }),
      latency_ms: new Chart(byId("chart-latency"), { title: "From camera to restored", format: duration, fromZero: true }),
    };
    this.referenceChart = new ReferenceChart(byId("chart-reference"));
    this.listen();
    this.setTheme(localStorage.getItem("live_restore_theme") ?? "dark");
    this.link = new Link({
      onWelcome: (said) => this.welcome(said),
      onStatus: (status) => this.takeStatus(status),
      onView: (header, layers) => this.take(header, layers),
      onLink: (link) => this.setLink(link),
      onServer: (server) => this.setServer(server),
    });
    this.wish();
  }

  listen() {
    byId("snapshot").addEventListener("click", () => this.snapshot());
    byId("fullscreen").addEventListener("click", () => this.fullScreen());
    byId("theme").addEventListener("click", () => this.nextTheme());
    byId("keys").addEventListener("click", () => this.help());
    byId("notice-done").addEventListener("click", () => {
      this.noticed = this.notice;
      this.showAlerts();
    });
    listenToKeys(keyTable({ controls: this.controls, stage: this.stage, page: this }), this.stage);
    // rates that have stopped are seen without a view coming
    setInterval(() => this.tick(), 1000);
  }

  // --- asking ---

  wish() {
    const { set, z } = this.controls;
    this.link.ask({ serial: this.serial, position: set.position, channel: set.channel, z, trust: set.overlay, ...this.stage.window() });
  }

  /** Another part of the same image is wanted; at most once per frame. */
  wishElsewhere() {
    if (this.elsewhere) return;
    this.elsewhere = true;
    setTimeout(() => {
      this.elsewhere = false;
      this.wish();
    }, 60);
  }

  /** Something else is wanted: what was asked for before is no longer shown, however late it comes. */
  wishAnew() {
    this.serial += 1;
    this.wish();
    this.look();
  }

  // --- taking ---

  welcome({ columns, address, software }) {
    this.columns = columns;
    this.state.address = address;
    this.software = software;
    this.showAlerts();
  }

  setServer(server) {
    const back = server.state === "open" && this.state.server.state === "lost";
    this.state.server = server;
    if (server.state === "open") this.state.link = { state: "connecting" };
    this.label();
    if (back) say(byId("polite"), "The preview's server is back.");
    this.showAlerts();
  }

  setLink(link) {
    const back = link.state === "live" && this.state.link.state === "gone";
    this.state.link = link;
    if (back) say(byId("polite"), "The restore process is back.");
    this.label();
    this.showAlerts();
  }

  /** It comes before the first view that it belongs to, and then only where it is new. */
  takeStatus(status) {
    this.status = status;
    this.showFiguresSoon();
  }

  take(header, layers) {
    this.state.heardAt = Date.now() / 1000;
    if (header.serial !== this.serial) return; // the wish that replaced it is under way
    if (!layers.raw || this.isOld(header)) {
      this.showFiguresSoon();
      this.wish();
      return;
    }
    if (!layers.trust && this.holdsTrustFor(header)) layers.trust = this.layers.trust;
    this.view = header;
    this.layers = layers;
    this.shownSerial = header.serial;
    this.state.model = this.modelOf(header.channel);
    this.controls.shown(header.channel, header.planes);
    this.measure();
    this.look();
    this.stage.load(layers, header, () => this.painted());
    this.tellDrawn();
    this.showFiguresSoon();
  }

  isOld(header) {
    const { view } = this;
    return view && view.session === header.session && this.shownSerial === header.serial && (header.number < view.number || (header.number === view.number && sameWindow(header, view)));
  }

  /** Whether the map that is drawn is the last there is of a volume that went unchecked. */
  holdsTrustFor(header) {
    const { view, layers } = this;
    if (!this.controls.set.overlay || !header.said.checked || !layers?.trust) return false;
    const same = ["run", "position", "channel", "z"].every((name) => view[name] === header[name]);
    return same && this.shownSerial === header.serial && sameWindow(view, header);
  }

  painted() {
    this.drawnAt.push(performance.now());
    this.drawnAt = this.drawnAt.slice(-20);
    Object.assign(byId("canvas").dataset, { number: this.view.number, block: this.view.block });
    this.pace.drawn(() => this.wish());
  }

  tick() {
    this.showRates();
    this.showAlerts();
  }

  // --- what the view says ---

  get run() {
    const runs = this.status?.runs ?? [];
    return runs.find((run) => run.run === this.view?.run) ?? runs.at(-1);
  }

  get trust() {
    return trustOf(this.view?.said);
  }

  modelOf(channel) {
    const models = this.status?.models ?? [];
    return models.find((model) => model.channel === channel) ?? models.find((model) => model.channel === "*");
  }

  /** Say what the drawn volume says of itself; all of it at once, in the frame in which its image appears. */
  tellDrawn() {
    const { planes, time, channel } = this.view;
    this.trustPanel.show(this.trust, { planes, time, limits: this.modelOf(channel)?.limits, volumes: this.run?.volumes });
    this.showTimeline();
    this.showRates();
    this.showAlerts();
  }

  /** Show a place that the check points at: its plane, with it in the middle of the restored side. */
  goTo(place) {
    const { view, controls, stage } = this;
    if (view.planes > 1 && Number.isFinite(place.z)) controls.toPlane(place.z);
    stage.bringForward(place);
  }

  measure() {
    this.samples = ["raw", "restored"].filter((name) => this.layers[name]).map((name) => sample(this.layers[name]));
    const key = `${this.view.channel} ${this.view.z < 0 ? "projection" : "plane"}`;
    this.automatic = this.ranges.follow(key, percentiles(this.samples));
  }

  // --- drawing ---

  /** A control was moved. */
  lookAnew() {
    this.look();
    this.showFiguresSoon();
  }

  /** Hand the stage what it needs to draw, and draw. */
  look() {
    const { controls, stage } = this;
    const { set } = controls;
    if (stage.layout !== set.layout) stage.setLayout(set.layout);
    const range = set.auto && this.automatic ? this.automatic : set;
    stage.pixelSize = this.pixelSize();
    stage.settings = {
      low: range.low, high: Math.max(range.high, range.low + 1e-3), gamma: controls.gamma, colours: controls.colourTable(),
      overlay: set.overlay, opacity: set.opacity / 100, marks: this.marks(), dim: this.isStale() ? DIM : 1,
      ...(Number.isFinite(this.trust.threshold) ? { threshold: this.trust.threshold } : {}),
    };
    if (set.auto && this.automatic) Object.assign(set, { low: range.low, high: range.high });
    if (this.samples) controls.showRange(range, this.samples);
    byId("legend").hidden = !(set.overlay && this.layers?.trust) && !stage.settings.marks.length;
    this.label();
    stage.request();
  }

  pixelSize() {
    const size = this.run?.plan?.pixel_size_um;
    return Number.isFinite(size) && size > 0 ? size : null;
  }

  /** The places to mark: those of the plane that is drawn; in the maximum projection, all. */
  marks() {
    const { view, layers } = this;
    if (!this.controls.set.marks || !layers?.restored) return [];
    const here = placesOf(this.trust).filter(({ z }) => view.z < 0 || (z ?? 0) === view.z);
    return here.map((place) => ({ place, words: placeWords(place, view.planes) }));
  }

  isStale() {
    return this.state.link.state === "gone" || this.state.server.state === "lost";
  }

  label() {
    const { view, layers } = this;
    byId("empty").hidden = Boolean(view);
    if (!view) return;
    const [old, stands] = [this.isStale(), standing(this.trust)];
    const since = old ? `, from ${atTime(this.state.link.heard_unix_s ?? this.state.heardAt)}` : "";
    say(byId("label-raw-note"), `the record${since}`);
    say(byId("label-restored-note"), ({ no: "do not trust", doubt: "a prediction, in doubt" }[stands] ?? "a prediction") + since);
    byId("label-restored").dataset.state = stands === "no" || old ? "bad" : stands === "doubt" ? "doubt" : "good";
    byId("slab").hidden = !view.slab;
    say(byId("slab"), view.slab ? `provisional: ${view.slab} of ${view.planes} planes` : "");
    byId("no-restored").hidden = Boolean(layers.restored);
    say(byId("no-restored"), layers.restored ? "" : this.whyNotRestored());
    say(byId("stamp"), this.stamp());
    byId("canvas").setAttribute("aria-label", `Raw and restored image: ${this.stamp()}`);
  }

  whyNotRestored() {
    if (this.view.light === "high") return "A reference at high light; it is not restored";
    return this.state.model ? "Not restored yet" : `No model for channel ${this.view.channel}`;
  }

  stamp() {
    const { time, position, channel, z, planes } = this.view;
    const plane = planes < 2 ? "" : z < 0 ? `, maximum of ${planes} planes` : `, z ${z + 1} of ${planes}`;
    return `${channel}, time ${time}, position ${position}${plane}`;
  }

  /** Figures change a few times a second at most: nobody reads faster, and images come first. */
  showFiguresSoon() {
    this.figuresDue ??= setTimeout(() => {
      this.figuresDue = null;
      this.showFigures();
      if (this.samples) this.controls.drawHistogram(this.stage.settings, this.samples);
    }, this.figuresShown ? FIGURES_MS : 0);
  }

  showFigures() {
    this.figuresShown = true;
    const { run, status } = this;
    this.offer();
    this.showRates();
    showDose(run?.exposure_ms);
    showModel(this.modelOf(this.view?.channel), this.view?.said.provenance ?? {});
    showLatency(run?.latency_ms);
    if (this.columns) {
      showLedger(byId("hook-ledger"), byId("hook-sum"), run?.hook, this.columns.hook);
      showLedger(byId("restore-ledger"), byId("restore-sum"), run?.ledger, this.columns.restore);
    }
    showRecord(run, status);
    this.showTimeline();
    this.showAlerts();
  }

  offer() {
    const { run } = this;
    const seen = (name) => [...new Set((run?.timeline ?? []).map((entry) => entry[name]).filter((word) => word !== undefined))];
    const all = (planned, name) => [...new Set([...(planned ?? []), ...seen(name)])].map(String);
    this.controls.offer(all(run?.plan?.channels, "channel"), all(run?.plan?.positions, "position"));
  }

  /** The lines are the run's history; the figures above them are the drawn volume's own. */
  showTimeline() {
    const { view } = this;
    const { shown, points, references } = this.history();
    const moment = (time) => shown.findLast((entry) => entry.channel === view?.channel && entry.time === time && String(entry.position) === String(view?.position))?.unix_s;
    const at = moment(view?.time);
    const checkedAt = moment(this.trust.of_time ?? view?.time);
    const own = { snr: [this.trust.snr, checkedAt], raised: [this.trust.raised, checkedAt], latency_ms: [view?.said.latency_ms, at] };
    for (const [name, chart] of Object.entries(this.charts)) {
      const [value = NaN, when] = own[name];
      chart.show(points[name], { value, at: when }, this.modelOf(view?.channel)?.limits);
    }
    this.referenceChart.compare(references, at);
  }

  /** The history of the channel and position that are shown; the same objects until the status is another. */
  history() {
    const { status, run, view } = this;
    const { set } = this.controls;
    const of = [run?.run, set.channel || view?.channel, set.position].join("\n");
    if (this.known?.status === status && this.known.of === of) return this.known;
    const wanted = (entry) => entry.channel === (set.channel || view?.channel) && (!set.position || String(entry.position) === set.position);
    const shown = (run?.timeline ?? []).filter(wanted);
    const points = Object.fromEntries(Object.keys(this.charts).map((name) => [name, shown.map((entry) => [entry.unix_s, entry[name]])]));
    this.known = { status, of, shown, points, references: (run?.references ?? []).filter(wanted) };
    return this.known;
  }

  showRates() {
    const recent = this.drawnAt.filter((at) => performance.now() - at < 4000);
    const rate = recent.length > 1 ? (1000 * (recent.length - 1)) / (recent.at(-1) - recent[0]) : 0;
    showRates(this.run, rate, this.state.server.state === "open" && this.state.link.state === "live", this.view?.said.latency_ms);
  }

  showAlerts() {
    Object.assign(this.state, { run: this.run, trust: this.trust });
    const alert = alertFor(this.state);
    const box = byId("alert");
    box.dataset.level = alert?.level ?? "";
    box.hidden = !alert;
    say(byId("alert-title"), alert?.title ?? "");
    say(byId("alert-text"), alert?.text ?? "");
    this.alert = alert;
    this.showNotice();
    this.showPulse();
    document.title = alert?.level === "stop" ? `⚠ ${alert.title}` : "live_restore preview";
    if (this.stage?.settings && this.stage.settings.dim !== (this.isStale() ? DIM : 1)) this.look();
  }

  showNotice() {
    const newest = this.warnings().at(-1) ?? "";
    this.notice = newest.replaceAll(/[\d.,]+/g, "#"); // with other numbers it is the same warning
    byId("notice").hidden = !newest || this.notice === this.noticed;
    say(byId("notice-words"), newest);
    if (this.noticeSaid !== this.notice) say(byId("notice-text"), newest);
    this.noticeSaid = this.notice;
  }

  /** Warnings of the run, but for what the drawn volume itself says of its channel: the run's may be of another volume. */
  warnings() {
    const all = this.run?.warnings ?? [];
    if (!this.view) return all;
    return all.filter((sentence) => !(sentence.includes("do not trust") && sentence.includes(this.view.channel)));
  }

  showPulse() {
    const { server, link } = this.state;
    const state = server.state === "open" ? link.state : server.state;
    const words = { connecting: "Connecting", open: "Live", lost: "No server", seeking: "Waiting", live: "Live", gone: "Gone", failed: "Failed" };
    byId("pulse").dataset.state = state;
    say(byId("pulse-word"), words[state]);
  }

  // --- the page itself ---

  async snapshot() {
    if (!this.view) return;
    const { settings } = this.stage;
    const model = this.modelOf(this.view.channel);
    const sheet = compose(this.stage, {
      raw: `Raw: ${byId("label-raw-note").textContent}`,
      restored: `Restored: ${byId("label-restored-note").textContent} ${byId("slab").textContent}`.trim(),
      alert: this.alert && this.alert.level !== "wait" ? this.alert : null,
      stamp: `${this.view.run}: ${this.stamp()}`,
      model: model ? `${model.model}, ${model.engine}, ${model.precision}, normalisation ${model.normalisation}` : "no model",
      contrast: `${whole(settings.low)} to ${whole(settings.high)} counts, gamma ${settings.gamma.toFixed(2)}, ${this.controls.colour}`,
      overlay: settings.overlay || settings.marks.length ? `orange: invented, blue: erased${settings.marks.length ? "; circles: where to look" : ""}` : "",
    });
    const { run, channel, time } = this.view;
    await save(sheet, `${run}_t${time}_${channel}.png`.replaceAll(/[^\w.-]+/g, "_"));
    say(byId("polite"), "The snapshot is saved.");
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen?.();
  }

  nextTheme() {
    this.setTheme(THEMES[(THEMES.indexOf(this.theme) + 1) % THEMES.length]);
  }

  setTheme(theme) {
    this.theme = THEMES.includes(theme) ? theme : "dark";
    document.documentElement.dataset.theme = this.theme;
    localStorage.setItem("live_restore_theme", this.theme);
    say(byId("theme"), { auto: "Auto", dark: "Dark", light: "Light" }[this.theme]);
    byId("theme").setAttribute("aria-label", `Theme: ${this.theme}`);
  }

  help() {
    byId("keys-dialog").showModal();
  }
}

/** Whether two views show the same part of the image, equally fine. */
function sameWindow(one, other) {
  return one.block === other.block && String(one.region) === String(other.region);
}

new Page();
