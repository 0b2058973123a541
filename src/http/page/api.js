// Calls of the server, which is beside this page under whatever prefix a proxy gives it.

export const base = new URL(".", location.href).href;

/** What went wrong, in the server's words where it answered. */
export class Failure extends Error {
  constructor(message, { status = 0, code = null, retryAfter = null, requestId = null, title = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter, requestId, title });
  }
}

async function call(path, { key, ...options }) {
  const headers = { accept: "application/json" };
  if (options.body) headers["content-type"] = "application/json";
  if (key) headers.authorization = `Bearer ${key}`;
  let response, text;
  const start = performance.now();
  try {
    response = await fetch(base + path, { ...options, headers, cache: "no-store" });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const size = options.body ? new Blob([options.body]).size : 0;
    const large = size > 1e6 ? `, or it closed the connection because the request is too large (${megabytes(size)})` : "";
    throw new Failure(`The server at ${base} can't be reached. It may have stopped${large}.`, { title: "No answer" });
  }
  const roundTrip = performance.now() - start;
  let json = null;
  try {
    json = JSON.parse(text);
  } catch {
    // A proxy's error page, say: its status is told below.
  }
  if (!response.ok || json === null) throw failure(response, json);
  return { json, headers: response.headers, roundTrip };
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

function failure(response, json) {
  const message = json?.detail || json?.message || json?.error?.message || json?.error;
  const after = response.headers.get("retry-after");
  return new Failure(typeof message === "string" ? message : "What answered is not rerankd, or could not reach it.", {
    status: response.status,
    code: json?.code ?? null,
    title: json?.title || response.statusText || `Status ${response.status}`,
    retryAfter: after === null ? null : Number(after),
    requestId: response.headers.get("x-request-id"),
  });
}

/** The names of the models. */
export async function models(key) {
  const { json } = await call("v1/models", { key });
  return json.data.map((model) => model.id);
}

/** What the server tells of a model. */
export async function info(key, model) {
  const query = model ? `?model=${encodeURIComponent(model)}` : "";
  return (await call(`info${query}`, { key })).json;
}

/** The body of a request, as it is sent and shown. */
export const bodyOf = (request) => JSON.stringify(request, null, 1);

/** Ranks, without an explanation where the server refuses one; returns what was sent, the answer, and the refusal. */
export async function rerank(key, request, signal) {
  try {
    return { request, answer: await rank(key, request, signal) };
  } catch (failure) {
    if (failure.code !== "cannot_explain") throw failure;
    const { explain, ...rest } = request;
    return { request: rest, answer: await rank(key, rest, signal), refusal: failure.message };
  }
}

/** The answer and what its headers tell. */
async function rank(key, request, signal) {
  const { json, headers, roundTrip } = await call("v1/rerank", { key, method: "POST", body: bodyOf(request), signal });
  const spent = {};
  for (const [, name, ms] of (headers.get("server-timing") || "").matchAll(/(\w+);dur=([\d.]+)/g)) {
    spent[name] = Number(ms);
  }
  return {
    ...json,
    roundTrip,
    spent,
    truncated: Number(headers.get("x-rerankd-truncated-documents") || 0),
    ignored: (headers.get("x-rerankd-ignored-fields") || "").split(",").map((name) => name.trim()).filter(Boolean),
  };
}
