// The page: asks this node again and again, and shows the answers.

import { Refused, ask, token } from "./api.js";
import { Picture } from "./picture.js";
import * as view from "./view.js";

/** Between two requests for the status, and after a failure. */
const PAUSE_MS = 1000;
/** How long the node may wait for news before it answers. */
const WAIT_SECONDS = 25;
/** For a request that waits for news. */
const WAIT_TIMEOUT_MS = (WAIT_SECONDS + 5) * 1000;
/** For a request that changes the cluster: a switchover writes out the primary's data first. */
const CHANGE_TIMEOUT_MS = 60_000;
/** How many events are listed. */
const MAX_EVENTS = 200;
const find = (id) => document.getElementById(id);
const picture = new Picture(find("picture"));
const state = { map: null, status: null, newest: null, refused: null };

function make(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Changes a text only if it differs: a screen reader would announce the same text again. */
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
  const asked = status ? `Node ${status.node} served this page.` : "";
  write(find("asked"), asked);
}

function row(node) {
  const cell = (label, kind, ...content) => make("td", { "data-label": label, class: kind }, make("span", {}, ...content));
  const state = make("span", { class: node.answers ? "good" : "bad" }, node.state);
  const actions = [
    make("button", { type: "button", "data-action": "switch", "data-node": node.id, "aria-label": `Make node ${node.id} the leader` }, "Make leader"),
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
  // The button that had the focus has it again.
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
  while (list.children.length > MAX_EVENTS) list.lastChild.remove();
  find("no-events").hidden = list.children.length > 0;
}

function trouble(error) {
  const needs = error?.status === 401;
  const text = needs ? "This node asks for a token. Enter one to see its cluster." : error?.message;
  const notice = find("trouble");
  write(notice, text ?? "");
  notice.hidden = !text;
  // The page still shows the last answers.
  document.body.classList.toggle("stale", Boolean(text));
}

// ---- what is asked ----

const pause = (time) => new Promise((done) => setTimeout(done, time));
const visible = () => document.hidden
  ? new Promise((done) => document.addEventListener("visibilitychange", done, { once: true })) : null;

/** Repeats a request while the page is visible; pauses after a failure. */
async function forever(request) {
  for (;;) {
    await visible();
    const used = token.get();
    try {
      await request();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 401) askForToken(used);
      // A wrong token is not sent again, because the node would refuse this address for a while.
      do await pause(PAUSE_MS); while (error.status === 401 && used && token.get() === used);
    }
  }
}

/** Asks for the map and the status. Both can change without a new log entry: a lag grows, a lease ends. */
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
  await pause(PAUSE_MS);
}

/** Waits for a newer map. */
async function follow() {
  if (!state.map) return pause(PAUSE_MS);
  state.map = await ask("GET", `map?after-index=${state.map.index}&wait=${WAIT_SECONDS}s`, WAIT_TIMEOUT_MS);
  show();
}

/** Waits for new events. */
async function listen() {
  const after = state.newest;
  const path = after === null ? `events?limit=${MAX_EVENTS}` : `events?after-index=${after}&wait=${WAIT_SECONDS}s`;
  const events = await ask("GET", path, WAIT_TIMEOUT_MS);
  state.newest = events.at(-1)?.index ?? after ?? 0;
  showEvents(events, after !== null);
}

// ---- what is done ----

/** Asks the viewer, and resolves to whether the answer is yes. */
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
      title: `Make node ${node} the leader?`, yes: `Make node ${node} the leader`,
      text: `The primary stops in good order, and node ${node} takes over in about half a second. Sessions end and have to connect again. Nothing is lost.`,
    },
  }),
  down: (node) => ({
    path: `node-down/${node}`,
    question: {
      title: `Declare node ${node} down?`, yes: `Declare node ${node} down`, grave: true,
      text: `Until it is enrolled again, node ${node} has no vote and poolers do not read from it. If it leads, it hands over first.`,
    },
  }),
};

async function act(kind, node) {
  const { path, question } = ACTIONS[kind](node);
  const { map, status } = state;
  const leader = map.nodes[map.leader];
  if (leader && status.node !== map.leader) {
    const link = `${location.protocol}//${view.node(map, status, map.leader).api}/`;
    await confirmed({ title: "Only the leader makes changes", text: `Node ${status.node} served this page. Open the page of node ${map.leader}, the leader:`, yes: "Close", link });
    focus(kind, node);
    return;
  }
  const yes = await confirmed(question);
  // The dialog gives the focus back to its button, which may have been drawn again meanwhile.
  focus(kind, node);
  if (!yes) return;
  try {
    await ask("POST", path, CHANGE_TIMEOUT_MS);
  } catch (error) {
    const asks = error.status === 401 || error.status === 403;
    const text = error.status === 403 ? "This token may only read. Enter an admin token." : error.message;
    if (asks && (await enterToken(text))) return act(kind, node);
    const title = error.status === 0 ? "No answer: the change may still take effect" : "The change failed";
    if (!asks) await confirmed({ title, text, yes: "Close" });
  }
}

async function enterToken(text = "Changes need an admin token. The token stays in this tab until you close it.") {
  const yes = await confirmed({ title: "Enter a token", text, yes: "Use it", secret: true });
  if (yes) token.set(find("ask-token").value.trim());
  showToken();
  return yes;
}

/** Asks for a token once after each one that the node refused, and once if there was none. The button stays. */
function askForToken(used) {
  if (used !== token.get() || used === state.refused || find("ask").open) return;
  state.refused = used;
  const known = "A read token is enough to look. The token stays in this tab until you close it.";
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
