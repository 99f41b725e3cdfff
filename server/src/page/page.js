// The page: asks this node again and again, and shows what it says.

import { Refused, ask, token } from "./api.js";
import { Picture } from "./picture.js";
import * as view from "./view.js";

const TICK = 1000;
const WAIT = 25;
const EVENTS = 200;
const find = (id) => document.getElementById(id);
const picture = new Picture(find("picture"));
const state = { map: null, status: null, newest: null, refused: null };

function make(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Changes a text only where it is another: what is announced is not announced again. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// ---- what is shown ----

function show() {
  const { map, status } = state;
  if (!map) return;
  const nodes = view.nodes(map, status);
  const { tone, headline, detail } = view.summary(map, nodes);
  find("summary").dataset.tone = tone;
  write(find("headline"), headline);
  write(find("detail"), detail);
  document.title = `qluster: ${headline}`;
  picture.draw(nodes);
  showTable(nodes);
  showSettings(map.config);
  const asked = status ? `This page is node ${status.node}'s.` : "";
  write(find("asked"), asked);
}

function row(node) {
  const cell = (label, kind, ...content) => make("td", { "data-label": label, class: kind }, make("span", {}, ...content));
  const state = make("span", { class: node.answers ? "good" : "bad" }, node.state);
  const actions = [
    make("button", { type: "button", "data-action": "switch", "data-node": node.id, "aria-label": `Hand leadership to node ${node.id}` }, "Make leader"),
    make("button", { type: "button", "data-action": "down", "data-node": node.id, "aria-label": `Declare node ${node.id} down` }, "Declare down"),
  ];
  actions[0].disabled = !node.mayLead;
  actions[1].disabled = !node.mayGoDown;
  const made = make("tr", { "data-node": node.id },
    make("th", { scope: "row", "data-label": "Node" }, make("span", {}, String(node.id))),
    cell("Role", "", node.leads ? `${node.role}, leads` : node.role), cell("State", "", state),
    cell("Database", "", node.database || (node.answers ? "none" : "unknown")), cell("Lag", "number", view.bytes(node.lag) || "–"),
    cell("Timeline", "number", node.timeline === null ? "–" : String(node.timeline)),
    cell("Addresses", "addresses", make("span", {}, `API ${node.api}`), node.db ? make("span", {}, `database ${node.db}`) : ""),
    cell("", "actions", ...actions));
  if (node.reasons.length === 0) return [made];
  const why = make("tr", { class: node.tone === "bad" ? "why bad" : "why" }, make("td", { colspan: 8 }, node.reasons.join("; ")));
  return [made, why];
}

function showTable(nodes) {
  const body = document.querySelector("#nodes tbody");
  const made = make("tbody", {}, ...nodes.flatMap(row));
  if (made.innerHTML === body.innerHTML) return;
  const { action, node } = body.contains(document.activeElement) ? document.activeElement.dataset : {};
  body.replaceWith(made);
  // Whoever is at a button by keyboard stays there.
  if (action) focus(action, node);
}

function focus(action, node) {
  document.querySelector(`#nodes [data-action="${action}"][data-node="${node}"]`)?.focus();
}

function showSettings(config) {
  const shown = Object.entries(config).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]);
  find("settings").replaceChildren(...shown);
}

function showEvents(events, live) {
  const list = find("events");
  for (const event of events) {
    const { title, cause, tone } = view.event(event);
    const time = new Date(event.time);
    const item = make("li", { "data-tone": tone, class: live ? "new" : "" },
      make("time", { datetime: event.time, title: time.toLocaleString() }, time.toLocaleTimeString()),
      make("span", { class: "kind" }, title), make("span", { class: "cause" }, cause));
    list.prepend(item);
  }
  while (list.children.length > EVENTS) list.lastChild.remove();
  find("no-events").hidden = list.children.length > 0;
}

function trouble(error) {
  const needs = error?.status === 401;
  const text = needs ? "This node asks for a token: enter one to see its cluster." : error?.message;
  const notice = find("trouble");
  write(notice, text ?? "");
  notice.hidden = !text;
  // What is shown is how it was.
  document.body.classList.toggle("stale", Boolean(text));
}

// ---- what is asked ----

const pause = (time) => new Promise((done) => setTimeout(done, time));
const visible = () => document.hidden
  ? new Promise((done) => document.addEventListener("visibilitychange", done, { once: true })) : null;

/** Repeats a request while somebody looks; after a failure, a little later. */
async function forever(request) {
  for (;;) {
    await visible();
    const used = token.get();
    try {
      await request();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 401) askForToken(used);
      // A wrong token is not sent again: the node would refuse this address for a while.
      do await pause(TICK); while (error.status === 401 && used && token.get() === used);
    }
  }
}

/** How the nodes are changes without a word in the log; so does who leads, where a lease ends. */
async function tick() {
  try {
    const [map, status] = await Promise.all([ask("GET", "map"), ask("GET", "status")]);
    Object.assign(state, { map, status });
    trouble(null);
    show();
  } catch (error) {
    trouble(error);
    throw error;
  }
  await pause(TICK);
}

async function follow() {
  if (!state.map) return pause(TICK);
  state.map = await ask("GET", `map?after-index=${state.map.index}&wait=${WAIT}s`, (WAIT + 5) * 1000);
  show();
}

async function listen() {
  const after = state.newest;
  const path = after === null ? `events?limit=${EVENTS}` : `events?after-index=${after}&wait=${WAIT}s`;
  const events = await ask("GET", path, (WAIT + 5) * 1000);
  state.newest = events.at(-1)?.index ?? after ?? 0;
  showEvents(events, after !== null);
}

// ---- what is done ----

/** Asks the viewer; whether the answer is yes. */
function confirmed({ title, text, yes, grave = false, link = null, secret = false }) {
  const dialog = find("ask");
  write(find("ask-title"), title);
  write(find("ask-text"), text);
  write(find("ask-yes"), yes);
  find("ask-yes").classList.toggle("grave", grave);
  find("ask-label").hidden = !secret;
  find("ask-token").value = "";
  find("ask-link").hidden = !link;
  if (link) Object.assign(find("ask-link").firstChild, { href: link, textContent: link });
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

const ACTIONS = {
  switch: (node) => ({
    path: `leader?node=${node}`,
    question: {
      title: `Hand leadership to node ${node}?`, yes: `Make node ${node} leader`,
      text: "The primary stops in good order and node " + node + " takes over, in about half a second. Sessions end and have to connect again; nothing is lost.",
    },
  }),
  down: (node) => ({
    path: `node-down/${node}`,
    question: {
      title: `Declare node ${node} down?`, yes: `Declare node ${node} down`, grave: true,
      text: "It loses its vote and is no replica any more until it is upgraded again. If it leads, it hands over first.",
    },
  }),
};

async function act(kind, node) {
  const { path, question } = ACTIONS[kind](node);
  const { map, status } = state;
  const leader = map.nodes[map.leader];
  if (leader && status.node !== map.leader) {
    const link = `${location.protocol}//${view.node(map, status, map.leader).api}/`;
    await confirmed({ title: "Only the leader changes anything", text: `This page is node ${status.node}'s. Go on at the page of node ${map.leader}, which leads:`, yes: "Close", link });
    focus(kind, node);
    return;
  }
  const yes = await confirmed(question);
  // The dialog gives the focus back to its button, which may have been drawn anew meanwhile.
  focus(kind, node);
  if (!yes) return;
  try {
    await ask("POST", path, 60_000);
  } catch (error) {
    const asks = error.status === 401 || error.status === 403;
    const text = error.status === 403 ? "This token may only read: enter one of the kind admin." : error.message;
    if (asks && (await enterToken(text))) return act(kind, node);
    if (!asks) await confirmed({ title: "It was not done", text, yes: "Close" });
  }
}

async function enterToken(text = "Changes need one of the kind admin. It stays in this tab until that is closed.") {
  const yes = await confirmed({ title: "Enter a token", text, yes: "Use it", secret: true });
  if (yes) token.set(find("ask-token").value.trim());
  showToken();
  return yes;
}

/** Asks once for each token, or the lack of one, that a node refused; the button stays. */
function askForToken(used) {
  if (used !== token.get() || used === state.refused || find("ask").open) return;
  state.refused = used;
  const known = "One of the kind read is enough to look. It stays in this tab until that is closed.";
  enterToken(used ? `This node does not know that token. ${known}` : `This node asks for a token. ${known}`);
}

function showToken() {
  write(find("token"), token.get() ? "Forget the token" : "Enter a token");
}

find("token").addEventListener("click", () => {
  if (!token.get()) return enterToken();
  token.set("");
  showToken();
});
find("nodes").addEventListener("click", ({ target }) => {
  if (target.dataset.action) act(target.dataset.action, target.dataset.node);
});
new ResizeObserver(show).observe(find("picture").parentElement);
showToken();
for (const request of [tick, follow, listen]) forever(request);
