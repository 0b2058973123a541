// What is asked: the query, the documents, the options.
import { html } from "./html.js";
import { Documents } from "./input.js";

export function Form({ fields, set, input, server, busy, onSend, onStop, onExample }) {
  const submit = (event) => {
    event.preventDefault();
    onSend();
  };
  const enter = (event) => {
    // As in a search field; a line break takes Shift.
    if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.metaKey && !event.isComposing) submit(event);
  };
  const field = (name) => ({ value: fields[name], onInput: (event) => set({ [name]: event.target.value }) });
  return html`
    <form class="ask" aria-label="Request" onSubmit=${submit} noValidate>
      <div class="row spread">
        <label for="query">Query</label>
        <button type="button" class="quiet" onClick=${onExample}>Try an example</button>
      </div>
      <textarea id="query" rows="2" ...${field("query")} onKeyDown=${enter} placeholder="What should the documents answer?" />
      <${Documents} fields=${fields} set=${set} input=${input} most=${server.info?.max_client_batch_size} />
      <${Options} fields=${fields} field=${field} set=${set} input=${input} server=${server} />
      <div class="row send">
        <button type=${busy ? "button" : "submit"} class="main" onClick=${busy ? onStop : undefined}>${busy ? "Stop" : "Rank"}</button>
        <kbd>Ctrl</kbd><span class="plus">+</span><kbd>Enter</kbd>
        <label class="check"><input type="checkbox" checked=${fields.explain} onChange=${(event) => set({ explain: event.target.checked })} /> Explain why</label>
      </div>
    </form>`;
}

function Options({ fields, field, set, input, server }) {
  const { models, info } = server;
  const scored = input.documents.some((document) => document.score != null);
  return html`
    <fieldset class="options">
      <legend class="unseen">Options</legend>
      ${models?.length > 1 && html`
        <div>
          <label for="model">Model</label>
          <select id="model" value=${fields.model || models[0]} onChange=${(event) => set({ model: event.target.value })}>
            ${models.map((name) => html`<option key=${name}>${name}</option>`)}
          </select>
        </div>`}
      <div>
        <label for="top-n">Results at most</label>
        <input id="top-n" type="number" min="1" inputmode="numeric" placeholder="all" ...${field("topN")} />
      </div>
      <div>
        <label for="chunks">Windows of a long document</label>
        <input id="chunks" type="number" min="1" max="1024" inputmode="numeric" placeholder=${info?.max_chunks_per_doc ?? ""} ...${field("chunks")} />
      </div>
      ${(info?.takes_instruction || fields.instruction) && html`
        <div class="wide">
          <label for="instruction">Instruction</label>
          <input id="instruction" type="text" placeholder=${info?.default_instruction ?? "none"} ...${field("instruction")} />
        </div>`}
      ${scored && html`
        <div>
          <label for="fusion">Their first-stage scores</label>
          <select id="fusion" value=${fields.fusion} onChange=${(event) => set({ fusion: event.target.value, weight: "" })}>
            <option value="">are not used</option>
            <option value="weighted">count by their value</option>
            <option value="rrf">count by their rank</option>
          </select>
        </div>
        ${fields.fusion && html`
          <div>
            <label for="weight">Their share, 0 to 1</label>
            <input id="weight" type="number" min="0" max="1" step="0.05" inputmode="decimal" placeholder=${fields.fusion === "rrf" ? 0.5 : 0.2} ...${field("weight")} />
          </div>`}`}
    </fieldset>`;
}
