// Draws without a graphics card, where WebGL2 is missing or the image is larger than it can hold.
// Only what is on the screen is computed, so its cost does not grow with the camera.

const LEVELS = 1024;
const BACKGROUND = 0xff050404;

export class PlainPainter {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.name = "without WebGL2";
  }

  fits() {
    return true;
  }

  load(layers, region) {
    this.layers = layers;
    this.region = region;
  }

  draw(scene) {
    const { width, height } = this.canvas;
    if (!width || !height) return;
    if (this.image?.width !== width || this.image?.height !== height) {
      this.image = this.context.createImageData(width, height);
      this.words = new Uint32Array(this.image.data.buffer);
    }
    this.words.fill(BACKGROUND);
    if (this.layers?.raw) for (const pane of scene.panes) this.paint(pane, scene);
    this.context.putImageData(this.image, 0, 0);
  }

  paint(pane, scene) {
    const layer = this.layers[pane.layer];
    if (!layer) return;
    const { region } = this;
    const [finerX, finerY] = [layer.width / region.width, layer.height / region.height];
    const colours = shades(scene, pane.dim);
    const scale = (LEVELS - 1) / (scene.high - scene.low);
    const columns = this.columns(pane, scene, finerX);
    const marked = pane.layer === "restored" && scene.overlay ? this.layers.trust : null;
    const pixel = scene.zoom / finerX; // screen pixels that one of the layer takes
    const spread = pixel < 1 ? 1 : 0; // averages two by two where pixels are left out
    for (let row = 0; row < this.canvas.height; row += 1) {
      const y = pane.y + (row + 0.5) / scene.zoom - region.y;
      if (y < 0 || y >= region.height) continue;
      const first = Math.floor(y * finerY) * layer.width;
      const second = Math.min(layer.height - 1, Math.floor((y + (spread * 0.5) / scene.zoom) * finerY)) * layer.width;
      const aside = Math.max(1, Math.floor(0.5 / pixel)) * spread;
      for (let column = 0; column < columns.length; column += 1) {
        const x = columns[column];
        if (x < 0) continue;
        const next = Math.min(layer.width - 1, x + aside);
        const level = spread
          ? (layer.pixels[first + x] + layer.pixels[first + next] + layer.pixels[second + x] + layer.pixels[second + next]) / 4
          : layer.pixels[first + x];
        const shade = Math.round((level * layer.step + layer.offset - scene.low) * scale);
        let word = colours[shade < 0 ? 0 : shade >= LEVELS ? LEVELS - 1 : shade];
        if (marked) word = this.mark(word, marked, x / layer.width, y / region.height, scene);
        this.words[row * this.canvas.width + pane.left + column] = word;
      }
    }
  }

  /** The image column of every screen column of a pane; -1 outside. */
  columns(pane, scene, finer) {
    const { region } = this;
    const places = new Int32Array(pane.width);
    for (let column = 0; column < pane.width; column += 1) {
      const x = pane.x + (pane.left + column + 0.5 - pane.shift) / scene.zoom - region.x;
      places[column] = x < 0 || x >= region.width ? -1 : Math.min(Math.floor(x * finer), Math.round(region.width * finer) - 1);
    }
    return places;
  }

  mark(word, trust, x, y, scene) {
    const z = trust.pixels[Math.floor(y * trust.height) * trust.width + Math.floor(x * trust.width)] / 10;
    const t = Math.min(1, Math.max(0, (Math.abs(z) - scene.threshold) / 3));
    if (t === 0) return word;
    const strength = t * t * (3 - 2 * t) * scene.opacity;
    const colour = z < 0 ? scene.invented : scene.erased;
    const mixed = colour.map((part, place) => ((word >> (8 * place)) & 255) * (1 - strength) + 255 * part * strength);
    return ((255 << 24) | (mixed[2] << 16) | (mixed[1] << 8) | mixed[0]) >>> 0;
  }
}

/** Colours of all levels between black and white, gamma applied, as 32-bit words. */
function shades(scene, dim) {
  const words = new Uint32Array(LEVELS);
  for (let level = 0; level < LEVELS; level += 1) {
    const at = 4 * Math.round(255 * (level / (LEVELS - 1)) ** scene.gamma);
    const [red, green, blue] = [0, 1, 2].map((part) => scene.colours[at + part] * dim);
    words[level] = ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  }
  return words;
}
