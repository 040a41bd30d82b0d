// Colour maps: 256 colours from black to bright, as RGBA bytes.

const STOPS = {
  grey: ["#000000", "#ffffff"],
  green: ["#000000", "#00ff4c"],
  magenta: ["#000000", "#ff2bff"],
  cyan: ["#000000", "#00f0ff"],
  yellow: ["#000000", "#ffe800"],
  red: ["#000000", "#ff3b30"],
  viridis: ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"],
  inferno: ["#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4"],
  "inverted grey": ["#ffffff", "#000000"],
};

export const COLOURS = Object.keys(STOPS);

// What dyes are usually shown in; who wants another takes another.
const BY_NAME = [
  [/dapi|hoechst|405|nuc/i, "cyan"],
  [/gfp|fitc|488|alexa ?fluor ?488/i, "green"],
  [/rfp|rhodamine|cherry|tritc|cy3|561|mito/i, "magenta"],
];

/** The colour that a channel begins with. */
export function usualColour(channel) {
  return BY_NAME.find(([pattern]) => pattern.test(channel ?? ""))?.[1] ?? "grey";
}

/** 256 RGBA colours, Uint8Array of 1024. */
export function table(name) {
  const stops = (STOPS[name] ?? STOPS.grey).map(rgb);
  const bytes = new Uint8Array(1024);
  for (let level = 0; level < 256; level += 1) {
    const place = (level / 255) * (stops.length - 1);
    const first = Math.min(Math.floor(place), stops.length - 2);
    for (let part = 0; part < 3; part += 1) {
      bytes[4 * level + part] = stops[first][part] + (place - first) * (stops[first + 1][part] - stops[first][part]);
    }
    bytes[4 * level + 3] = 255;
  }
  return bytes;
}

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}
