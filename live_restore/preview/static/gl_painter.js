// Draws with WebGL2: whole-number textures as they come from the camera; contrast, colour and trust in the shader.

const VERTEX = `#version 300 es
void main() {
  vec2 corner = vec2(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0);
  gl_Position = vec4(corner, 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
precision highp isampler2D;
uniform usampler2D image;
uniform isampler2D trust;
uniform sampler2D colours;
uniform vec2 size;        // of the region that was sent, raw pixels
uniform vec2 origin;      // where the frame's upper left corner lies in it
uniform float zoom;       // screen pixels per image pixel
uniform float frame;      // height of the frame, screen pixels
uniform vec2 unscale;     // counts = level * x + y
uniform vec2 range;       // black, white
uniform float gamma;
uniform float dim;
uniform int taps;
uniform vec3 overlay;     // on, opacity, z-score where it begins
uniform vec3 invented;
uniform vec3 erased;
out vec4 colour;

void main() {
  vec2 at = origin + vec2(gl_FragCoord.x, frame - gl_FragCoord.y) / zoom;
  if (any(lessThan(at, vec2(0.0))) || any(greaterThanEqual(at, size))) { colour = vec4(0.0157, 0.0157, 0.0196, 1.0); return; }
  ivec2 texels = textureSize(image, 0);
  vec2 finer = vec2(texels) / size;
  vec2 reach = finer / zoom;
  float sum = 0.0;
  for (int j = 0; j < taps; j++) for (int i = 0; i < taps; i++) {
    vec2 aside = taps > 1 ? (vec2(float(i), float(j)) + 0.5) / float(taps) - 0.5 : vec2(0.0);
    sum += float(texelFetch(image, clamp(ivec2(at * finer + aside * reach), ivec2(0), texels - 1), 0).r);
  }
  float counts = sum / float(taps * taps) * unscale.x + unscale.y;
  float level = pow(clamp((counts - range.x) / (range.y - range.x), 0.0, 1.0), gamma);
  vec3 seen = texelFetch(colours, ivec2(int(level * 255.0 + 0.5), 0), 0).rgb * dim;
  if (overlay.x > 0.5) {
    ivec2 cells = textureSize(trust, 0);
    float z = float(texelFetch(trust, clamp(ivec2(at * vec2(cells) / size), ivec2(0), cells - 1), 0).r) / 10.0;
    float strength = smoothstep(overlay.z, overlay.z + 3.0, abs(z)) * overlay.y;
    seen = mix(seen, z < 0.0 ? invented : erased, strength);
  }
  colour = vec4(seen, 1.0);
}`;

const FORMATS = {
  uint8: ["R8UI", "RED_INTEGER", "UNSIGNED_BYTE"],
  uint16: ["R16UI", "RED_INTEGER", "UNSIGNED_SHORT"],
  int8: ["R8I", "RED_INTEGER", "BYTE"],
};
const UNITS = { image: 0, trust: 1, colours: 2 };

/** How many pixels are averaged in either direction, where one takes `size` screen pixels. */
const taps = (size) => (size >= 2 ? 1 : Math.min(4, Math.max(2, Math.ceil(1 / size))));

export class GlPainter {
  /** Throws where WebGL2 is missing. */
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false, powerPreference: "high-performance" });
    if (!this.gl) throw new Error("WebGL2 is missing");
    this.largest = this.gl.getParameter(this.gl.MAX_TEXTURE_SIZE);
    this.name = "WebGL2";
    this.begin();
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.begin();
      if (this.layers) this.load(this.layers, this.region);
      this.onRestored?.();
    });
  }

  begin() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(`the shader is refused: ${gl.getProgramInfoLog(program)}`);
    gl.useProgram(program);
    gl.bindVertexArray(gl.createVertexArray());
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    this.at = new Proxy({}, { get: (known, name) => (known[name] ??= gl.getUniformLocation(program, name)) });
    for (const [name, unit] of Object.entries(UNITS)) gl.uniform1i(this.at[name], unit);
    this.textures = {};
    this.colours = null;
    this.texture("none", { pixels: new Int8Array(1), width: 1, height: 1, dtype: "int8" });
  }

  /** Whether images of this size can be drawn. */
  fits(layers) {
    return Object.values(layers).every((layer) => Math.max(layer.width, layer.height) <= this.largest);
  }

  /** Take new pixels; what is absent is no longer drawn. */
  load(layers, region) {
    this.layers = layers;
    this.region = region;
    for (const [name, layer] of Object.entries(layers)) this.texture(name, layer);
  }

  texture(name, layer) {
    const { gl } = this;
    const [inner, format, type] = FORMATS[layer.dtype];
    const shape = `${layer.width}x${layer.height} ${layer.dtype}`;
    let held = this.textures[name];
    gl.activeTexture(gl.TEXTURE3);
    if (held?.shape !== shape) {
      if (held) gl.deleteTexture(held.texture);
      held = { texture: gl.createTexture(), shape };
      this.textures[name] = held;
      gl.bindTexture(gl.TEXTURE_2D, held.texture);
      gl.texStorage2D(gl.TEXTURE_2D, 1, gl[inner], layer.width, layer.height);
      for (const side of ["MIN", "MAG"]) gl.texParameteri(gl.TEXTURE_2D, gl[`TEXTURE_${side}_FILTER`], gl.NEAREST);
    }
    gl.bindTexture(gl.TEXTURE_2D, held.texture);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, layer.width, layer.height, gl[format], gl[type], layer.pixels);
  }

  /** Draw a scene, see stage.js. */
  draw(scene) {
    const { gl, at } = this;
    if (gl.isContextLost()) return;
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.disable(gl.SCISSOR_TEST);
    gl.clearColor(0.0157, 0.0157, 0.0196, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (!this.layers?.raw) return;
    this.paintColours(scene.colours);
    gl.enable(gl.SCISSOR_TEST);
    gl.uniform2f(at.size, this.region.width, this.region.height);
    gl.uniform1f(at.frame, this.canvas.height);
    gl.uniform2f(at.range, scene.low, scene.high);
    gl.uniform1f(at.gamma, scene.gamma);
    gl.uniform3fv(at.invented, scene.invented);
    gl.uniform3fv(at.erased, scene.erased);
    for (const pane of scene.panes) this.paint(pane, scene);
  }

  paint(pane, scene) {
    const { gl, at } = this;
    const layer = this.layers[pane.layer];
    if (!layer || pane.width <= 0) return;
    gl.scissor(pane.left, 0, pane.width, this.canvas.height);
    this.bind("image", pane.layer);
    const marked = pane.layer === "restored" && scene.overlay && this.layers.trust;
    this.bind("trust", marked ? "trust" : "none");
    gl.uniform2f(at.origin, pane.x - this.region.x - pane.shift / scene.zoom, pane.y - this.region.y);
    gl.uniform1f(at.zoom, scene.zoom);
    gl.uniform2f(at.unscale, layer.step, layer.offset);
    gl.uniform1f(at.dim, pane.dim);
    gl.uniform1i(at.taps, taps((scene.zoom * this.region.width) / layer.width));
    gl.uniform3f(at.overlay, marked ? 1 : 0, scene.opacity, scene.threshold);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  bind(unit, name) {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE0 + UNITS[unit]);
    gl.bindTexture(gl.TEXTURE_2D, this.textures[name].texture);
  }

  paintColours(bytes) {
    if (this.colours === bytes) return;
    const { gl } = this;
    this.colours = bytes;
    this.textures.colours ??= { texture: gl.createTexture() };
    this.bind("colours", "colours");
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
    for (const side of ["MIN", "MAG"]) gl.texParameteri(gl.TEXTURE_2D, gl[`TEXTURE_${side}_FILTER`], gl.NEAREST);
  }
}
