// The page: the overview of all photos, the studio for one, and what ties them together.

import { Grid } from "./grid.js";
import { json } from "./server.js";
import { Studio } from "./studio.js";

const $ = (id) => document.getElementById(id);
const POLL = 3000; // milliseconds between two looks at what other pages saved

const STATES = { open: "To review", accepted: "Accepted", corrected: "Corrected", rejected: "Rejected", all: "All" };
const size = (photo) => photo.coverage.reduce((sum, [, share]) => sum + share, 0);
const ORDERS = {
  doubt: (a, b) => b.doubt - a.doubt,
  sure: (a, b) => a.doubt - b.doubt,
  disagreement: (a, b) => (b.disagreement ?? -1) - (a.disagreement ?? -1),
  small: (a, b) => size(a) - size(b),
  large: (a, b) => size(b) - size(a),
  id: (a, b) => a.id.localeCompare(b.id, undefined, { numeric: true }),
  latest: (a, b) => (b.decision?.time ?? "").localeCompare(a.decision?.time ?? ""),
};
const stateOf = (photo) => photo.decision?.decision ?? "open";

class Page {
  constructor(run) {
    this.run = run;
    this.saves = run.saves;
    this.byId = new Map(run.photos.map((photo) => [photo.id, photo]));
    for (const photo of run.photos) {
      photo.found = photo.coverage.filter(([, share]) => share > 0).map(([label]) => run.classes[label]);
    }
    this.filter = run.photos.some((photo) => stateOf(photo) === "open") ? "open" : "all";
    document.title = `Review: ${run.title}`;
    $("title").textContent = run.title;
    $("class").append(new Option("All classes", ""), ...run.classes.slice(1).map((name, at) => new Option(name, at + 1)));
    if (run.photos.every((photo) => photo.disagreement === null)) $("order").querySelector("[value=disagreement]").remove();
    this.grid = new Grid($("scroller"), (id) => this.go(id));
    this.studio = new Studio(this);
    this.wire();
    this.list();
    this.route();
    setInterval(() => document.visibilityState === "visible" && this.poll(), POLL);
  }

  wire() {
    addEventListener("hashchange", () => this.route());
    addEventListener("keydown", (event) => this.key(event));
    addEventListener("keyup", (event) => { if (event.key === " ") this.studio.tools.spaceHeld = false; });
    addEventListener("beforeunload", (event) => { if (this.unsaved()) event.preventDefault(); });
    for (const id of ["class", "order"]) $(id).addEventListener("change", () => this.list());
    $("search").addEventListener("input", () => this.list());
    $("help").addEventListener("click", () => $("keys").showModal());
    $("close").addEventListener("click", () => this.overview());
    $("previous").addEventListener("click", () => this.turn(-1));
    $("following").addEventListener("click", () => this.turn(1));
    $("toast").querySelector("button").addEventListener("click", () => this.takeBack());
  }

  unsaved() {
    return [...this.studio.savers.values()].some((saver) => saver.busy);
  }

  list(keep) {
    const wanted = $("search").value.trim().toLowerCase(), label = Number($("class").value);
    const photos = this.run.photos.filter((photo) =>
      (this.filter === "all" || stateOf(photo) === this.filter) && photo.id.toLowerCase().includes(wanted) &&
      (!label || photo.coverage.some(([number]) => number === label)));
    photos.sort(ORDERS[$("order").value]);
    this.sequence = photos.map((photo) => photo.id);
    this.grid.show(photos, keep);
    $("none").hidden = photos.length > 0;
    $("none").textContent = this.filter === "open" && !wanted && !label ? "Every photo is reviewed." : "No photo is like that.";
    this.count();
  }

  count() {
    const counts = { open: 0, accepted: 0, corrected: 0, rejected: 0, all: this.run.photos.length };
    for (const photo of this.run.photos) counts[stateOf(photo)] += 1;
    const done = counts.all - counts.open;
    $("bar").setAttribute("aria-valuemax", counts.all);
    $("bar").setAttribute("aria-valuenow", done);
    $("bar").firstElementChild.style.width = `${(100 * done) / counts.all}%`;
    $("reviewed").textContent = `${done.toLocaleString("en")} of ${counts.all.toLocaleString("en")} reviewed`;
    const focused = document.activeElement?.dataset?.state;
    $("states").replaceChildren(...Object.entries(STATES).map(([state, name]) => {
      const button = document.createElement("button"), count = document.createElement("small");
      count.textContent = counts[state].toLocaleString("en");
      button.append(name, " ", count);
      button.type = "button";
      button.dataset.state = state;
      button.setAttribute("aria-pressed", this.filter === state);
      button.addEventListener("click", () => { this.filter = state; this.list(); });
      return button;
    }));
    if (focused && $("states").contains(document.activeElement) === false && document.activeElement === document.body) {
      $("states").querySelector(`[data-state="${focused}"]`)?.focus();
    }
  }

  go(id) {
    location.hash = `photo=${encodeURIComponent(id)}`;
  }

  route() {
    const id = new URLSearchParams(location.hash.slice(1)).get("photo"), photo = this.byId.get(id);
    if (photo && this.studio.entry === photo) return;
    $("overview").hidden = Boolean(photo);
    $("studio").hidden = !photo;
    if (!photo) {
      const last = this.studio.entry?.id;
      this.studio.close();
      this.list(last);
      if (last) this.grid.focus();
      return;
    }
    const at = this.sequence.indexOf(id);
    $("place").textContent = at < 0 ? "" : `${(at + 1).toLocaleString("en")} of ${this.sequence.length.toLocaleString("en")}`;
    $("previous").disabled = at <= 0;
    $("following").disabled = at >= this.sequence.length - 1;
    $("banner").hidden = true;
    this.remind();
    this.studio.open(photo);
    $("stage").focus({ preventScroll: true });
  }

  overview() {
    location.hash = "";
  }

  turn(by) {
    const to = this.sequence[this.sequence.indexOf(this.studio.entry?.id) + by];
    if (to) this.go(to);
    return Boolean(to);
  }

  // A decision that ends the work on a photo.
  decided(id, decision, undo) {
    this.last = { id, undo };
    $("toast").firstElementChild.textContent = `${id} ${decision}`;
    $("toast").hidden = false;
    clearTimeout(this.toasting);
    this.toasting = setTimeout(() => { $("toast").hidden = true; }, 8000);
    if (!this.turn(1)) this.overview();
  }

  takeBack() {
    if (!this.last) return;
    const { id, undo } = this.last;
    this.last = null;
    $("toast").hidden = true;
    undo();
    const settled = () => (this.studio.savers.get(id).running ? setTimeout(settled, 30) : this.go(id));
    settled();
  }

  saved(id, row) {
    const photo = this.byId.get(id), open = this.studio.photo;
    photo.decision = row;
    if (open?.id === id && open.decision && row) open.decision.time = row.time;
    this.grid.refresh(photo);
    if (!$("overview").hidden) this.count();
  }

  trouble(text) {
    if (text) this.banner(text, {}, "trouble");
    else if ($("banner").dataset.kind === "trouble") $("banner").hidden = true;
  }

  conflict(id, current) {
    const saver = this.studio.savers.get(id);
    const what = current ? current.decision : "to be reviewed again";
    this.banner(`Another page changed ${id} (now ${what}).`, {
      "Show that": () => { saver.drop(current?.time ?? ""); this.byId.get(id).decision = current; this.reopen(id); },
      "Keep mine": () => this.studio.keepMine(id, current?.time ?? ""),
    }, "conflict");
  }

  // A conflict stays in sight until it is answered.
  remind() {
    const held = [...this.studio.savers.values()].find((saver) => saver.held);
    if (held) this.conflict(held.id, held.current);
  }

  reopen(id) {
    this.grid.refresh(this.byId.get(id));
    if (this.studio.entry?.id !== id) return this.go(id);
    this.studio.open(this.byId.get(id));
  }

  banner(text, actions, kind) {
    $("banner").dataset.kind = kind;
    $("banner").firstElementChild.textContent = text;
    $("banner").lastElementChild.replaceChildren(...Object.entries(actions).map(([name, action]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => { $("banner").hidden = true; action(); this.remind(); });
      return button;
    }));
    $("banner").hidden = false;
  }

  // Takes over what other pages saved.
  async poll() {
    const asked = performance.now();
    let news;
    try {
      news = await json("changes", { after: this.saves });
    } catch {
      return; // a save says so when the server is gone
    }
    this.saves = news.saves;
    for (const [id, row] of Object.entries(news.changed)) this.heard(id, row, asked);
  }

  heard(id, row, asked) {
    const photo = this.byId.get(id), saver = this.studio.savers.get(id);
    if (saver && (saver.busy || saver.held || saver.savedAt > asked)) return; // what it tells may be older than our save
    if ((row?.time ?? "") === (photo.decision?.time ?? "")) return;
    if (this.studio.photo?.id === id) return this.conflict(id, row);
    photo.decision = row;
    if (saver) saver.known = row?.time ?? "";
    this.grid.refresh(photo);
    if (!$("overview").hidden) this.count();
  }

  key(event) {
    if ($("keys").open || event.altKey || event.target.matches("input[type=search], select")) return;
    if (event.key === "?") return $("keys").showModal();
    if ($("studio").hidden) {
      if (event.key === "u") this.takeBack();
      if (event.key === "/") { event.preventDefault(); $("search").focus(); }
      return;
    }
    const { studio } = this, { tools, view } = studio, command = event.ctrlKey || event.metaKey;
    const drawing = tools.corners.length > 0, typed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const onButton = event.target.matches("button") && (typed === " " || typed === "Enter");
    if (onButton) return;
    const actions = {
      a: () => studio.accept(), x: () => studio.reject(), u: () => this.takeBack(), n: () => this.turn(1), p: () => this.turn(-1),
      b: () => studio.useTool("brush"), e: () => studio.useTool("eraser"), g: () => studio.useTool("polygon"), h: () => studio.useTool("hand"),
      z: () => studio.step(event.shiftKey ? "redo" : "undo"), y: () => studio.step("redo"), m: () => studio.toggleMask(),
      f: () => view.fit(), "+": () => view.zoomMiddle(1.25), "=": () => view.zoomMiddle(1.25), "-": () => view.zoomMiddle(0.8),
      ",": () => studio.nudgeAlpha(-1), ".": () => studio.nudgeAlpha(1), "[": () => studio.sizeChanged(-4), "]": () => studio.sizeChanged(4),
      Escape: () => (drawing ? tools.cancelPolygon() : this.overview()), Enter: () => tools.closePolygon(),
      Backspace: () => tools.removeCorner(), " ": () => { tools.spaceHeld = true; },
      r: () => { if (event.shiftKey) studio.startOver(); },
    };
    if (command && !["z", "y"].includes(typed)) return;
    const digit = /^[0-9]$/.test(typed) && !command;
    if (digit) {
      studio.classes.chooseKey(Number(typed));
    } else if (actions[typed]) {
      event.preventDefault();
      actions[typed]();
    }
  }
}

try {
  new Page(await json("run"));
} catch (error) {
  document.getElementById("title").textContent = `The page cannot be shown: ${error.message}`;
  throw error;
}
