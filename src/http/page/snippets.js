// The request that was sent, as others would send it.
import { base, bodyOf } from "./api.js";

/** The code of each way, for a request that was sent with a key or without. The model is the one that answered. */
export function snippets(request, withKey, model) {
  return { curl: curl(request, withKey), Python: python(request, withKey), cohere: cohere({ model, ...request }), JavaScript: javascript(request, withKey) };
}

function curl(request, withKey) {
  const key = withKey ? ` \\\n  -H "authorization: Bearer $RERANKD_KEY"` : "";
  // Quoted, so that the shell leaves the text as it is. No line of JSON reads END.
  return `curl -s ${quoted(`${base}v1/rerank`)} -H 'content-type: application/json'${key} -d @- <<'END'\n${bodyOf(request)}\nEND`;
}

/** For a shell, only as far as needed. */
const quoted = (text) => (/^[\w:/.-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

function python(request, withKey) {
  const key = withKey ? `\n        "authorization": "Bearer " + os.environ["RERANKD_KEY"],` : "";
  return `import json${withKey ? "\nimport os" : ""}
from urllib.request import Request, urlopen

body = ${literal(request)}
request = Request(
    ${JSON.stringify(`${base}v1/rerank`)},
    json.dumps(body).encode(),
    {
        "content-type": "application/json",${key}
    },
)
with urlopen(request) as response:
    answer = json.load(response)
for result in answer["results"]:
    print(result["relevance_score"], body["documents"][result["index"]])
`;
}

/** What cohere's client has a name for; the rest goes beside. */
const COHERE = ["model", "query", "documents", "top_n", "max_chunks_per_doc"];

function cohere(request) {
  const named = Object.entries(request).filter(([name]) => COHERE.includes(name));
  const rest = Object.fromEntries(Object.entries(request).filter(([name]) => !COHERE.includes(name)));
  const lines = named.map(([name, value]) => `    ${name}=${literal(value, 1)},\n`);
  if (Object.keys(rest).length) {
    lines.push(`    request_options={"additional_body_parameters": ${literal(rest, 1)}},\n`);
  }
  // It adds v1/rerank itself, and wants some key.
  return `import os

import cohere

client = cohere.Client(os.environ.get("RERANKD_KEY", "none"), base_url=${JSON.stringify(base.replace(/\/$/, ""))})
answer = client.rerank(
${lines.join("")})
for result in answer.results:
    print(result.relevance_score, result.index)
`;
}

function javascript(request, withKey) {
  const key = withKey ? "\n    authorization: `Bearer ${process.env.RERANKD_KEY}`," : "";
  return `const response = await fetch(${JSON.stringify(`${base}v1/rerank`)}, {
  method: "POST",
  headers: {
    "content-type": "application/json",${key}
  },
  body: JSON.stringify(${bodyOf(request).replaceAll("\n", "\n  ")}),
});
if (!response.ok) throw new Error(await response.text());
const { results } = await response.json();
console.log(results);
`;
}

/** A value as Python writes it. */
function literal(value, depth = 0) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = "    ".repeat(depth + 1);
  const items = Array.isArray(value)
    ? value.map((item) => literal(item, depth + 1))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, depth + 1)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const flat = `${open}${items.join(", ")}${close}`;
  if (flat.length < 60 && !flat.includes("\n")) return flat;
  return `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${"    ".repeat(depth)}${close}`;
}
