/** Draws the stage: the picture, the masks over it, the prompts, and what a tool is doing. */

const SMOOTH_BELOW = 4; // from this zoom on outlines follow the edges of pixels exactly

/** @typedef {{path: Path2D, colour: string, selected: boolean, scale: number}} Shape */
/** @typedef {{prompt: import("../types.js").Prompt, colour: string, selected: boolean, sending: boolean}} Shown */
/** @typedef {{x: number, y: number}} Spot */
/**
 * @typedef {{bitmap: ImageBitmap | null, shapes: Shape[], prompts: Shown[], style: import("../types.js").OverlayStyle,
 *   opacity: number, colour: string, box: import("../types.js").Box | null,
 *   stroke: import("../masks/brush.js").Stroke | null, brush: (Spot & {radius: number, erase: boolean}) | null,
 *   backdrop: string}} Scene
 */

export { SMOOTH_BELOW };

/** A second canvas, for what is cut out of a layer. */
const layer = new OffscreenCanvas(1, 1);

/**
 * @param {CanvasRenderingContext2D} context
 * @param {import("./view.js").View} view
 * @param {number} ratio Device pixels for a CSS pixel.
 * @param {Scene} scene
 */
export function drawScene(context, view, ratio, scene) {
  const { canvas } = context;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  const place = () =>
    context.setTransform(view.scale * ratio, 0, 0, view.scale * ratio, view.x * ratio, view.y * ratio);
  place();
  context.imageSmoothingEnabled = view.scale < 3;
  context.imageSmoothingQuality = "high";
  if (scene.bitmap) context.drawImage(scene.bitmap, 0, 0, view.width, view.height);
  else {
    context.fillStyle = scene.backdrop;
    context.fillRect(0, 0, view.width, view.height);
  }
  if (scene.style === "cutout" || scene.style === "matte") drawBackground(context, view, ratio, scene);
  else drawMasks(context, view, scene);
  place();
  const pixel = 1 / view.scale;
  if (scene.stroke) drawStroke(context, scene);
  if (scene.box) drawBox(context, scene.box, scene.colour, pixel, true);
  for (const shown of scene.prompts) drawPrompt(context, shown, pixel);
  if (scene.brush) drawBrush(context, scene.brush, pixel);
}

/** @param {CanvasRenderingContext2D} context @param {import("./view.js").View} view @param {Scene} scene */
function drawMasks(context, view, { shapes, style, opacity }) {
  context.lineJoin = "round";
  for (const { path, colour, selected, scale } of shapes) {
    context.save();
    context.scale(scale, scale);
    context.fillStyle = context.strokeStyle = colour;
    if (style === "fill") {
      context.globalAlpha = opacity;
      context.fill(path, "evenodd");
    }
    const width = (style === "outline" ? 2 : 1.5) + (selected ? 0.5 : 0);
    context.globalAlpha = style === "outline" ? Math.max(0.4, opacity * 1.6) : Math.min(1, 0.35 + opacity);
    if (style === "outline") {
      // A dark line under it tells it from a picture of its own colour.
      context.strokeStyle = "rgb(0 0 0 / 45%)";
      context.lineWidth = (width + 2) / view.scale / scale;
      context.stroke(path);
      context.strokeStyle = colour;
    }
    context.lineWidth = width / view.scale / scale;
    context.stroke(path);
    context.restore();
  }
}

/** Cut-out and matte: all but the objects is covered. @param {CanvasRenderingContext2D} context @param {import("./view.js").View} view @param {number} ratio @param {Scene} scene */
function drawBackground(context, view, ratio, { shapes, style, opacity }) {
  const { canvas } = context;
  if (layer.width !== canvas.width || layer.height !== canvas.height) {
    layer.width = canvas.width;
    layer.height = canvas.height;
  }
  const over = /** @type {OffscreenCanvasRenderingContext2D} */ (layer.getContext("2d"));
  over.setTransform(1, 0, 0, 1, 0, 0);
  over.globalCompositeOperation = "source-over";
  over.clearRect(0, 0, layer.width, layer.height);
  over.setTransform(view.scale * ratio, 0, 0, view.scale * ratio, view.x * ratio, view.y * ratio);
  over.fillStyle = style === "matte" ? "#000" : `rgb(12 13 15 / ${0.5 + opacity / 2})`;
  // A little more than the picture, so that no line of it shines through at its edges.
  const edge = 0.5 / view.scale;
  over.fillRect(-edge, -edge, view.width + 2 * edge, view.height + 2 * edge);
  over.globalCompositeOperation = style === "matte" ? "source-over" : "destination-out";
  over.fillStyle = "#fff";
  for (const { path, scale } of shapes) {
    over.save();
    over.scale(scale, scale);
    over.fill(path, "evenodd");
    over.restore();
  }
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.drawImage(layer, 0, 0);
}

/** @param {CanvasRenderingContext2D} context @param {Shown} shown @param {number} pixel The size of a screen pixel. */
function drawPrompt(context, { prompt, colour, selected, sending }, pixel) {
  context.globalAlpha = selected ? 1 : 0.45;
  if (prompt.box) drawBox(context, prompt.box, colour, pixel, sending);
  for (const [x, y, label] of prompt.points) {
    const radius = (selected ? 7 : 5) * pixel;
    if (sending) {
      context.beginPath();
      context.arc(x, y, radius * 1.7, 0, 2 * Math.PI);
      context.strokeStyle = "rgb(255 255 255 / 70%)";
      context.lineWidth = 1.5 * pixel;
      context.stroke();
    }
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = label ? "#16a34a" : "#dc2626";
    context.shadowColor = "rgb(0 0 0 / 50%)";
    context.shadowBlur = 4;
    context.fill();
    context.shadowBlur = 0;
    context.strokeStyle = "#fff";
    context.lineWidth = 1.5 * pixel;
    context.stroke();
    const arm = radius * 0.5;
    context.beginPath();
    context.moveTo(x - arm, y);
    context.lineTo(x + arm, y);
    if (label) {
      context.moveTo(x, y - arm);
      context.lineTo(x, y + arm);
    }
    context.stroke();
  }
  context.globalAlpha = 1;
}

/** @param {CanvasRenderingContext2D} context @param {import("../types.js").Box} box @param {string} colour @param {number} pixel @param {boolean} dashed */
function drawBox(context, [left, top, right, bottom], colour, pixel, dashed) {
  context.setLineDash([]);
  context.lineWidth = 3.5 * pixel;
  context.strokeStyle = "rgb(0 0 0 / 40%)";
  context.strokeRect(left, top, right - left, bottom - top);
  context.lineWidth = 1.5 * pixel;
  context.strokeStyle = colour;
  if (dashed) context.setLineDash([6 * pixel, 4 * pixel]);
  context.strokeRect(left, top, right - left, bottom - top);
  context.setLineDash([]);
}

/** @param {CanvasRenderingContext2D} context @param {Scene} scene */
function drawStroke(context, { stroke, colour, opacity }) {
  if (!stroke) return;
  const { points, radius, add } = stroke;
  context.globalAlpha = add ? Math.max(0.35, opacity) : 0.55;
  context.strokeStyle = add ? colour : "#0b0c0e";
  context.lineWidth = 2 * radius;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(points[0], points[1]);
  context.lineTo(points[0] + 0.001, points[1]);
  for (let i = 2; i < points.length; i += 2) context.lineTo(points[i], points[i + 1]);
  context.stroke();
  context.globalAlpha = 1;
}

/** @param {CanvasRenderingContext2D} context @param {Spot & {radius: number, erase: boolean}} brush @param {number} pixel */
function drawBrush(context, { x, y, radius, erase }, pixel) {
  for (const [style, width] of /** @type {[string, number][]} */ ([["rgb(0 0 0 / 60%)", 3], [erase ? "#fca5a5" : "#fff", 1.25]])) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.strokeStyle = style;
    context.lineWidth = width * pixel;
    context.stroke();
  }
}
