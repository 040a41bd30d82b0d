// What must be said plainly: from the state of things to at most one alert and one notice. Pure.

import { atTime } from "./words.js";

const RAW_GOES_ON = "Raw goes on being shown; the acquisition saves it whatever happens here.";

/** Words as a sentence. */
const sentence = (words) => (words ? `${words[0].toUpperCase()}${words.slice(1).replace(/[.;\s]+$/, "")}.` : "");

/** The gravest thing, as { level: "stop" | "doubt" | "wait", title, text }, or null; `trust` is of the volume that is drawn. */
export function alertFor(state) {
  return lineAlert(state) ?? failedModel(state) ?? distrust(state) ?? doubt(state) ?? silentRun(state);
}

function lineAlert({ server, link, heardAt, address }) {
  const since = heardAt ? `What is shown is from ${atTime(heardAt)}.` : "";
  if (server.state === "lost") {
    const why = server.why || "It is being looked for and will be taken up again by itself.";
    return { level: "stop", title: "The preview's server is gone", text: `${why} ${since} The acquisition is not touched by this.` };
  }
  if (link.state === "failed") return { level: "stop", title: "The restore process cannot be asked", text: sentence(link.why) };
  if (link.state === "gone") {
    return {
      level: "stop",
      title: `The restore process is gone since ${atTime(link.heard_unix_s)}`,
      text: "The last images stay on the screen, raw and restored. The acquisition saves raw whatever happens here. The preview goes on by itself as soon as the process is back.",
    };
  }
  if (server.state === "open" && link.state === "seeking") {
    return { level: "wait", title: "Waiting for the restore process", text: `Nobody answers at ${address} yet; start it with: live-restore serve` };
  }
  return null;
}

function failedModel({ model }) {
  if (model?.state !== "failed") return null;
  return { level: "stop", title: `Nothing is restored: the model ${model.model} failed`, text: `${sentence(model.why)} ${RAW_GOES_ON}` };
}

function distrust({ trust }) {
  if (trust?.trusted !== false) return null;
  return { level: "stop", title: "Do not trust the restored image", text: `${sentence(trust.why) || "It disagrees with the photons in raw."} ${RAW_GOES_ON}` };
}

function doubt({ trust }) {
  const [first, ...others] = trust?.doubts ?? [];
  if (!first) return null;
  return { level: "doubt", title: "Look twice at the restored image", text: `${sentence(first)}${others.length ? ` And ${others.length} more under Trust.` : ""}` };
}

function silentRun({ run }) {
  if (run?.state !== "silent") return null;
  return { level: "wait", title: "The acquisition is silent", text: "No frame and no sign of life came from Micro-Manager for a while." };
}
