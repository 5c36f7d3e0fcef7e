// Label maps as flat arrays of height x width: 0 background, 1.. the classes, 255 unsure. No DOM in here.

export const IGNORE = 255;
export const UNPAINTED = -1; // in a layer of what a person painted over the cut scores

const ONE = 65535; // what a score of 1 is sent as

// The positions and weights of bilinear interpolation with half-pixel centres, as the stage `label` has them.
function taps(length, cells, cell) {
  const low = new Int32Array(length), weight = new Float32Array(length);
  for (let i = 0; i < length; i++) {
    const at = Math.min(Math.max((i + 0.5) / cell - 0.5, 0), cells - 1);
    low[i] = Math.min(Math.floor(at), Math.max(cells - 2, 0));
    weight[i] = cells > 1 ? at - low[i] : 0;
  }
  return { low, weight };
}

// The best score of each pixel and the label that has it: whatever alpha is, the mask follows from these two.
export function bestOf(scores, { height, width, rows, columns, cell, classes }) {
  const best = new Float32Array(height * width), label = new Uint8Array(height * width);
  const down = taps(height, rows, cell[0]), across = taps(width, columns, cell[1]);
  const line = new Float32Array(columns);
  classes.forEach((number, slot) => {
    const from = slot * rows * columns;
    for (let y = 0; y < height; y++) {
      const above = from + down.low[y] * columns, below = rows > 1 ? above + columns : above, part = down.weight[y];
      for (let x = 0; x < columns; x++) line[x] = scores[above + x] * (1 - part) + scores[below + x] * part;
      for (let x = 0, at = y * width; x < width; x++, at++) {
        const left = across.low[x], share = across.weight[x];
        const score = columns > 1 ? line[left] * (1 - share) + line[left + 1] * share : line[0];
        if (score > best[at]) { best[at] = score; label[at] = number; }
      }
    }
  });
  return { best, label };
}

// The score that a class must pass to stand before the background.
export function threshold(alpha, background) {
  if (background === "constant") return alpha * ONE;
  let low = 0, high = 1; // where score = (1 - score) ** alpha
  for (let i = 0; i < 40; i++) {
    const middle = (low + high) / 2;
    if (middle > (1 - middle) ** alpha) high = middle; else low = middle;
  }
  return high * ONE;
}

export function cut({ best, label }, limit) {
  const base = new Uint8Array(best.length);
  for (let i = 0; i < base.length; i++) base[i] = best[i] > limit ? label[i] : 0;
  return base;
}

export const whole = (height, width) => ({ top: 0, left: 0, bottom: height, right: width });

export function joined(a, b) {
  if (!a) return b;
  return {
    top: Math.min(a.top, b.top), left: Math.min(a.left, b.left),
    bottom: Math.max(a.bottom, b.bottom), right: Math.max(a.right, b.right),
  };
}

function boxOf(points, margin, height, width) {
  const xs = points.map((p) => p.x), ys = points.map((p) => p.y);
  const inside = (value, limit) => Math.min(Math.max(value, 0), limit);
  return {
    top: inside(Math.floor(Math.min(...ys) - margin), height), bottom: inside(Math.ceil(Math.max(...ys) + margin) + 1, height),
    left: inside(Math.floor(Math.min(...xs) - margin), width), right: inside(Math.ceil(Math.max(...xs) + margin) + 1, width),
  };
}

// Paints what is nearer than a radius to the line from a to b; gives the box that changed.
export function paintLine(layer, height, width, a, b, radius, value) {
  const box = boxOf([a, b], radius, height, width);
  const dx = b.x - a.x, dy = b.y - a.y, length = dx * dx + dy * dy;
  for (let y = box.top; y < box.bottom; y++) {
    for (let x = box.left; x < box.right; x++) {
      const px = x + 0.5 - a.x, py = y + 0.5 - a.y;
      const along = length ? Math.min(Math.max((px * dx + py * dy) / length, 0), 1) : 0;
      const ex = px - along * dx, ey = py - along * dy;
      if (ex * ex + ey * ey <= radius * radius) layer[y * width + x] = value;
    }
  }
  return box;
}

// Paints the pixels whose centres lie inside a polygon (even-odd); gives the box that changed.
export function paintPolygon(layer, height, width, points, value) {
  const box = boxOf(points, 0, height, width);
  for (let y = box.top; y < box.bottom; y++) {
    const at = y + 0.5, crossings = [];
    points.forEach((p, i) => {
      const q = points[(i + 1) % points.length];
      if (p.y <= at !== q.y <= at) crossings.push(p.x + ((at - p.y) / (q.y - p.y)) * (q.x - p.x));
    });
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const from = Math.max(Math.ceil(crossings[i] - 0.5), 0), to = Math.min(Math.ceil(crossings[i + 1] - 0.5), width);
      if (to > from) layer.fill(value, y * width + from, y * width + to);
    }
  }
  return box;
}

export function copyBox(array, width, { top, left, bottom, right }) {
  const part = new array.constructor((bottom - top) * (right - left));
  for (let y = top; y < bottom; y++) part.set(array.subarray(y * width + left, y * width + right), (y - top) * (right - left));
  return part;
}

export function pasteBox(array, width, { top, left, bottom, right }, part) {
  const row = right - left;
  for (let y = top; y < bottom; y++) array.set(part.subarray((y - top) * row, (y - top + 1) * row), y * width + left);
}

// Writes into labels what the layer says, and the base where it says nothing.
export function compose(labels, base, layer, width, { top, left, bottom, right }) {
  for (let y = top; y < bottom; y++) {
    for (let i = y * width + left, end = y * width + right; i < end; i++) labels[i] = layer[i] === UNPAINTED ? base[i] : layer[i];
  }
}

// The layer that makes one label map of another.
export function difference(labels, base) {
  return Int16Array.from(labels, (label, i) => (label === base[i] ? UNPAINTED : label));
}

export const isPainted = (layer) => layer.some((value) => value !== UNPAINTED);
export const countPainted = (layer) => layer.reduce((count, value) => count + (value !== UNPAINTED), 0);

// Colours of a box as an ImageData: the regions at an opacity, their outlines in full.
export function colored(labels, height, width, box, colors, opacity) {
  const { top, left, bottom, right } = box, table = new Uint32Array(256), edges = new Uint32Array(256);
  const alpha = Math.round(255 * opacity);
  colors.forEach(([r, g, b], label) => {
    table[label] = label === 0 ? 0 : ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
    edges[label] = opacity > 0 ? 0xffffffff : 0;
  });
  const image = new ImageData(Math.max(right - left, 1), Math.max(bottom - top, 1));
  const pixels = new Uint32Array(image.data.buffer);
  for (let y = top, to = 0; y < bottom; y++) {
    for (let x = left, at = y * width + left; x < right; x++, at++, to++) {
      const label = labels[at];
      const edge = (x + 1 < width && labels[at + 1] !== label) || (y + 1 < height && labels[at + width] !== label);
      pixels[to] = edge ? edges[label] : table[label];
    }
  }
  return image;
}

export function coverage(labels) {
  const counts = new Map();
  for (const label of labels) counts.set(label, (counts.get(label) || 0) + 1);
  return new Map([...counts].map(([label, count]) => [label, count / labels.length]));
}
