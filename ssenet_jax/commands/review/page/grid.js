// All photos as tiles, the most doubtful first. Only the tiles in view exist, so thousands of photos are no burden.

import { address } from "./server.js";

const GAP = 10, CAPTION = 46, SPARE = 2; // rows kept above and below what is seen

export const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0)} %`;

export class Grid {
  constructor(scroller, onOpen) {
    Object.assign(this, { scroller, onOpen, photos: [], tiles: new Map(), current: 0 });
    this.inner = scroller.firstElementChild;
    scroller.addEventListener("scroll", () => this.render());
    scroller.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.layout()).observe(scroller);
  }

  show(photos, keep) {
    this.photos = photos;
    const at = photos.findIndex((photo) => photo.id === keep);
    this.current = Math.max(at, 0);
    this.clear();
    this.layout();
    if (at >= 0) this.reveal(at);
    else this.scroller.scrollTop = 0;
    this.render();
  }

  clear() {
    this.tiles.clear();
    this.inner.replaceChildren();
  }

  layout() {
    const width = this.inner.clientWidth;
    if (!width) return;
    this.columns = Math.max(2, Math.floor((width + GAP) / (width < 600 ? 150 : 210)));
    this.size = (width - GAP * (this.columns - 1)) / this.columns;
    this.pitch = this.size * 0.75 + CAPTION + GAP;
    this.inner.style.height = `${Math.ceil(this.photos.length / this.columns) * this.pitch}px`;
    for (const [index, tile] of this.tiles) this.put(tile, index);
    this.render();
  }

  put(tile, index) {
    const row = Math.floor(index / this.columns), column = index % this.columns;
    tile.style.width = `${this.size}px`;
    tile.style.height = `${this.pitch - GAP}px`;
    tile.style.transform = `translate(${column * (this.size + GAP)}px, ${row * this.pitch}px)`;
  }

  render() {
    if (!this.columns || !this.scroller.clientHeight) return;
    const top = this.scroller.scrollTop - this.inner.offsetTop;
    const first = Math.max(0, Math.floor(top / this.pitch) - SPARE) * this.columns;
    const last = Math.min(this.photos.length, (Math.ceil((top + this.scroller.clientHeight) / this.pitch) + SPARE) * this.columns);
    for (const [index, tile] of this.tiles) {
      if ((index < first || index >= last) && !tile.contains(document.activeElement)) {
        tile.remove();
        this.tiles.delete(index);
      }
    }
    for (let index = first; index < last; index++) {
      if (this.tiles.has(index)) continue;
      const tile = this.tile(this.photos[index], index);
      this.tiles.set(index, tile);
      this.put(tile, index);
      this.inner.append(tile);
    }
  }

  tile(photo, index) {
    const item = document.getElementById("tile").content.firstElementChild.cloneNode(true);
    item.setAttribute("aria-setsize", this.photos.length);
    item.setAttribute("aria-posinset", index + 1);
    const button = item.querySelector("button");
    button.dataset.id = photo.id;
    button.tabIndex = index === this.current ? 0 : -1;
    button.addEventListener("click", () => this.onOpen(photo.id));
    button.addEventListener("focus", () => this.focused(index));
    const picture = item.querySelector(".photo");
    picture.addEventListener("load", () => picture.classList.add("shown"));
    picture.src = address("thumbnail", { id: photo.id });
    item.querySelector(".name").textContent = photo.id;
    this.fill(item, photo);
    return item;
  }

  fill(item, photo) {
    const state = photo.decision?.decision ?? "open", button = item.querySelector("button");
    button.dataset.state = state;
    const found = photo.found.join(", ") || "no class found";
    button.setAttribute("aria-label", `${photo.id}: ${found}; doubt ${percent(photo.doubt)}; ${state === "open" ? "to review" : state}`);
    item.querySelector(".mask").src = address("overlay", { id: photo.id, of: photo.decision?.time ?? "" });
    item.querySelector(".state").textContent = state === "open" ? "" : state;
    item.querySelector(".found").textContent = found;
    item.querySelector(".doubt").style.setProperty("--share", photo.doubt);
    item.querySelector(".doubt").title = `doubt ${percent(photo.doubt)}`;
  }

  refresh(photo) {
    const index = this.photos.indexOf(photo), tile = this.tiles.get(index);
    if (tile) this.fill(tile, photo);
  }

  focused(index) {
    const before = this.tiles.get(this.current)?.querySelector("button");
    if (before) before.tabIndex = -1;
    this.current = index;
    this.tiles.get(index).querySelector("button").tabIndex = 0;
  }

  key(event) {
    const page = this.columns * Math.max(1, Math.floor(this.scroller.clientHeight / this.pitch));
    const last = this.photos.length - 1;
    const to = {
      ArrowRight: this.current + 1, ArrowLeft: this.current - 1, ArrowDown: this.current + this.columns, ArrowUp: this.current - this.columns,
      PageDown: this.current + page, PageUp: this.current - page, Home: 0, End: last,
    }[event.key];
    if (to === undefined || !event.target.closest(".tile")) return;
    event.preventDefault();
    this.focus(Math.min(Math.max(to, 0), last));
  }

  focus(index = this.current) {
    this.reveal(index);
    this.render();
    this.tiles.get(index)?.querySelector("button").focus({ preventScroll: true });
  }

  reveal(index) {
    if (!this.columns) return;
    const top = this.inner.offsetTop + Math.floor(index / this.columns) * this.pitch, seen = this.scroller;
    if (top < seen.scrollTop) seen.scrollTop = top - GAP;
    else if (top + this.pitch > seen.scrollTop + seen.clientHeight) seen.scrollTop = top + this.pitch - seen.clientHeight;
  }
}
