// One photo large: its mask, the tools, the decision.

import { byArrows, Classes } from "./classes.js";
import { colored, coverage, IGNORE } from "./mask.js";
import { percent } from "./grid.js";
import { Photo } from "./photo.js";
import { address, Saver } from "./server.js";
import { Tools } from "./tools.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const SHOWN_AS = { accepted: "Accepted", corrected: "Corrected", rejected: "Rejected", open: "To review" };

export class Studio {
  // `page` gives run, and takes decided(id, row), conflict(id, current, studio) and advance().
  constructor(page) {
    this.page = page;
    this.photo = null;
    this.savers = new Map();
    this.view = new View($("stage"), $("sheet"), () => this.tools?.redraw());
    this.tools = new Tools($("stage"), $("drawing"), this.view, this);
    this.context = $("mask").getContext("2d");
    this.colors = page.run.colors.map((css) => [1, 3, 5].map((at) => parseInt(css.slice(at, at + 2), 16)));
    this.colors[IGNORE] = [224, 224, 192];
    this.classes = new Classes(page.run.classes, this.colors, () => {
      if (["eraser", "hand"].includes(this.tools.name)) this.useTool("brush");
    });
    this.wire();
    this.useTool("brush");
  }

  wire() {
    const on = (id, action, event = "click") => $(id).addEventListener(event, action);
    for (const button of $("tools").children) button.addEventListener("click", () => this.useTool(button.dataset.tool));
    byArrows($("tools"));
    on("alpha", () => this.showAlpha(this.fromSlider()), "input");
    on("alpha", () => this.keepAlpha(), "change");
    on("of_run", () => { this.showAlpha(null); this.keepAlpha(); });
    on("opacity", () => this.opacityChanged(), "input");
    on("size", () => this.sizeChanged(), "input");
    on("undo", () => this.step("undo"));
    on("redo", () => this.step("redo"));
    on("hide", () => this.toggleMask());
    on("fits", () => this.view.fit());
    on("restart", () => this.startOver());
    on("accept", () => this.accept());
    on("reject", () => this.reject());
    on("clear", () => this.clear());
    on("finish", () => this.tools.closePolygon());
    on("corner", () => this.tools.removeCorner());
    const power = this.page.run.background === "power";
    Object.assign($("alpha"), power ? { min: 0.5, max: 32, step: 0.5 } : { min: 0, max: 1, step: 0.01 });
  }

  async open(entry) {
    this.entry = entry;
    this.photo = null;
    $("name").textContent = entry.id;
    $("loading").hidden = false;
    $("loading").textContent = "Loading …";
    $("sheet").hidden = true;
    this.showState("");
    try {
      const picture = $("photo");
      picture.src = address("photo", { id: entry.id });
      const [photo] = await Promise.all([Photo.load(entry.id, this.page.run), picture.decode()]);
      if (this.entry !== entry) return;
      this.loaded(photo);
    } catch (error) {
      if (this.entry === entry) $("loading").textContent = `This photo cannot be shown: ${error.message}`;
    }
  }

  loaded(photo) {
    this.photo = photo;
    const saver = this.saver(photo.id);
    this.showsOther = saver.held; // what this page has is not saved yet, and not what was loaded
    if (saver.held) saver.ask();
    if (!saver.busy) saver.known = photo.decision?.time ?? "";
    this.returnTo = photo.decision?.decision === "corrected" ? null : photo.decision;
    const canvas = $("mask");
    Object.assign(canvas, { width: photo.width, height: photo.height });
    $("drawing").setAttribute("viewBox", `0 0 ${photo.width} ${photo.height}`);
    $("photo").alt = `${photo.id}: ${photo.classes.map((label) => this.page.run.classes[label]).join(", ")}`;
    $("loading").hidden = true;
    $("sheet").hidden = false;
    this.view.show(photo.width, photo.height);
    this.classes.offer(this.photo);
    this.opacityChanged();
    this.sizeChanged();
    this.refresh();
  }

  close() {
    this.entry = this.photo = null;
    this.tools.cancelPolygon();
    $("photo").removeAttribute("src");
  }

  // What the tools ask and tell.
  label() {
    return this.classes.chosen;
  }

  radius() {
    const longest = Math.max(this.photo?.width ?? 1, this.photo?.height ?? 1);
    return Math.max(0.5, (longest / 6) * (Number($("size").value) / 100) ** 2);
  }

  changed(box) {
    if (box.right <= box.left || box.bottom <= box.top) return;
    const { labels, height, width } = this.photo;
    const wide = { ...box, top: Math.max(box.top - 1, 0), left: Math.max(box.left - 1, 0) }; // outlines look right and down
    const opacity = this.hidden ? 0 : Number($("opacity").value) / 100;
    this.context.putImageData(colored(labels, height, width, wide, this.colors, opacity), wide.left, wide.top);
  }

  finished() {
    this.save();
    this.refresh();
  }

  polygonChanged(count) {
    $("corners").hidden = count === 0;
    $("finish").disabled = count < 3;
  }

  // What the panel does.
  useTool(name) {
    this.tools.use(name);
    for (const button of $("tools").children) {
      const chosen = button.dataset.tool === name;
      button.setAttribute("aria-checked", chosen);
      button.tabIndex = chosen ? 0 : -1;
    }
  }

  fromSlider() {
    return Number($("alpha").value);
  }

  showAlpha(alpha) {
    if (!this.photo) return;
    this.wanted = alpha;
    this.frame ??= requestAnimationFrame(() => this.drawAlpha());
  }

  drawAlpha() {
    this.frame = null;
    if (!this.photo) return;
    this.changed(this.photo.showAlpha(this.wanted));
    this.refreshAlpha();
  }

  keepAlpha() {
    if (!this.photo) return;
    if (this.frame) {
      cancelAnimationFrame(this.frame);
      this.drawAlpha();
    }
    this.photo.keepAlpha();
    this.finished();
  }

  nudgeAlpha(by) {
    $("alpha").value = Number($("alpha").value) + by * Number($("alpha").step);
    this.showAlpha(this.fromSlider());
    this.keepAlpha();
  }

  opacityChanged() {
    $("opacity_value").value = `${$("opacity").value} %`;
    if (this.photo) this.changed(this.photo.whole);
  }

  sizeChanged(by = 0) {
    $("size").value = Number($("size").value) + by;
    $("size_value").value = `${Math.round(2 * this.radius())} px`;
    this.tools.redraw();
  }

  toggleMask() {
    this.hidden = !this.hidden;
    $("hide").setAttribute("aria-pressed", this.hidden);
    this.opacityChanged();
  }

  step(way) {
    const box = this.photo?.[way]();
    if (!box) return;
    this.changed(box);
    this.finished();
  }

  startOver() {
    if (!this.photo) return;
    this.changed(this.photo.startOver());
    this.finished();
  }

  // Decisions.
  accept() {
    if (!this.photo) return;
    this.decide(this.photo.isPainted() ? "corrected" : "accepted");
  }

  reject() {
    if (this.photo) this.decide("rejected");
  }

  decide(decision) {
    const { photo } = this, before = photo.decision, labels = photo.labels.slice(), alpha = photo.alpha;
    this.returnTo = { decision, alpha };
    this.push(decision);
    this.page.decided(photo.id, decision, () => this.restore(photo.id, before, alpha, labels));
  }

  restore(id, before, alpha, labels) {
    const saver = this.saver(id);
    if (!before) saver.push({ decision: null });
    else saver.push({ decision: before.decision, alpha: before.alpha, labels: before.decision === "corrected" ? labels : undefined });
  }

  clear() {
    if (!this.photo) return;
    this.push(null);
    this.returnTo = null;
    this.refresh();
  }

  // After a stroke, an undo or another alpha: what is decided about this photo, with the mask as it is now.
  save() {
    if (this.photo.isPainted()) return this.push("corrected");
    const decision = this.photo.decision?.decision;
    if (decision === "corrected") return this.push(this.returnTo?.decision === "corrected" ? null : this.returnTo?.decision ?? null);
    if (decision === "accepted") this.push("accepted");
  }

  push(decision) {
    const { photo } = this, alpha = photo.alpha;
    photo.decision = decision ? { decision, alpha, time: photo.decision?.time } : null;
    this.saver(photo.id).push({ decision, alpha, labels: decision === "corrected" ? photo.labels.slice() : undefined });
    this.refresh();
  }

  // Against what another page saved in the meantime.
  async keepMine(id, known) {
    const saver = this.saver(id), { photo } = this, waits = saver.busy;
    await saver.overwrite(known);
    if (photo?.id !== id || this.photo !== photo) return;
    if (!waits) this.push(photo.decision?.decision ?? null);
    else if (this.showsOther && !saver.held) this.page.reopen(id);
  }

  saver(id) {
    if (!this.savers.has(id)) this.savers.set(id, new Saver(id, "", {
      onState: (state, why) => this.showState(state, why),
      onSaved: (row) => this.page.saved(id, row),
      onConflict: (current) => this.page.conflict(id, current),
    }));
    return this.savers.get(id);
  }

  showState(state, why = "") {
    $("saving").dataset.state = state;
    $("saving").textContent = { saving: "Saving …", saved: "Saved", failed: "Not saved", conflict: "Not saved" }[state] ?? "";
    this.page.trouble(state === "failed" ? `Not saved yet; it is kept here and tried again. ${why}` : "");
  }

  refresh() {
    const { photo } = this;
    const state = photo.decision?.decision ?? "open";
    $("state").textContent = SHOWN_AS[state];
    $("state").dataset.state = state;
    $("clear").hidden = state === "open";
    $("undo").disabled = !photo.done.length;
    $("redo").disabled = !photo.undone.length;
    this.refreshAlpha();
    this.refreshFigures();
  }

  refreshAlpha() {
    const { alpha, runLabels } = this.photo;
    $("alpha").value = alpha ?? this.page.run.alpha;
    $("alpha").disabled = !this.photo.classes.length;
    $("alpha_value").value = alpha === null ? "mask of the run" : alpha.toFixed(2);
    $("of_run").hidden = !runLabels || alpha === null;
  }

  refreshFigures() {
    const shares = coverage(this.photo.labels), { entry } = this;
    const rows = this.classes.offered.filter((label) => label).map((label) => [this.page.run.classes[label] ?? "unsure", shares.get(label) ?? 0]);
    const shown = rows.filter(([, share], at) => share > 0 || at < this.photo.classes.length).map(([name, share]) => [name, percent(share)]);
    shown.push(["Doubt", percent(entry.doubt)], ["Close to another label", percent(entry.undecided)]);
    if (this.photo.classes.length > 1) shown.push(["Two classes close", percent(entry.contested)]);
    if (entry.disagreement !== null) shown.push(["CRF and mask disagree", percent(entry.disagreement)]);
    $("figures").replaceChildren(...shown.flatMap(([name, value]) => {
      const term = document.createElement("dt"), figure = document.createElement("dd");
      term.textContent = name;
      figure.textContent = value;
      return [term, figure];
    }));
  }
}
