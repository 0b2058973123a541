// The page: what it holds, and how a request is made of it and sent.
import { render } from "./vendor/preact.js";
import { useEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import { html, several } from "./html.js";
import { base, info, models, rerank } from "./api.js";
import { parse } from "./documents.js";
import { EXAMPLE } from "./examples.js";
import { Form } from "./form.js";
import { Failed, Results } from "./results.js";

const KEPT = "rerankd-key";

const EMPTY = {
  query: "", text: "", form: "lines", formChosen: false, file: null, column: null, score: null,
  model: "", topN: "", chunks: "", instruction: "", explain: true, fusion: "", weight: "",
};

/** What is kept for this tab, if the browser lets a page keep anything. */
function keptKey() {
  try {
    return sessionStorage.getItem(KEPT) ?? "";
  } catch {
    return "";
  }
}

function keepKey(key) {
  try {
    if (key) sessionStorage.setItem(KEPT, key);
    else sessionStorage.removeItem(KEPT);
  } catch {
    // Then it is for as long as the page is open.
  }
}

/** The request that the fields ask for, as sparse as they are. */
function requestOf(fields, input) {
  const { documents } = input;
  const scored = documents.some((document) => document.score != null);
  const ranks = /rank/i.test(input.score ?? "");
  const request = {};
  if (fields.model) request.model = fields.model;
  request.query = fields.query.trim();
  if (fields.instruction.trim()) request.instruction = fields.instruction.trim();
  request.documents = documents.map(({ text, score }) => (scored && fields.fusion && ranks && score != null ? { text, first_stage_rank: score } : text));
  if (scored && fields.fusion) {
    if (!ranks) request.first_stage_scores = documents.map(({ score }) => score);
    request.fusion = { method: fields.fusion };
    if (fields.weight !== "") request.fusion.weight = Number(fields.weight);
  }
  if (fields.topN !== "") request.top_n = Number(fields.topN);
  if (fields.chunks !== "") request.max_chunks_per_doc = Number(fields.chunks);
  if (fields.explain) request.explain = true;
  return request;
}

/** The fields that a request's body sets. */
function fieldsOf(request) {
  const fields = {};
  const set = (name, value) => value != null && (fields[name] = String(value));
  set("query", request.query);
  set("instruction", request.instruction ?? request.instruct);
  set("topN", request.top_n);
  set("chunks", request.max_chunks_per_doc);
  set("fusion", request.fusion?.method);
  set("weight", request.fusion?.weight);
  return fields;
}

function App() {
  const [fields, setFields] = useState(EMPTY);
  const [key, setKey] = useState(keptKey);
  const [keyOpen, setKeyOpen] = useState(false);
  const [server, setServer] = useState({});
  const [run, setRun] = useState({ state: "idle" });
  const abort = useRef(null);
  const set = (patch) => setFields((fields) => ({ ...fields, ...patch }));

  const input = useMemo(
    () => parse(fields.text, fields.form, { column: fields.column, score: fields.score }),
    [fields.text, fields.form, fields.column, fields.score],
  );
  // A whole request's fields are taken over once, when it comes.
  useEffect(() => {
    if (input.request) set(fieldsOf(input.request));
  }, [input.request && fields.text]);

  useEffect(() => {
    let current = true;
    Promise.all([models(key), info(key, fields.model)])
      .then(([models, info]) => current && setServer({ models, info }))
      .catch((failure) => {
        if (!current) return;
        setServer((server) => ({ ...server, failure }));
        if (failure.status === 401) setKeyOpen(true);
      });
    return () => (current = false);
  }, [key, fields.model]);

  async function send() {
    if (run.state === "busy") return;
    const missing = !fields.query.trim() ? "query" : !input.documents.length ? "documents" : null;
    if (missing) {
      setRun({ state: "failed", failure: { title: "Not sent", message: missing === "query" ? "The query is empty." : input.error ?? "There are no documents." } });
      return document.getElementById(missing)?.focus();
    }
    const request = requestOf(fields, input);
    abort.current = new AbortController();
    setRun((run) => ({ ...run, state: "busy", failure: null }));
    try {
      const ranked = await rerank(key, request, abort.current.signal);
      setRun({ state: "done", ...ranked, documents: input.documents, withKey: key !== "" });
    } catch (failure) {
      if (failure.name === "AbortError") return setRun((run) => ({ ...run, state: run.answer ? "done" : "idle" }));
      setRun({ state: "failed", failure });
      if (failure.status === 401) setKeyOpen(true);
    }
  }

  const keys = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
      event.preventDefault();
      send();
    }
  };
  const said = { idle: "", busy: "Ranking", failed: "" }[run.state] ?? `Ranked: ${several(run.answer?.results.length ?? 0, "result")}`;
  return html`
    <${Header} server=${server} keyOpen=${keyOpen} hasKey=${key !== ""} onKey=${() => setKeyOpen(!keyOpen)} />
    ${keyOpen && html`<${Key} value=${key} failure=${server.failure ?? run.failure} onUse=${(key, kept) => {
      keepKey(kept ? key : "");
      setServer({});
      setKey(key);
      setRun((run) => (run.failure?.status === 401 ? { state: "idle" } : run));
      setKeyOpen(false);
    }} />`}
    <main onKeyDown=${keys}>
      <${Form} fields=${fields} set=${set} input=${input} server=${server} busy=${run.state === "busy"}
        onSend=${send} onStop=${() => abort.current.abort()} onExample=${() => setFields({ ...EMPTY, ...EXAMPLE, model: fields.model })} />
      <section class="answer" aria-labelledby="answer-title">
        <h2 id="answer-title" class=${run.answer ? "" : "unseen"}>Results</h2>
        <p role="status" class="unseen">${said}</p>
        <div role="alert">${run.failure && html`<${Failed} failure=${run.failure} />`}</div>
        ${server.failure && !run.failure && server.failure.status !== 401 && html`<${Failed} failure=${server.failure} />`}
        ${run.answer
          ? html`<${Results} run=${run} info=${server.info} />`
          : !run.failure && html`<${Idle} busy=${run.state === "busy"} />`}
      </section>
    </main>
    <footer>
      <a href="docs/">API documentation</a> <a href="openapi.json">openapi.json</a> <a href="page/vendor/licences.txt">Licences</a>
      <span>Nothing leaves this server.</span>
    </footer>`;
}

function Header({ server, keyOpen, hasKey, onKey }) {
  const { info, failure } = server;
  const state = info
    ? html`<b>${info.model_id}</b> <span>${info.device}, ${info.model_dtype}, at most ${info.max_input_length} tokens a pair</span>`
    : failure?.status === 401 ? "asks for an API key" : failure ? "not ready" : "";
  return html`
    <header>
      <h1><svg viewBox="0 0 16 16" aria-hidden="true"><path d="M1 2h14v3H1z" /><path d="M1 6.5h9v3H1z" /><path d="M1 11h5v3H1z" /></svg>rerankd</h1>
      <p class="model">${state}</p>
      <nav aria-label="Site">
        <button type="button" class="quiet" aria-expanded=${keyOpen} aria-controls="key-panel" onClick=${onKey}>API key${hasKey ? ": set" : ""}</button>
        <a href="docs/">Docs</a>
      </nav>
    </header>`;
}

function Key({ value, failure, onUse }) {
  const field = useRef(null);
  const kept = useRef(null);
  useEffect(() => field.current.focus(), []);
  const use = (event) => {
    event.preventDefault();
    onUse(field.current.value.trim(), kept.current.checked);
  };
  return html`
    <form class="key" id="key-panel" aria-label="API key" onSubmit=${use}>
      <label for="key">API key</label>
      <input id="key" ref=${field} type="password" autocomplete="off" spellcheck=${false} defaultValue=${value} aria-describedby="key-help" />
      <button type="submit">Use it</button>
      <label class="check"><input ref=${kept} type="checkbox" defaultChecked=${keptKey() !== ""} /> Keep it until this tab is closed</label>
      <p id="key-help" role=${failure?.status === 401 ? "alert" : undefined}>
        ${failure?.status === 401 ? failure.message : "It is sent to this server only, and forgotten with the page unless it is kept."}
      </p>
    </form>`;
}

function Idle({ busy }) {
  return html`
    <div class="idle">
      <p>${busy ? "Ranking…" : "The documents, best first, will stand here: with their scores, how far each moved, and which words made it so."}</p>
    </div>`;
}

render(html`<${App} />`, document.getElementById("app"));
