// The cluster as a picture: the leader at the top, the other nodes below, and a line to each node from the one that it
// follows.

import { bytes } from "./view.js";

const SVG = "http://www.w3.org/2000/svg";
// A card, the gap between two cards, and the space for the lines below the leader: in CSS pixels.
const WIDTH = 208;
const HEIGHT = 92;
const GAP = 26;
const DROP = 84;

/** The place of each card; the node `top` is above the others. Pure. */
export function layout(ids, top, width) {
  const places = new Map();
  const narrow = width < 2 * WIDTH + GAP;
  const rest = ids.filter((id) => id !== top);
  const size = narrow ? Math.min(width - 34, 300) : WIDTH;
  let y = 0;
  if (top !== null) {
    places.set(top, { x: narrow ? 0 : (width - size) / 2, y });
    y += HEIGHT + (narrow ? 46 : DROP);
  }
  const columns = narrow ? 1 : Math.max(1, Math.floor((width + GAP) / (size + GAP)));
  for (let start = 0; start < rest.length; start += columns) {
    const row = rest.slice(start, start + columns);
    const wide = row.length * size + (row.length - 1) * GAP;
    row.forEach((id, index) => places.set(id, { x: narrow ? 34 : (width - wide) / 2 + index * (size + GAP), y }));
    y += HEIGHT + (narrow ? 28 : 40);
  }
  return { places, narrow, size, height: y - (narrow ? 28 : rest.length ? 40 : DROP) };
}

/** The line from one card to another, and the place of its label. Pure. */
export function line(from, to, { narrow, size }) {
  if (narrow) {
    const [x, start, end] = [14, from.y + HEIGHT, to.y + HEIGHT / 2];
    const path = from.y < to.y ? `M${x} ${start} V${end - 10} Q${x} ${end} ${x + 10} ${end} H${to.x}` : "";
    return { path, x: to.x + 20, y: to.y - 8, anchor: "start" };
  }
  const [a, b] = from.y < to.y ? [{ x: from.x + size / 2, y: from.y + HEIGHT }, { x: to.x + size / 2, y: to.y }]
    : [{ x: from.x + size / 2, y: from.y }, { x: to.x + size / 2, y: to.y + HEIGHT }];
  const middle = (a.y + b.y) / 2;
  return { path: `M${a.x} ${a.y} C${a.x} ${middle} ${b.x} ${middle} ${b.x} ${b.y}`, x: b.x + (b.x < a.x ? -12 : 12), y: b.y - 16, anchor: b.x < a.x ? "end" : "start" };
}

function element(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function card(id) {
  const text = (kind, y) => element("text", { class: kind, x: 20, y });
  return element("g", { class: "card", "data-node": id },
    element("rect", { class: "body", height: HEIGHT, rx: 12 }),
    element("rect", { class: "edge", x: 0, y: 14, width: 4, height: HEIGHT - 28, rx: 2 }),
    text("name", 30), text("what", 53), text("where", 75),
    element("circle", { class: "vote", cy: HEIGHT - 20, r: 4.5 }),
    element("g", { class: "badge" },
      element("rect", { x: -27, y: -14, width: 54, height: 21, rx: 10.5 }), element("text", { y: 1 })));
}

export class Picture {
  #svg;
  #cards = new Map();
  #top = null;

  constructor(svg) {
    this.#svg = svg;
  }

  /** Draws the nodes. The last leader stays at the top until another node leads. */
  draw(nodes) {
    const leader = nodes.find((node) => node.leads)?.id;
    this.#top = leader ?? (nodes.some((node) => node.id === this.#top) ? this.#top : null);
    const laid = layout(nodes.map((node) => node.id), this.#top, this.#svg.clientWidth);
    this.#svg.style.height = `${Math.max(laid.height, HEIGHT) + 4}px`;
    this.#drawCards(nodes, laid);
    this.#drawLinks(nodes, laid);
  }

  #drawCards(nodes, { places, size }) {
    const parent = this.#svg.querySelector("#cards");
    for (const [id, made] of this.#cards) {
      if (!places.has(id)) {
        made.remove();
        this.#cards.delete(id);
      }
    }
    for (const node of nodes) {
      if (!this.#cards.has(node.id)) this.#cards.set(node.id, parent.appendChild(card(node.id)));
      const made = this.#cards.get(node.id);
      const { x, y } = places.get(node.id);
      made.style.transform = `translate(${x}px, ${y}px)`;
      made.dataset.tone = node.tone;
      made.dataset.leads = node.leads;
      made.dataset.database = node.database;
      const write = (kind, text) => (made.querySelector(kind).textContent = text);
      write(".name", `Node ${node.id}`);
      write(".what", node.what);
      write(".where", (node.db || node.api).slice(0, 27));
      made.querySelector(".body").setAttribute("width", size);
      const vote = made.querySelector(".vote");
      vote.setAttribute("cx", size - 20);
      vote.classList.toggle("hollow", !node.answers);
      vote.style.display = node.votes ? "" : "none";
      const badge = made.querySelector(".badge");
      badge.setAttribute("transform", `translate(${size - 40} 27)`);
      badge.style.display = node.leads ? "" : "none";
      write(".badge text", "leads");
    }
  }

  #drawLinks(nodes, laid) {
    const parent = this.#svg.querySelector("#links");
    const wanted = new Map();
    for (const node of nodes) {
      const from = node.follows ?? (node.leads || node.database || !node.answers ? null : this.#top);
      if (from === null || from === node.id || !laid.places.has(from)) continue;
      const kind = node.follows === null ? "vote" : node.streams ? "streams" : "broken";
      const { path, x, y, anchor } = line(laid.places.get(from), laid.places.get(node.id), laid);
      const behind = node.lag === 0 ? "no lag" : `${bytes(node.lag)} behind`;
      const label = kind === "streams" && node.lag !== null ? behind : "";
      wanted.set(`${from} ${node.id} ${kind} ${path}`, { from, node: node.id, kind, path, x, y, anchor, label });
    }
    // A line that is still wanted stays, so that it does not flicker.
    for (const made of [...parent.children]) {
      if (!wanted.has(made.dataset.key)) made.remove();
    }
    for (const [key, link] of wanted) {
      let made = [...parent.children].find((made) => made.dataset.key === key);
      if (!made) {
        const attributes = { class: `link ${link.kind}`, "data-key": key, "data-from": link.from, "data-to": link.node };
        made = parent.appendChild(element("g", attributes, element("path", { d: link.path }), element("text", { x: link.x, y: link.y, "text-anchor": link.anchor })));
      }
      made.querySelector("text").textContent = link.label;
    }
  }
}
