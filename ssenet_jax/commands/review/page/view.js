// Where the photo lies on the stage: fitted, zoomed about a point, moved.

const LARGEST = 24; // screen pixels a pixel of the photo

export class View {
  constructor(stage, sheet, onChange) {
    Object.assign(this, { stage, sheet, onChange, scale: 1, x: 0, y: 0, width: 1, height: 1, fitted: true });
    new ResizeObserver(() => (this.fitted ? this.fit() : this.place())).observe(stage);
  }

  show(width, height) {
    Object.assign(this, { width, height });
    this.sheet.style.width = `${width}px`;
    this.sheet.style.height = `${height}px`;
    this.fit();
  }

  fit() {
    this.scale = this.fitting();
    this.x = this.y = 0;
    this.fitted = true;
    this.place();
  }

  fitting() {
    const { clientWidth, clientHeight } = this.stage;
    return Math.max(Math.min(clientWidth / this.width, clientHeight / this.height), 0.01);
  }

  zoom(factor, clientX, clientY) {
    const before = this.toPhoto(clientX, clientY);
    const least = Math.min(this.fitting(), 1);
    this.scale = Math.min(Math.max(this.scale * factor, least), LARGEST);
    this.fitted = this.scale <= least;
    if (this.fitted) return this.fit();
    this.place();
    const after = this.toPhoto(clientX, clientY);
    this.move((after.x - before.x) * this.scale, (after.y - before.y) * this.scale);
  }

  zoomMiddle(factor) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    this.zoom(factor, left + width / 2, top + height / 2);
  }

  move(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.place();
  }

  place() {
    const { clientWidth, clientHeight } = this.stage;
    const roomX = Math.max((this.width * this.scale - clientWidth) / 2, 0);
    const roomY = Math.max((this.height * this.scale - clientHeight) / 2, 0);
    this.x = Math.min(Math.max(this.x, -roomX), roomX);
    this.y = Math.min(Math.max(this.y, -roomY), roomY);
    const left = (clientWidth - this.width * this.scale) / 2 + this.x;
    const top = (clientHeight - this.height * this.scale) / 2 + this.y;
    this.sheet.style.transform = `translate(${left}px, ${top}px) scale(${this.scale})`;
    this.sheet.classList.toggle("near", this.scale > 2);
    Object.assign(this, { left, top });
    this.onChange();
  }

  toPhoto(clientX, clientY) {
    const at = this.stage.getBoundingClientRect();
    return { x: (clientX - at.left - this.left) / this.scale, y: (clientY - at.top - this.top) / this.scale };
  }
}
