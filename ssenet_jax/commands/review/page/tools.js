// Brush, eraser, polygon and hand on the stage, for mouse, pen and fingers: one finger draws, two move and zoom.

const SVG = "http://www.w3.org/2000/svg";
const CLOSING = 14; // screen pixels around the first corner of a polygon that close it

export class Tools {
  // `studio` gives photo, label() and radius(), and takes changed(box), finished() and polygonChanged(count).
  constructor(stage, drawing, view, studio) {
    Object.assign(this, { stage, drawing, view, studio, name: "brush", pointers: new Map(), corners: [], last: null });
    for (const [event, handler] of Object.entries({
      pointerdown: this.down, pointermove: this.move, pointerup: this.up, pointercancel: this.lost,
      pointerleave: () => this.hover(null), wheel: this.wheel, dblclick: () => this.closePolygon(), contextmenu: (e) => e.preventDefault(),
    })) stage.addEventListener(event, handler.bind(this), { passive: false });
  }

  use(name) {
    this.cancelPolygon();
    this.name = name;
    this.stage.dataset.tool = name;
    this.hover(null);
  }

  label() {
    return this.name === "eraser" ? 0 : this.studio.label();
  }

  down(event) {
    if (!this.studio.photo || (event.pointerType === "mouse" && event.button > 1)) return;
    event.preventDefault();
    this.stage.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    if (this.pointers.size > 1) return this.beginPinch();
    this.moving = this.name === "hand" || event.button === 1 || this.spaceHeld;
    if (this.moving) return;
    if (this.name === "polygon") return this.addCorner(event);
    this.studio.photo.begin();
    this.last = this.at(event);
    this.draw(this.last);
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return this.hover(event);
    this.pointers.set(event.pointerId, event);
    if (this.pointers.size > 1) return this.pinch();
    if (this.moving) return this.view.move(event.clientX - before.clientX, event.clientY - before.clientY);
    this.hover(event);
    if (this.last) for (const part of event.getCoalescedEvents?.() ?? [event]) this.draw(this.at(part));
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    this.span = null;
    if (this.last) {
      this.last = null;
      this.studio.photo.end();
      this.studio.finished();
    }
  }

  lost(event) {
    this.cancelStroke();
    this.pointers.delete(event.pointerId);
  }

  at(event) {
    return this.view.toPhoto(event.clientX, event.clientY);
  }

  draw(to) {
    this.studio.changed(this.studio.photo.line(this.last, to, this.studio.radius(), this.label()));
    this.last = to;
  }

  cancelStroke() {
    if (this.last) this.studio.changed(this.studio.photo.cancel());
    this.last = null;
  }

  beginPinch() {
    this.cancelStroke();
    if (this.name === "polygon" && this.justAdded) this.removeCorner();
    this.moving = false;
    this.span = this.spanned();
  }

  spanned() {
    const [a, b] = [...this.pointers.values()];
    return {
      x: (a.clientX + b.clientX) / 2, y: (a.clientY + b.clientY) / 2,
      length: Math.max(Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY), 1),
    };
  }

  pinch() {
    const now = this.spanned();
    if (!this.span) this.span = now;
    this.view.move(now.x - this.span.x, now.y - this.span.y);
    this.view.zoom(now.length / this.span.length, now.x, now.y);
    this.span = now;
  }

  wheel(event) {
    event.preventDefault();
    this.view.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX, event.clientY);
    this.hover(event);
  }

  addCorner(event) {
    const at = this.at(event), first = this.corners[0];
    const reach = (event.pointerType === "touch" ? 2 : 1) * CLOSING / this.view.scale;
    if (this.corners.length > 2 && Math.hypot(at.x - first.x, at.y - first.y) < reach) return this.closePolygon();
    this.corners.push(at);
    this.justAdded = true;
    this.cornersChanged();
  }

  removeCorner() {
    this.corners.pop();
    this.cornersChanged();
  }

  cancelPolygon() {
    this.corners = [];
    this.cornersChanged();
  }

  closePolygon() {
    const corners = this.corners;
    if (corners.length < 3) return;
    this.studio.photo.begin();
    this.studio.changed(this.studio.photo.polygon(corners, this.label()));
    this.studio.photo.end();
    this.cancelPolygon();
    this.studio.finished();
  }

  cornersChanged() {
    this.studio.polygonChanged(this.corners.length);
    this.redraw();
  }

  hover(event) {
    this.hovered = event && event.pointerType !== "touch" ? this.at(event) : null;
    this.redraw();
  }

  // The brush under the pointer and the corners of the polygon; drawn in the photo's pixels, thin at any zoom.
  redraw() {
    const pixel = 1 / this.view.scale, shapes = [];
    const line = (name, attributes) => {
      for (const [width, kind] of [[3, "halo"], [1.5, "line"]]) {
        const shape = document.createElementNS(SVG, name);
        for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
        shape.setAttribute("class", kind);
        shape.style.strokeWidth = width * pixel;
        shapes.push(shape);
      }
    };
    const brushes = this.name === "brush" || this.name === "eraser";
    if (this.hovered && brushes) line("circle", { cx: this.hovered.x, cy: this.hovered.y, r: this.studio.radius() });
    if (this.corners.length) {
      const ends = this.hovered ? [...this.corners, this.hovered] : this.corners;
      line(this.hovered ? "polyline" : "polygon", { points: ends.map((p) => `${p.x},${p.y}`).join(" ") });
      this.corners.forEach((p, i) => line("circle", { cx: p.x, cy: p.y, r: (i ? 3 : 6) * pixel }));
    }
    this.drawing.replaceChildren(...shapes);
  }
}
