// Documents from text: plain lines, paragraphs, JSON, tables.

const TEXT_FIELDS = ["text", "document", "content", "passage", "body", "abstract", "description"];
const SCORE_FIELDS = ["first_stage_score", "score", "bm25", "similarity", "first_stage_rank", "rank"];

/** How a text is best read. */
export function detect(text, name = "") {
  const ending = name.toLowerCase().replace(/\.gz$/, "").split(".").pop();
  if (["csv", "tsv", "tab"].includes(ending)) return "table";
  if (["json", "jsonl", "ndjson"].includes(ending)) return "json";
  const start = text.trimStart();
  if (/^[{[]/.test(start) && values(start).length) return "json";
  return /\S[^\S\n]*\n[^\S\n]*\n\s*\S/.test(text) ? "paragraphs" : "lines";
}

/**
 * The documents of a text: {documents, columns, numbers, request, error}. `columns` can hold the documents' text
 * and `numbers` the first stage's scores, where there is a choice; `request` is a request's body that was read.
 */
export function parse(text, form, chosen = {}) {
  if (!text.trim()) return { documents: [] };
  try {
    if (form === "json") return fromJson(text, chosen);
    if (form === "table") return fromRows(table(text), chosen);
  } catch (error) {
    return { documents: [], error: error.message };
  }
  const parts = text.replace(/\r\n?/g, "\n").split(form === "paragraphs" ? /\n[^\S\n]*\n/ : "\n");
  return { documents: parts.map((part) => ({ text: part.trim() })).filter((document) => document.text) };
}

/** The JSON values of a text: one, or one a line; none if it is no JSON. */
function values(text) {
  try {
    return [JSON.parse(text)];
  } catch {
    try {
      return lines(text).map((line) => JSON.parse(line.text));
    } catch {
      return [];
    }
  }
}

const lines = (text) =>
  text.split(/\r?\n/).map((text, i) => ({ text, number: i + 1 })).filter((line) => line.text.trim());

function fromJson(text, chosen) {
  let found = values(text);
  if (!found.length) {
    for (const line of lines(text)) {
      try {
        JSON.parse(line.text);
      } catch (error) {
        throw new Error(`Line ${line.number} is not JSON: ${error.message}`);
      }
    }
  }
  let request = null;
  if (found.length === 1) {
    const [only] = found;
    const list = only?.documents ?? only?.texts;
    if (Array.isArray(list)) {
      request = only;
      const scores = only.first_stage_scores ?? [];
      found = list.map((item, i) => (scores[i] == null ? item : { ...(item.text ? item : { text: item }), first_stage_score: scores[i] }));
    } else if (Array.isArray(only)) {
      found = only;
    }
  }
  const rows = found.map((value, i) => {
    if (typeof value === "string") return { text: value };
    if (value && typeof value === "object" && !Array.isArray(value)) return value;
    throw new Error(`Document ${i + 1} is neither a text nor an object.`);
  });
  return { ...fromRows(rows, chosen), request };
}

/** Documents of objects or a table's rows. */
function fromRows(rows, chosen) {
  const columns = [], numbers = [];
  for (const name of new Set(rows.flatMap(Object.keys))) {
    const known = rows.map((row) => row[name]).filter((value) => value != null && value !== "");
    if (!known.length) continue;
    if (known.every((value) => typeof value !== "object" && Number.isFinite(Number(value)))) numbers.push(name);
    else if (known.every((value) => typeof value === "string")) columns.push(name);
  }
  if (!columns.length) throw new Error("No column or field holds texts.");
  const lengths = (name) => rows.reduce((sum, row) => sum + (row[name]?.length ?? 0), 0);
  const longest = [...columns].sort((a, b) => lengths(b) - lengths(a))[0];
  const column = columns.includes(chosen.column) ? chosen.column : TEXT_FIELDS.find((name) => columns.includes(name)) ?? longest;
  const likely = SCORE_FIELDS.find((name) => numbers.includes(name)) ?? "";
  const score = chosen.score === "" || numbers.includes(chosen.score) ? chosen.score : likely;
  const documents = rows.map((row) => {
    const value = row[score];
    return { text: row[column] ?? "", score: score && value != null && value !== "" ? Number(value) : null };
  });
  return { documents: documents.filter((document) => document.text.trim()), columns, numbers, column, score };
}

/** The rows of a text with a header, with commas, semicolons or tabs between the values. */
function table(text) {
  const head = text.slice(0, text.search(/\n|$/));
  const mark = ["\t", ";", ","].find((mark) => head.includes(mark)) ?? ",";
  const [names, ...rows] = cells(text.replace(/^\ufeff/, ""), mark);
  return rows.map((row, i) => {
    if (row.length > names.length) {
      throw new Error(`Row ${i + 2} has ${row.length} values, but the header has ${names.length}.`);
    }
    return Object.fromEntries(names.map((name, j) => [name.trim(), row[j] ?? ""]));
  });
}

function cells(text, mark) {
  const rows = [];
  let row = [], cell = "", quoted = false;
  const close = () => {
    row.push(cell);
    cell = "";
  };
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text[i + 1] === '"') cell += text[++i];
      else quoted = false;
    } else if (c === '"' && cell === "" && mark !== "\t") quoted = true;
    else if (c === mark) close();
    else if (c === "\n") {
      close();
      rows.push(row);
      row = [];
    } else if (c !== "\r") cell += c;
  }
  if (quoted) throw new Error("A quotation mark is never closed.");
  close();
  rows.push(row);
  return rows.filter((row) => row.some((cell) => cell.trim()));
}

/** A file's text; what is gzip is unpacked. */
export async function read(file) {
  const packed = file.name.toLowerCase().endsWith(".gz");
  const stream = packed ? file.stream().pipeThrough(new DecompressionStream("gzip")) : file.stream();
  const bytes = await new Response(stream).arrayBuffer();
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error(`${file.name} is not text in UTF-8.`);
  }
}
