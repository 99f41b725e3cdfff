// Requests to the node that served this page, and to no other host. A token that is entered stays in this tab.

const KEY = "qluster-token";

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => (text ? sessionStorage.setItem(KEY, text) : sessionStorage.removeItem(KEY)),
};

/** A request that failed: with the status and message of the API, or with status 0 if there was no answer. */
export class Refused extends Error {
  constructor(status, body) {
    super(body?.message ?? "This node does not answer.");
    this.status = status;
    this.leader = body?.leader ?? null;
  }
}

/** The JSON of an answer. `timeoutMs` is in milliseconds, and must be longer than a long poll waits. */
export async function ask(method, path, timeoutMs = 5000) {
  const headers = token.get() ? { Authorization: `Bearer ${token.get()}` } : {};
  let answer;
  let body;
  try {
    answer = await fetch(path, { method, headers, cache: "no-store", signal: AbortSignal.timeout(timeoutMs) });
    body = await answer.json();
  } catch (error) {
    throw new Refused(answer?.status ?? 0, answer ? { message: `The answer to ${path} cannot be read: ${error}` } : null);
  }
  if (!answer.ok) throw new Refused(answer.status, body);
  return body;
}
