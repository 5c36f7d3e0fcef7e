// One photo in review: its mask as alpha cuts it, what a person painted over that, and the way back.

import * as mask from "./mask.js";
import * as server from "./server.js";

const STEPS = 200; // that can be undone
const ROUNDED = 0.001; // of the pixels

export class Photo {
  static async load(id, run) {
    const [about, scores] = await Promise.all([server.json("description", { id }), server.bytes("scores", { id })]);
    const wanted = [about.has_run_labels ? "run" : null, about.decision ? "reviewed" : null];
    const labels = (of) => server.bytes("labels", { id, of }).then((b) => new Uint8Array(b)).catch((error) => {
      if (error.status === 404) return null;
      throw error;
    });
    const [runLabels, reviewed] = await Promise.all(wanted.map((of) => (of ? labels(of) : null)));
    return new Photo(about, new Uint16Array(scores), runLabels, reviewed, run);
  }

  constructor(about, scores, runLabels, reviewed, run) {
    Object.assign(this, about);
    this.run = run;
    this.runLabels = runLabels;
    this.best = mask.bestOf(scores, about);
    const decision = about.decision;
    this.alpha = decision?.alpha ?? (runLabels ? null : run.alpha);
    this.base = this.cutAt(this.alpha);
    this.layer = this.layerOf(reviewed, decision?.decision);
    this.labels = new Uint8Array(this.base.length);
    this.undone = [];
    this.done = [];
    this.stroke = null;
    this.compose(this.whole);
  }

  // What a person painted. A mask that was accepted as it is may differ at borders by what the page rounds otherwise.
  layerOf(reviewed, decision) {
    const unpainted = new Int16Array(this.base.length).fill(mask.UNPAINTED);
    if (!reviewed) return unpainted;
    const layer = mask.difference(reviewed, this.base);
    const rounded = decision === "accepted" && mask.countPainted(layer) < ROUNDED * layer.length;
    return rounded ? unpainted : layer;
  }

  get whole() {
    return mask.whole(this.height, this.width);
  }

  // An alpha of null stands for the label map that the run made.
  cutAt(alpha) {
    if (alpha === null && this.runLabels) return this.runLabels;
    return mask.cut(this.best, mask.threshold(alpha ?? this.run.alpha, this.run.background));
  }

  compose(box) {
    mask.compose(this.labels, this.base, this.layer, this.width, box);
    return box;
  }

  isPainted() {
    return mask.isPainted(this.layer);
  }

  // Shows another alpha; `keepAlpha` makes it a step that can be undone.
  showAlpha(alpha) {
    this.before ??= { alpha: this.alpha };
    this.alpha = alpha;
    this.base = this.cutAt(alpha);
    return this.compose(this.whole);
  }

  keepAlpha() {
    if (this.before && this.before.alpha !== this.alpha) this.remember({ from: this.before.alpha, to: this.alpha });
    this.before = null;
  }

  begin() {
    this.stroke = { layer: this.layer.slice(), box: null };
  }

  line(from, to, radius, label) {
    return this.painted(mask.paintLine(this.layer, this.height, this.width, from, to, radius, label));
  }

  polygon(points, label) {
    return this.painted(mask.paintPolygon(this.layer, this.height, this.width, points, label));
  }

  painted(box) {
    this.stroke.box = mask.joined(this.stroke.box, box);
    return this.compose(box);
  }

  cancel() {
    const { layer, box } = this.stroke;
    this.stroke = null;
    this.layer.set(layer);
    return this.compose(box ?? this.whole);
  }

  end() {
    const { layer, box } = this.stroke;
    this.stroke = null;
    if (!box) return;
    const before = mask.copyBox(layer, this.width, box), after = mask.copyBox(this.layer, this.width, box);
    if (after.some((value, i) => value !== before[i])) this.remember({ box, before, after });
  }

  remember(step) {
    this.done.push(step);
    if (this.done.length > STEPS) this.done.shift();
    this.undone = [];
  }

  undo() {
    const step = this.done.pop();
    if (!step) return null;
    this.undone.push(step);
    return this.apply(step, step.before, step.from);
  }

  redo() {
    const step = this.undone.pop();
    if (!step) return null;
    this.done.push(step);
    return this.apply(step, step.after, step.to);
  }

  apply(step, part, alpha) {
    if (step.box) {
      mask.pasteBox(this.layer, this.width, step.box, part);
      return this.compose(step.box);
    }
    this.alpha = alpha;
    this.base = this.cutAt(alpha);
    return this.compose(this.whole);
  }

  // Without what was painted, at the alpha that the run has.
  startOver() {
    this.begin();
    this.layer.fill(mask.UNPAINTED);
    this.stroke.box = this.whole;
    this.end();
    this.showAlpha(this.runLabels ? null : this.run.alpha);
    this.keepAlpha();
    return this.whole;
  }
}
