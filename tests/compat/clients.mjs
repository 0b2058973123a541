// cohere-ai, @ai-sdk/cohere and @langchain/cohere, with Node's own test runner.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";

import { createCohere } from "@ai-sdk/cohere";
import { CohereRerank } from "@langchain/cohere";
import { rerank } from "ai";
import { CohereClient, CohereClientV2, CohereError } from "cohere-ai";

const base = process.env.RERANKD_URL;
const key = process.env.RERANKD_KEY;
const tooMany = Array(Number(process.env.RERANKD_MAX_DOCUMENTS) + 1).fill("x");
const query = "how do rivers shape the land?";
const documents = [
  "A cat sleeps in the sun.",
  "Rivers carve valleys and carry sediment to the sea.",
  "Bread is made of flour, water and salt.",
  "The moon draws the tides.",
  "Glaciers and rivers shape the land over thousands of years.",
];

const native = (
  await (
    await fetch(`${base}/v1/rerank`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
      body: JSON.stringify({ query, documents }),
    })
  ).json()
).results.map((r) => [r.index, r.relevance_score]);

// Compares a client's [index, score] pairs with the native route's.
function check(results, topN) {
  assert.deepEqual(results, native.slice(0, topN));
}

for (const Client of [CohereClient, CohereClientV2]) {
  const make = (token) => new Client({ token, environment: base, maxRetries: 0 });
  const rank = (texts, token = key) =>
    make(token).rerank({ model: "rerank-v3.5", query, documents: texts, topN: 3 });
  test(`cohere-ai ${Client.name}`, async () => {
    const { results } = await rank(documents);
    check(results.map((r) => [r.index, r.relevanceScore]), 3);
    for (const [texts, token, status] of [
      [documents, "wrong", 401],
      [[], key, 422],
      [tooMany, key, 422],
    ]) {
      await assert.rejects(rank(texts, token), (error) => {
        assert(error instanceof CohereError, String(error));
        assert.equal(error.statusCode, status);
        return true;
      });
    }
  });
}

test("@ai-sdk/cohere", async () => {
  const rank = (texts, apiKey = key) =>
    rerank({
      model: createCohere({ baseURL: `${base}/v2`, apiKey }).reranking("rerank-v3.5"),
      query,
      documents: texts,
      topN: 3,
      maxRetries: 0,
    });
  const { ranking } = await rank(documents);
  check(ranking.map((r) => [r.originalIndex, r.score]), 3);
  for (const [texts, apiKey] of [
    [documents, "wrong"],
    [tooMany, key],
  ]) {
    await assert.rejects(rank(texts, apiKey), { name: "AI_APICallError" });
  }
  assert.deepEqual((await rank([])).ranking, []);
});

test("@langchain/cohere", async () => {
  const make = (token) =>
    new CohereRerank({
      client: new CohereClient({ token, environment: base, maxRetries: 0 }),
      model: "rerank-v3.5",
      topN: 3,
    });
  const results = await make(key).rerank(documents, query);
  check(results.map((r) => [r.index, r.relevanceScore]), 3);
  const compressed = await make(key).compressDocuments(
    documents.map((pageContent) => ({ pageContent, metadata: {} })),
    query,
  );
  assert.deepEqual(compressed.map((d) => d.metadata.relevanceScore), native.slice(0, 3).map((r) => r[1]));
  await assert.rejects(make("wrong").rerank(documents, query), CohereError);
  await assert.rejects(make(key).rerank(tooMany, query), CohereError);
});

test("the README's request", async (t) => {
  const block = /^```js\n(.*?)^```$/ms.exec(readFileSync("README.md", "utf8"))[1];
  writeFileSync("readme.mjs", block.replace("http://localhost:8080", base).replace("any-key", key));
  const log = t.mock.method(console, "log", () => {});
  await import("./readme.mjs");
  const [results] = log.mock.calls[0].arguments;
  assert.deepEqual(results.map((r) => r.index).sort(), [0, 1]);
  assert(results[0].relevanceScore >= results[1].relevanceScore);
});
