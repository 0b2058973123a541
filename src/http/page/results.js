// What came back: bars, moves, why, and the same request as code.
import { useState } from "./vendor/hooks.js";
import { count, html, several } from "./html.js";
import { snippets } from "./snippets.js";

/** Longer documents are shown in part at first. */
const LONG = 700;
/** Weights below this share of the greatest are not shaded. */
const LEAST_SHADED = 0.06;
/** Nor are those named that are below this share of the document's greatest. */
const LEAST_NAMED = 0.15;

export function Failed({ failure }) {
  const again = failure.retryAfter;
  return html`
    <div class="failed">
      <p><b>${failure.title}</b>${failure.status ? ` (${failure.status})` : ""}</p>
      <p>${failure.message}</p>
      ${again !== null && again !== undefined && html`<p>Try again in ${several(again, "second")}.</p>`}
      ${failure.requestId && html`<p class="fine">Request ${failure.requestId}</p>`}
    </div>`;
}

export function Results({ run, info }) {
  const { answer, documents } = run;
  const shown = answer.results;
  const scale = scaleOf(shown, answer.meta?.score_kind);
  const weights = greatest(shown);
  const explained = shown.filter((result) => result.explanation).length;
  return html`
    <div class=${run.state === "busy" ? "stale" : ""}>
      <p class="facts">${facts(answer, documents)}</p>
      <${Notes} answer=${answer} info=${info} refusal=${run.refusal} />
      ${weights && html`
        <p class="legend">${explained < shown.length ? `The first ${explained} are shaded` : "Shaded"} by what the score loses without a part:
          ${" "}<mark class="for l3">speaks for it</mark> <mark class="against l3">speaks against it</mark></p>`}
      <ol class="results">
        ${shown.map((result, i) => html`
          <${Result} key=${`${answer.id} ${result.index}`} result=${result} place=${i + 1} text=${documents[result.index].text} share=${scale(result.relevance_score)} weights=${weights} />`)}
      </ol>
      ${!shown.length && html`<p>No document is left.</p>`}
      ${shown.length < documents.length && html`<p class="fine">${several(documents.length - shown.length, "more document")} did not come back, since the request asks for the best ${count(shown.length)}.</p>`}
      <${SameRequest} run=${run} />
    </div>`;
}

/** How long a bar is: probabilities fill theirs, other scores are spread from the lowest to the highest. */
function scaleOf(results, kind) {
  if (kind === "probability") return (score) => score;
  const scores = results.map((result) => result.relevance_score);
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  return (score) => (high > low ? 0.03 + 0.97 * ((score - low) / (high - low)) : 1);
}

const ms = (value) => (value < 10 ? value.toFixed(1) : count(Math.round(value)));

function facts(answer, documents) {
  const { tokenize, queue, inference, total } = answer.spent;
  const facts = [several(documents.length, "document"), several(answer.usage.total_tokens, "token")];
  if (total !== undefined) {
    facts.push(`${ms(total)} ms in the server (tokenising ${ms(tokenize)}, waiting ${ms(queue)}, scoring ${ms(inference)})`);
  }
  facts.push(`${ms(answer.roundTrip)} ms there and back`);
  return facts.map((fact) => html`<span>${fact}</span>`);
}

function Notes({ answer, info, refusal }) {
  const notes = [];
  if (refusal) notes.push(`Ranked, but not explained. ${refusal}.`);
  if (answer.truncated) {
    const limit = info ? ` of ${info.max_input_length} tokens a pair` : "";
    notes.push(`${several(answer.truncated, "document")} ${answer.truncated === 1 ? "is" : "are"} longer than what the model reads${limit}: the rest does not count. More windows read more.`);
  }
  if (answer.ignored.length) notes.push(`This server or model does not know ${answer.ignored.join(", ")}, and passed it over.`);
  if (answer.meta?.score_kind === "fused") notes.push("The scores are joined with the first stage's: only their order means something.");
  return html`${notes.map((note) => html`<p class="note" key=${note}>${note}</p>`)}`;
}

function Result({ result, place, text, share, weights }) {
  const [open, setOpen] = useState(false);
  const { explanation, index, relevance_score: score } = result;
  const isLong = text.length > LONG;
  return html`
    <li data-index=${index}>
      <div class="line">
        <span class="place" aria-hidden="true">${place}</span>
        <${Move} from=${index + 1} to=${place} />
        <span class="bar" aria-hidden="true"><i style=${{ "--share": Math.max(0, Math.min(1, share)) }} /></span>
        <data class="score" value=${score} title=${`Score ${score}`}><span class="unseen">score </span>${short(score)}</data>
      </div>
      <div class=${`text${isLong && !open ? " clipped" : ""}`}>
        ${explanation ? html`<${Shaded} parts=${explanation} weights=${weights} />` : text}
      </div>
      <div class="under">
        ${explanation && html`<${Strongest} parts=${explanation} />`}
        ${result.truncated && html`<span class="cut" title="The document is longer than what the model reads; the rest does not count.">not read whole</span>`}
        ${isLong && html`<button type="button" class="quiet" aria-expanded=${open} onClick=${() => setOpen(!open)}>${open ? "Show less" : "Show all"}</button>`}
      </div>
    </li>`;
}

/** Four places, more where they would all be zeros. */
function short(score) {
  if (score !== 0 && Math.abs(score) < 0.001) return score.toExponential(1);
  return score.toFixed(4);
}

function Move({ from, to }) {
  const by = from - to;
  const said = by === 0 ? `stays at ${to}` : `${by > 0 ? "up" : "down"} ${Math.abs(by)}, given as ${from}`;
  const shown = by === 0 ? "=" : `${by > 0 ? "▲" : "▼"}${Math.abs(by)}`;
  return html`
    <span class=${`move ${by > 0 ? "up" : by < 0 ? "down" : ""}`} title=${`Given as ${from}`}>
      <span aria-hidden="true">${shown}</span><span class="unseen">place ${to}, ${said},</span>
    </span>`;
}

/** The greatest weight of a sentence and of a word, of all results; null if nothing is explained. */
function greatest(results) {
  const sentences = results.flatMap((result) => result.explanation ?? []);
  if (!sentences.length) return null;
  const most = (parts) => parts.reduce((most, part) => Math.max(most, Math.abs(part.weight)), 0) || 1;
  return { sentence: most(sentences), word: most(sentences.flatMap((sentence) => sentence.words ?? [])) };
}

/** The class for a weight: its sign, and its size in four levels. */
function shade(weight, most) {
  const share = Math.abs(weight) / most;
  if (share < LEAST_SHADED) return "";
  return `${weight > 0 ? "for" : "against"} l${Math.min(4, Math.ceil(share * 4))}`;
}

const signed = (weight) => `${weight < 0 ? "−" : "+"}${Math.abs(weight).toFixed(2)}`;

function Shaded({ parts, weights }) {
  return parts.map((part) => html`
    <span class=${`sentence ${shade(part.weight, weights.sentence)}`} title=${`${signed(part.weight)} this sentence`}>
      ${part.words ? part.words.map((word) => {
        const level = shade(word.weight, weights.word);
        return level ? html`<${Mark} text=${word.text} level=${level} title=${`${signed(word.weight)} this word`} />` : word.text;
      }) : part.text}
    </span>`);
}

/** The blanks around a word are not shaded with it. */
function Mark({ text, level, title }) {
  const [, before, word, after] = text.match(/^(\s*)(.*?)(\s*)$/s);
  return html`${before}<mark class=${level} title=${title}>${word}</mark>${after}`;
}

/** In words what the shading says. */
function Strongest({ parts }) {
  const words = parts.flatMap((part) => part.words ?? []);
  const all = (words.length ? words : parts).filter((part) => part.text.trim());
  const by = [...all].sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
  const most = Math.abs(by[0]?.weight ?? 0);
  const named = (sign) => by.filter((part) => part.weight * sign > Math.max(0.005, most * LEAST_NAMED)).slice(0, 4);
  const list = (parts) => parts.map((part, i) => html`${i > 0 ? ", " : ""}${clipped(part.text)} <b>${signed(part.weight)}</b>`);
  const [pro, contra] = [named(1), named(-1)];
  if (!pro.length && !contra.length) return html`<span class="why">No part of it counts for much.</span>`;
  return html`
    <span class="why">
      ${pro.length > 0 && html`<span>For it: ${list(pro)}</span>`}
      ${contra.length > 0 && html`<span>Against it: ${list(contra)}</span>`}
    </span>`;
}

/** A part as a name: without the marks at its ends, and short. */
function clipped(text) {
  const bare = text.trim().replace(/^["'(“‘]+|[\s.,;:!?"')”’]+$/g, "") || text.trim();
  return bare.length > 48 ? `${bare.slice(0, 46)}…` : bare;
}

function SameRequest({ run }) {
  const codes = snippets(run.request, run.withKey, run.answer.model);
  const [way, setWay] = useState("curl");
  const [copied, setCopied] = useState("");
  async function copy() {
    setCopied((await copyText(codes[way])) ? "Copied" : "The browser did not allow it: select the text");
    setTimeout(() => setCopied(""), 3000);
  }
  return html`
    <section class="same" aria-labelledby="same-title">
      <div class="row spread">
        <h3 id="same-title">The same request</h3>
        <span class="row"><span role="status" class="fine">${copied}</span><button type="button" onClick=${copy}>Copy</button></span>
      </div>
      <div class="choice" role="radiogroup" aria-label="As code for">
        ${Object.keys(codes).map((name) => html`
          <label key=${name}><input type="radio" name="way" checked=${way === name} onChange=${() => setWay(name)} /><span>${name === "cohere" ? "Python, cohere" : name}</span></label>`)}
      </div>
      <pre tabindex="0" aria-label=${`Code for ${way}`}><code>${codes[way].length > 20000 ? `${codes[way].slice(0, 20000)}\n… Copy takes all of it.` : codes[way]}</code></pre>
    </section>`;
}

/** Whether a text could be copied; pages that came without TLS have only the old way. */
async function copyText(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // The old way may still do.
    }
  }
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}
