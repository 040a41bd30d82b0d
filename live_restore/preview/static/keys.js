// The keyboard: one table, which also is the help.

const byId = (id) => document.getElementById(id);

/** Rows of [keys, what they do, act]. */
export function keyTable({ controls, stage, page }) {
  return [
    [["?"], "show these keys", () => page.help()],
    [[",", "."], "z down, z up", (key) => controls.toPlane(controls.set.z + (key === "." ? 1 : -1))],
    [["m"], "maximum projection", () => controls.press("projection")],
    [["c", "C"], "next, previous channel", (key) => controls.nextChannel(key === "c" ? 1 : -1)],
    [["p"], "next position", () => controls.nextPosition()],
    [["l"], "divider or side by side", () => controls.nextLayout()],
    [["1", "2", "3"], "raw alone, half and half, restored alone", (key) => stage.setShare({ 1: 100, 2: 50, 3: 0 }[key])],
    [["[", "]"], "divider left, right", (key) => stage.setShare(stage.share + (key === "]" ? 2 : -2))],
    [["+", "-"], "zoom in, out", (key) => stage.zoomBy(key === "-" ? 0.8 : 1.25)],
    [["0"], "fit the image", () => stage.fit()],
    [["a"], "automatic contrast", () => controls.press("auto")],
    [["t"], "show where raw disagrees", () => controls.press("overlay")],
    [["k"], "marks: circles where to look", () => controls.press("marks-shown")],
    [["s"], "save a snapshot", () => page.snapshot()],
    [["f"], "full screen", () => page.fullScreen()],
    [["d"], "dark or light", () => page.nextTheme()],
  ];
}

const ARROWS = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };

/** Listen for the keys of the table; not while something is typed or chosen. */
export function listenToKeys(rows, stage) {
  fillHelp(rows);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("keys-dialog").open) return;
    if (event.target === stage.canvas && event.key in ARROWS) {
      event.preventDefault();
      stage.pan(...ARROWS[event.key]);
      return;
    }
    if (event.target.closest("select, input[type=text], input[type=number]")) return;
    const key = event.key === "=" ? "+" : event.key;
    const row = rows.find(([keys]) => keys.includes(key));
    if (!row) return;
    event.preventDefault();
    row[2](key);
  });
}

function fillHelp(rows) {
  const list = byId("keys-list");
  const add = (keys, words) => {
    const term = document.createElement("dt");
    keys.forEach((key) => term.append(Object.assign(document.createElement("kbd"), { textContent: key }), " "));
    list.append(term, Object.assign(document.createElement("dd"), { textContent: words }));
  };
  rows.forEach(([keys, words]) => add(keys, words));
  add(["← → ↑ ↓"], "on the image: move it; on the divider or a slider: move that");
  add(["Tab"], "from control to control");
}
