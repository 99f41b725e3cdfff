// The texts and tones that the page shows, from the map and the status. Nothing is drawn here.

const UNITS = [[2 ** 40, "TB"], [2 ** 30, "GB"], [2 ** 20, "MB"], [2 ** 10, "kB"]];

/** A number of bytes as people write it; empty if it is unknown. */
export function bytes(count) {
  if (count === null || count === undefined) return "";
  const [size, unit] = UNITS.find(([size]) => count >= size) ?? [1, "B"];
  const number = count / size;
  return `${number >= 100 || size === 1 ? Math.round(number) : number.toFixed(1)} ${unit}`;
}

function address(ip, port) {
  return port === null ? "" : `${ip.includes(":") ? `[${ip}]` : ip}:${port}`;
}

const DATABASE_ROLES = { absent: "no data yet", stopped: "stopped", starting: "starting", rebuilding: "being rebuilt" };

function database(database, leads) {
  if (!database) return { text: "", good: true };
  switch (database.role) {
    case "primary":
      return leads ? { text: "primary", good: true } : { text: "primary of an earlier term", good: false };
    case "standby":
      return database.streaming ? { text: "standby, streams", good: true } : { text: "standby, does not stream", good: false };
    default: {
      const progress = database.progress === null ? "" : ` ${database.progress} %`;
      return { text: DATABASE_ROLES[database.role] + progress, good: false };
    }
  }
}

/** One node: its texts, its tone (`lead`, `good`, `warn`, `bad`) and the node that it follows. */
export function node(map, status, id) {
  const member = map.nodes[id];
  const told = status?.nodes[id] ?? null;
  const leads = map.leader === member.id;
  const shown = database(told?.database, leads);
  const votes = ["voter", "witness"].includes(member.role) && member.state !== "down";
  const away = member.state !== "up" || !told;
  const reasons = [member.reason, told?.database?.unfit, told?.note].filter(Boolean);
  const state = member.state !== "up" ? member.state : told ? "up" : "does not answer";
  let tone = "good";
  if (away) tone = "bad";
  else if (leads) tone = "lead";
  else if (!shown.good || told.database?.unfit) tone = "warn";
  return {
    id: member.id, role: member.role, leads, votes, answers: !away, state, tone, database: shown.text,
    what: away ? state : shown.text || member.role,
    lag: told?.database?.["replay-lag"] ?? null,
    timeline: told?.database?.timeline ?? null,
    follows: told?.database?.role === "standby" ? told.database.follows : null,
    streams: told?.database?.streaming ?? false,
    // The map and the status often give the same reason.
    reasons: reasons.filter((reason, index) => reasons.indexOf(reason) === index),
    api: address(member.ip, member["api-port"]), db: address(member.ip, member["db-port"]),
    mayLead: member.role === "voter" && !away && !leads,
    mayGoDown: member.state !== "down" && member.role !== "listener",
  };
}

/** The nodes, by id. */
export function nodes(map, status) {
  return Object.keys(map.nodes).map(Number).sort((a, b) => a - b).map((id) => node(map, status, id));
}

/** A reason as a sentence. */
function sentence(reason) {
  return reason === "" ? "" : `${reason.charAt(0).toUpperCase()}${reason.slice(1)}.`;
}

/** The first line of the page, and its tone. */
export function summary(map, nodes) {
  const voters = nodes.filter((node) => node.votes);
  const answering = voters.filter((node) => node.answers).length;
  const votes = `Term ${map.term}, ${answering} of ${voters.length} voters answer.`;
  if (map.leader === null) return { tone: "bad", headline: "Nobody leads.", detail: `${votes} ${sentence(map.reason ?? "")}` };
  const ill = nodes.filter((node) => node.tone === "bad" || node.tone === "warn");
  const names = ill.map((node) => node.id).join(", ");
  const headline = `Node ${map.leader} leads.`;
  if (ill.length === 0) return { tone: "good", headline, detail: `${votes} All is well.` };
  const look = ill.length === 1 ? `Node ${names} needs attention.` : `Nodes ${names} need attention.`;
  return { tone: "warn", headline, detail: `${votes} ${look}` };
}

const BAD = ["node-down", "node-unreachable", "nobody-leads", "data-loss-accepted", "node-removed"];
const LEAD = ["leader-elected", "database-promoted"];
/** Kinds that the page calls by another name than the API. */
const NAMES = { "node-upgraded": "node enrolled" };

/** An event in the form in which the page lists it. */
export function event(event) {
  const kind = NAMES[event.kind] ?? event.kind.replaceAll("-", " ");
  const name = kind.charAt(0).toUpperCase() + kind.slice(1);
  const tone = BAD.includes(event.kind) ? "bad" : LEAD.includes(event.kind) ? "lead" : "good";
  return { title: event.node === null ? name : `${name}: node ${event.node}`, cause: `${event.cause} (${event.actor})`, tone };
}
