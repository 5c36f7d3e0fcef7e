// The classes to paint with: those of the photo at hand, the others in a list.

import { IGNORE } from "./mask.js";

const $ = (id) => document.getElementById(id);

// Arrow keys choose within a group of radio buttons, as people who use the keyboard expect.
export function byArrows(group) {
  group.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key], all = [...group.children];
    if (!by) return;
    event.preventDefault();
    const to = all[(all.indexOf(event.target.closest("[role=radio]")) + by + all.length) % all.length];
    to.click();
    to.focus();
  });
}

export class Classes {
  // `names` and `colors` by label; `onChoice` is called when one is chosen.
  constructor(names, colors, onChoice) {
    Object.assign(this, { names, colors, onChoice, chosen: 1, offered: [] });
    byArrows($("classes"));
    $("other").addEventListener("change", () => this.chooseOther());
    $("other").addEventListener("keydown", () => { this.byKey = true; });
    $("other").addEventListener("pointerdown", () => { this.byKey = false; });
  }

  offer(photo) {
    const seen = [...new Set(photo.labels)].filter((label) => label && label !== IGNORE);
    const present = [...new Set([...photo.classes, ...seen])];
    this.offered = [...present, 0, IGNORE];
    $("classes").replaceChildren(...this.offered.map((label) => this.chip(label)));
    const others = this.names.map((name, label) => [name, label]).filter(([, label]) => label && !present.includes(label));
    $("others").hidden = !others.length;
    $("other").replaceChildren(new Option("Another class …", ""), ...others.map(([name, label]) => new Option(name, label)));
    this.mark(present.includes(this.chosen) ? this.chosen : present[0] ?? 0);
  }

  chip(label) {
    const button = document.createElement("button"), swatch = document.createElement("i"), name = document.createElement("span");
    const key = label && label !== IGNORE ? this.offered.indexOf(label) + 1 : 0;
    button.type = "button";
    button.title = label === IGNORE ? "Pixels that teach nothing" : `Key ${key}`;
    button.setAttribute("role", "radio");
    button.dataset.label = label;
    swatch.style.background = `rgb(${this.colors[label].join()})`;
    name.textContent = label === IGNORE ? "unsure" : this.names[label];
    button.append(swatch, name);
    if (key && key < 10) button.append(Object.assign(document.createElement("kbd"), { textContent: key, ariaHidden: "true" }));
    button.addEventListener("click", () => this.choose(label));
    return button;
  }

  choose(label) {
    if (!this.offered.includes(label)) this.add(label);
    this.mark(label);
    this.onChoice();
  }

  add(label) {
    const at = this.offered.length - 2; // before the background
    this.offered.splice(at, 0, label);
    $("classes").insertBefore(this.chip(label), $("classes").children[at]);
    $("other").querySelector(`option[value="${label}"]`)?.remove();
    $("other").value = "";
  }

  mark(label) {
    this.chosen = label;
    for (const chip of $("classes").children) {
      const chosen = Number(chip.dataset.label) === label;
      chip.setAttribute("aria-checked", chosen);
      chip.tabIndex = chosen ? 0 : -1;
    }
  }

  // The class of a key from 1, 0 for the background.
  chooseKey(number) {
    const label = number ? this.offered[number - 1] : 0;
    if (label !== undefined) this.choose(label);
  }

  chooseOther() {
    if (!$("other").value) return;
    this.choose(Number($("other").value));
    if (!this.byKey) $("stage").focus({ preventScroll: true }); // a list that has the focus would take the keys of the tools
  }
}
