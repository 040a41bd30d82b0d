// A PNG of what is seen, with its labels: nobody should have to guess later what was raw and what was a prediction.

import { paintMarks } from "./marks.js";

const CAPTION = 76;

/** Compose the picture: the frame as drawn, labels over it, a caption below. */
export function compose(stage, words) {
  const { canvas, ratio } = stage;
  const sheet = document.createElement("canvas");
  sheet.width = canvas.width;
  sheet.height = canvas.height + CAPTION * ratio;
  const context = sheet.getContext("2d");
  context.fillStyle = "#0a0b0d";
  context.fillRect(0, 0, sheet.width, sheet.height);
  stage.draw(); // WebGL keeps its picture only until the browser has shown it
  context.drawImage(canvas, 0, 0);
  context.scale(ratio, ratio);
  const [width, height] = [canvas.width / ratio, canvas.height / ratio];
  paintMarks(context, stage.marks.laid, stage.panes()[1], ratio, height);
  drawDivider(context, stage, width, height);
  drawLabels(context, stage, words, width, height);
  drawCaption(context, words, height, width);
  return sheet;
}

function drawDivider(context, stage, width, height) {
  if (stage.layout !== "divide") return;
  context.fillStyle = "#f2f3f4a0";
  context.fillRect((stage.share / 100) * width - 0.5, 0, 1, height);
}

function write(context, text, x, y, { size = 13, weight = 400, colour = "#e6e8ea", align = "left" } = {}) {
  context.font = `${weight} ${size}px Inter, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif`;
  context.textAlign = align;
  context.fillStyle = colour;
  context.fillText(text, x, y);
}

function drawLabels(context, stage, words, width, height) {
  context.shadowColor = "#000";
  context.shadowBlur = 5;
  write(context, words.raw, 16, 28, { size: 16, weight: 650 });
  const beside = stage.layout === "beside";
  write(context, words.restored, beside ? width / 2 + 16 : width - 16, 28, { size: 16, weight: 650, align: beside ? "left" : "right" });
  if (words.alert) write(context, words.alert.title, width / 2, 60, { size: 16, weight: 650, colour: words.alert.level === "stop" ? "#ff9b85" : "#ffd27a", align: "center" });
  const bar = stage.scaleBar();
  context.fillStyle = "#f2f3f4";
  context.fillRect(16, height - 20, bar.pixels / stage.ratio, 4);
  write(context, bar.words, 26 + bar.pixels / stage.ratio, height - 14);
  context.shadowBlur = 0;
}

function drawCaption(context, words, height, width) {
  write(context, "Raw is the record; restored is a prediction.", 16, height + 24, { weight: 650 });
  write(context, words.stamp, width - 16, height + 24, { align: "right" });
  write(context, words.model, 16, height + 44, { colour: "#9aa0a8" });
  write(context, words.contrast, 16, height + 64, { colour: "#9aa0a8" });
  if (words.overlay) write(context, words.overlay, width - 16, height + 64, { colour: "#9aa0a8", align: "right" });
}

/** Save a canvas under a name. */
export function save(sheet, name) {
  return new Promise((saved) => {
    sheet.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      saved();
    }, "image/png");
  });
}
