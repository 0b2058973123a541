// The documents: typed, pasted, or a file that is chosen or dropped.
import { useRef, useState } from "./vendor/hooks.js";
import { count, html, several } from "./html.js";
import { detect, read } from "./documents.js";

const FORMS = { lines: "Lines", paragraphs: "Paragraphs", json: "JSON", table: "Table" };
/** A larger file is not put into the text field, which would be slow. */
const MOST_SHOWN = 300_000;
const MOST_READ = 64_000_000;

export function Documents({ fields, set, input, most }) {
  const [over, setOver] = useState(false);
  const [problem, setProblem] = useState("");
  const chooser = useRef(null);
  const { documents, error } = input;

  async function take(file) {
    setProblem("");
    try {
      if (file.size > MOST_READ) throw new Error(`${file.name} is too large for this page: ${count(Math.round(file.size / 1e6))} MB. POST it to v1/rerank in parts.`);
      const text = await read(file);
      set({ text, form: detect(text, file.name), formChosen: true, file: file.name, column: null, score: null });
    } catch (failure) {
      setProblem(failure.message);
    }
  }
  const typed = (event) => {
    const text = event.target.value;
    set({ text, file: null, form: fields.formChosen && text ? fields.form : detect(text), formChosen: fields.formChosen && text !== "" });
  };
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  };
  const drag = (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    setOver(true);
  };
  const clear = () => set({ text: "", file: null, form: "lines", formChosen: false, column: null, score: null });
  const isLarge = fields.text.length > MOST_SHOWN;
  const tooMany = most && documents.length > most;
  return html`
    <fieldset class=${`documents${over ? " over" : ""}`} onDragOver=${drag} onDragLeave=${() => setOver(false)} onDrop=${drop}>
      <legend class="unseen">Documents</legend>
      <div class="row spread">
        <label for="documents">Documents</label>
        <span class="row">
          ${fields.text && html`<button type="button" class="quiet" onClick=${clear}>Clear</button>`}
          <input id="file" ref=${chooser} class="unseen" type="file" accept=".txt,.json,.jsonl,.ndjson,.csv,.tsv,.tab,.md,.gz" onChange=${(event) => {
            if (event.target.files[0]) take(event.target.files[0]);
            event.target.value = "";
          }} />
          <label for="file" class="button quiet">Open a file</label>
        </span>
      </div>
      ${isLarge
        ? html`<p id="documents" tabindex="0" class="large">${fields.file ?? "The text"} is too long to show here. All of it is used.</p>`
        : html`<textarea id="documents" rows="10" value=${fields.text} onInput=${typed} aria-describedby="documents-state" spellcheck=${false}
            placeholder=${"One document a line, or paragraphs with blank lines between them.\nJSON, CSV and TSV can be pasted or dropped here too."} />`}
      <div class="row read">
        <div class="choice" role="radiogroup" aria-label="The text is read as">
          ${Object.entries(FORMS).map(([form, name]) => html`
            <label key=${form}><input type="radio" name="form" checked=${fields.form === form} onChange=${() => set({ form, formChosen: true })} /><span>${name}</span></label>`)}
        </div>
        <span id="documents-state" class=${error || problem || tooMany ? "wrong" : ""} role="status">
          ${problem || error || (tooMany ? `${several(documents.length, "document")}; the server takes ${count(most)} in one request`
            : documents.length ? `${several(documents.length, "document")}${fields.file ? ` of ${fields.file}` : ""}` : "")}
        </span>
      </div>
      ${(input.columns?.length > 1 || input.numbers?.length > 0) && html`
        <div class="options">
          ${input.columns.length > 1 && html`
            <div>
              <label for="column">Text is in</label>
              <select id="column" value=${input.column} onChange=${(event) => set({ column: event.target.value })}>
                ${input.columns.map((name) => html`<option key=${name}>${name}</option>`)}
              </select>
            </div>`}
          ${input.numbers.length > 0 && html`
            <div>
              <label for="score">First-stage score is in</label>
              <select id="score" value=${input.score} onChange=${(event) => set({ score: event.target.value })}>
                <option value="">none of them</option>
                ${input.numbers.map((name) => html`<option key=${name}>${name}</option>`)}
              </select>
            </div>`}
        </div>`}
    </fieldset>`;
}
