// What the page asks of the server. Every function throws an Error whose message is a sentence for the annotator.

const OURS = { "X-Requested-With": "slicecast" };

async function ask(method, address, body, signal) {
  const headers = body === undefined ? OURS : { ...OURS, "Content-Type": "application/json" };
  let response;
  try {
    response = await fetch(address, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new LostConnection();
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const answer = await response.json().catch(() => ({}));
  const detail = typeof answer.detail === "string" ? answer.detail : `The server answered ${response.status}.`;
  return Object.assign(new Error(detail), { status: response.status });
}

/** The server cannot be reached; nothing is lost, because each change is on its disk before it answers. */
export class LostConnection extends Error {
  constructor() { super("The server cannot be reached. Your work is kept there; try again in a moment."); }
}

const json = async (method, address, body) => (await ask(method, address, body)).json();
const session = (id, part = "") => `/slicecast/sessions/${id}${part}`;
const ofCase = (name, part) => `/campaign/case/${encodeURIComponent(name)}/${part}`;

export const caseOf = (image) => json("GET", `/annotate/case?image=${encodeURIComponent(image)}`);
export const scan = async (image) => (await ask("GET", `/annotate/scan.nii?image=${encodeURIComponent(image)}`)).arrayBuffer();
export const coming = async () => (await json("GET", "/annotate/next")).image;
export const openSession = (asked) => json("POST", "/slicecast/sessions", asked);
export const sessions = async () => (await json("GET", "/slicecast/sessions")).sessions;
export const readSession = (id) => json("GET", session(id));
export const changeSession = (id, change) => json("PATCH", session(id), change);
export const closeSession = (id) => ask("DELETE", session(id));
export const addPrompts = (id, prompts) => json("POST", session(id, "/prompts"), { prompts });
export const removePrompt = (id, prompt) => json("DELETE", session(id, `/prompts/${prompt}`));
export const readings = async (id, object, slice) => (await json("GET", session(id, `/readings?object=${encodeURIComponent(object)}&slice=${slice}`))).readings;
export const undo = (id) => json("POST", session(id, "/undo"));
export const redo = (id) => json("POST", session(id, "/redo"));
export const lock = (id, object, slices) => json("POST", session(id, "/accept"), { object, slices });
export const unlock = (id, object, slices) => json("POST", session(id, "/release"), { object, slices });
export const cancel = (id) => json("POST", session(id, "/cancel"));
export const saveDraft = (id, dropped) => json("POST", session(id, "/draft"), { dropped });
export const act = (name, action, content = {}) => json("POST", ofCase(name, action), content);
export const nextCase = (ahead) => json("POST", "/campaign/next", { ahead });

/** Get one of a case's masks: `voxels` in the scan's order, one byte each, and the value of each structure in `values`. */
export async function mask(image, title) {
  const response = await ask("GET", `/annotate/mask.nii?image=${encodeURIComponent(image)}&title=${encodeURIComponent(title)}`);
  const content = await response.arrayBuffer(), offset = new DataView(content).getFloat32(108, true);
  return { voxels: new Uint8Array(content, offset), values: JSON.parse(response.headers.get("X-Slicecast-Labels")) };
}

/** Propagate a session's prompts; `strategy` suggests the next slice, empty is the server's own. Calls `onEvent` with every line as it comes; `signal` stops the server. */
export async function propagate(id, strategy, signal, onEvent) {
  const response = await ask("POST", session(id, `/propagate${strategy ? `?slice_strategy=${strategy}` : ""}`), undefined, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch(() => { throw new LostConnection(); });
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      if (event.type === "error") throw Object.assign(new Error(event.detail), { status: event.status });
      onEvent(event);
    }
  }
}
