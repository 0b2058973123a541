// The page in a browser: what a person sees and does, by mouse and by keyboard.
import assert from "node:assert/strict";
import { readFileSync, mkdirSync, writeFileSync } from "node:fs";
import { createServer, request as httpRequest } from "node:http";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const { OPEN, KEYED, DECODER, KEY, CHROMIUM, IMAGES } = process.env;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const QUERY = "how do rivers shape the land?";
const DOCUMENTS = [
  "A cat sleeps in the sun.",
  "Rivers carve valleys and carry sediment to the sea.",
  "Bread is made of flour, water and salt.",
  "Glaciers and rivers shape the land over thousands of years.",
];

let browser;
before(async () => {
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
});
after(() => browser?.close());

/** A test with a page of its own, which fails on errors in the console and on requests to other hosts. */
function on(name, { base = OPEN, expect = [], ...options }, body) {
  test(name, { timeout: 60_000 }, async () => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, reducedMotion: "reduce", ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(15_000);
    const wrong = [];
    page.on("pageerror", (error) => wrong.push(String(error)));
    page.on("console", (message) => {
      const isExpected = expect.some((status) => message.text().includes(`a status of ${status}`));
      if (["error", "warning"].includes(message.type()) && !isExpected) wrong.push(message.text());
    });
    page.on("request", (request) => {
      if (!request.url().startsWith(base) && !request.url().startsWith("data:")) wrong.push(`a request to ${request.url()}`);
    });
    try {
      await page.goto(base);
      await body(page);
      assert.deepEqual(wrong, []);
    } finally {
      await context.close();
    }
  });
}

async function api(base, body, headers = {}) {
  const response = await fetch(`${base}/v1/rerank`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  return response.json();
}

/** Writes a question and documents, a line each. */
async function fill(page, query = QUERY, documents = DOCUMENTS) {
  await page.getByLabel("Query", { exact: true }).fill(query);
  await page.getByLabel("Documents", { exact: true }).fill(documents.join("\n"));
}

const rank = (page) => page.getByRole("button", { name: "Rank" }).click();

/** What the page shows: the documents' places in the request, with their scores. */
async function shown(page) {
  await page.locator(".results li").first().waitFor();
  return page.locator(".results li").evaluateAll((items) =>
    items.map((item) => ({
      index: Number(item.dataset.index),
      score: Number(item.querySelector("data").value),
      text: item.querySelector(".text").textContent,
      move: item.querySelector(".move [aria-hidden]").textContent,
    })),
  );
}

/** That axe finds nothing to mend. */
async function accessible(page, where) {
  await page.evaluate(AXE);
  const { violations, passes } = await page.evaluate(() => window.axe.run(document));
  const told = violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => `${n.html} ${n.failureSummary}`).join("; ")}`);
  assert.deepEqual(told, [], where);
  assert.ok(passes.length > 10, "axe has looked");
}

/** Drops a file onto the documents. */
async function drop(page, name, text) {
  const data = await page.evaluateHandle(([name, text]) => {
    const data = new DataTransfer();
    data.items.add(new File([text], name));
    return data;
  }, [name, text]);
  await page.locator("fieldset.documents").dispatchEvent("drop", { dataTransfer: data });
}

on("order, scores and moves are those of the API", {}, async (page) => {
  const expected = await api(OPEN, { query: QUERY, documents: DOCUMENTS });
  await fill(page);
  await page.getByLabel("Explain why").uncheck();
  await rank(page);
  const found = await shown(page);
  assert.deepEqual(found.map((r) => r.index), expected.results.map((r) => r.index));
  for (const [i, { index, score, text, move }] of found.entries()) {
    assert.ok(Math.abs(score - expected.results[i].relevance_score) < 1e-6);
    assert.equal(text.trim(), DOCUMENTS[index]);
    const by = index - i;
    assert.equal(move, by === 0 ? "=" : by > 0 ? `▲${by}` : `▼${-by}`);
  }
  assert.match(await page.locator(".facts").innerText(), /4 documents.*tokens?.*ms in the server.*there and back/s);
  assert.match(await page.locator(".answer [role=status]").first().innerText(), /Ranked: 4 results/);
});

on("top_n and windows are asked for, and what is not read whole is marked", {}, async (page) => {
  const long = `Rivers carve valleys. ${"They carry sand to the sea. ".repeat(200)}`;
  await fill(page, QUERY, [DOCUMENTS[0], long, DOCUMENTS[3]]);
  await page.getByLabel("Results at most").fill("2");
  await page.getByLabel("Windows of a long document").fill("1");
  const sent = page.waitForRequest("**/v1/rerank");
  await rank(page);
  const { top_n, max_chunks_per_doc } = (await sent).postDataJSON();
  assert.deepEqual([top_n, max_chunks_per_doc], [2, 1]);
  const found = await shown(page);
  assert.equal(found.length, 2);
  assert.ok(found.some((r) => r.index === 1));
  assert.match(await page.locator(".note").first().innerText(), /1 document is longer/);
  assert.equal(await page.locator("li[data-index='1'] .cut").count(), 1);
  assert.equal(await page.locator(".cut").count(), 1);
  await page.getByRole("button", { name: "Show all" }).click();
  assert.equal(await page.locator(".clipped").count(), 0);
});

on("a dropped table gives documents and the first stage's scores, which are fused", {}, async (page) => {
  const rows = DOCUMENTS.map((text, i) => `n${i},"${text}",${9 - i}.5`);
  await drop(page, "found.csv", `id,passage,bm25\n${rows.join("\n")}\n`);
  await page.getByText("4 documents of found.csv").waitFor();
  assert.equal(await page.getByLabel("Text is in").inputValue(), "passage");
  assert.equal(await page.getByLabel("First-stage score is in").inputValue(), "bm25");
  await page.getByLabel("Query", { exact: true }).fill(QUERY);
  await page.getByLabel("Explain why").uncheck();
  await page.getByLabel("Their first-stage scores").selectOption("weighted");
  await page.getByLabel("Their share, 0 to 1").fill("0.9");
  const body = { query: QUERY, documents: DOCUMENTS, first_stage_scores: [9.5, 8.5, 7.5, 6.5], fusion: { method: "weighted", weight: 0.9 } };
  const expected = await api(OPEN, body);
  await rank(page);
  assert.deepEqual((await shown(page)).map((r) => r.index), expected.results.map((r) => r.index));
  await page.getByText("joined with the first stage's").waitFor();
});

on("files of other forms are read", {}, async (page) => {
  const state = page.locator("#documents-state");
  const objects = DOCUMENTS.map((text) => ({ text, title: "x" }));
  const request = { query: "what is bread?", top_n: 1, documents: DOCUMENTS };
  for (const [name, text, form] of [
    ["a.jsonl", objects.map((o) => JSON.stringify(o)).join("\n"), "JSON"],
    ["a.json", JSON.stringify(DOCUMENTS), "JSON"],
    ["a.tsv", `text\tn\n${DOCUMENTS.map((text, i) => `${text}\t${i}`).join("\n")}`, "Table"],
    ["a.txt", DOCUMENTS.join("\n"), "Lines"],
    ["b.txt", DOCUMENTS.join("\n\n"), "Paragraphs"],
    ["request.json", JSON.stringify(request, null, 1), "JSON"],
  ]) {
    await page.locator("#file").setInputFiles({ name, mimeType: "text/plain", buffer: Buffer.from(text) });
    await page.getByText(`4 documents of ${name}`).waitFor();
    assert.ok(await page.getByLabel(form, { exact: true }).isChecked(), name);
  }
  // A request's fields are taken over a moment after its documents.
  const query = page.getByLabel("Query", { exact: true });
  for (let tries = 0; (await query.inputValue()) !== "what is bread?"; tries++) {
    assert.ok(tries < 40, await query.inputValue());
    await page.waitForTimeout(50);
  }
  await rank(page);
  assert.deepEqual((await shown(page)).map((r) => r.text.trim()), [DOCUMENTS[2]]);
  await drop(page, "broken.jsonl", '{"text": "a"}\n{"text": \n');
  await page.getByText(/Line 2 is not JSON/).waitFor();
  assert.match(await state.getAttribute("class"), /wrong/);
});

on("texts are read as they are meant", {}, async (page) => {
  const cases = [
    ["a\r\n\r\nb \n", "", "paragraphs", ["a", "b"]],
    ["a\nb\n\n", "", "lines", ["a", "b"]],
    ["[1] a note\n[2] another", "", "lines", ["[1] a note", "[2] another"]],
    ['"quoted"\nline', "", "lines", ['"quoted"', "line"]],
    ['{"text": "a", "rank": 1}\n\n{"text": "b"}', "", "json", ["a", "b"]],
    ['{"query": "q", "texts": ["a", {"text": "b", "n": 1}]}', "", "json", ["a", "b"]],
    ['id;text\n1;"a;""b""\nc"\n2;d', "x.csv", "table", ['a;"b"\nc', "d"]],
    ['text\tn\n"a\t1\n', "x.tsv", "table", ['"a']],
    ["text,n\na,1,2\n", "x.csv", "table", [], "Row 2 has 3 values, but the header has 2."],
    ['text\n"a', "x.csv", "table", [], "A quotation mark is never closed."],
    ["n\n1\n", "x.csv", "table", [], "No column or field holds texts."],
    ["[1]", "x.json", "json", [], "Document 1 is neither a text nor an object."],
  ];
  const found = await page.evaluate(async (cases) => {
    const { detect, parse } = await import(new URL("page/documents.js", location.href));
    return cases.map(([text, name]) => {
      const form = detect(text, name);
      const { documents, error } = parse(text, form);
      return [text, name, form, documents.map((document) => document.text), ...(error ? [error] : [])];
    });
  }, cases);
  assert.deepEqual(found, cases);
});

on("errors are told in the server's words", { expect: [422] }, async (page) => {
  await rank(page);
  await page.getByText("The query is empty.").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), "query");
  await fill(page, QUERY, Array.from({ length: 101 }, (_, i) => `document ${i}`));
  await page.getByText("the server takes 100 in one request").waitFor();
  await rank(page);
  const alert = page.getByRole("alert");
  await alert.getByText("101 documents, but at most 100 are allowed in one request").waitFor();
  await accessible(page, "an error");
});

on("a server that can't be reached is told of", {}, async (page) => {
  await fill(page);
  await page.route("**/v1/rerank", (route) => route.abort());
  // The browser itself logs what is aborted.
  page.removeAllListeners("console");
  await rank(page);
  await page.getByRole("alert").getByText("can't be reached").waitFor();
});

on("what the documents' words weigh is shown, in tones and in words", {}, async (page) => {
  await page.route("**/v1/rerank", async (route) => {
    const response = await route.fetch();
    const answer = await response.json();
    answer.results[0].explanation = [
      { text: "Rivers carve ", weight: 2.5, words: [{ text: "Rivers ", weight: 2 }, { text: "carve ", weight: -1 }] },
      { text: "valleys <b>.", weight: 0 },
    ];
    await route.fulfill({ response, json: answer });
  });
  await fill(page);
  await rank(page);
  const first = page.locator(".results li").first();
  await first.waitFor();
  assert.equal(await first.locator("mark.for").innerText(), "Rivers");
  assert.equal(await first.locator("mark.against").innerText(), "carve");
  const weight = (selector) => first.locator(selector).evaluate((mark) => parseFloat(getComputedStyle(mark).textDecorationThickness));
  assert.ok((await weight("mark.for")) > (await weight("mark.against")));
  assert.equal(await first.locator(".text").innerText(), "Rivers carve valleys <b>.");
  assert.match(await first.locator(".why").innerText(), /For it: Rivers \+2.00\s+Against it: carve −1.00/);
  await accessible(page, "an explanation");
});

on("what can't be explained is ranked, and the page says so", { expect: [422] }, async (page) => {
  // Longer than what may be explained.
  await fill(page, QUERY, [DOCUMENTS[0], "Rivers carve valleys. ".repeat(7_000)]);
  await rank(page);
  assert.equal((await shown(page)).length, 2);
  assert.match(await page.locator(".note").first().innerText(), /Ranked, but not explained\. explain: document 1 .* bytes/);
  assert.equal(await page.getByRole("alert").innerText(), "");
  assert.ok(!(await page.locator(".same pre").innerText()).includes("explain"));
  await page.getByLabel("Explain why").uncheck();
  await rank(page);
  await page.getByText("Ranked, but not explained").waitFor({ state: "detached" });
});

on("a key is asked for, refused and taken, and kept only if that is wanted", { base: KEYED, expect: [401] }, async (page) => {
  const field = page.locator("#key");
  await field.waitFor();
  await accessible(page, "the key's field");
  await field.fill("wrong");
  await page.getByRole("button", { name: "Use it" }).click();
  await field.waitFor();
  await page.getByText("the API key is not valid").waitFor();
  await field.fill(KEY);
  await page.getByRole("button", { name: "Use it" }).click();
  await page.locator(".model b").waitFor();
  await fill(page);
  await page.getByLabel("Explain why").uncheck();
  await rank(page);
  assert.equal((await shown(page)).length, 4);
  for (const way of ["curl", "Python", "JavaScript"]) {
    await page.locator(".same").getByLabel(way, { exact: true }).check();
    const code = await page.locator(".same pre").innerText();
    assert.ok(code.includes("RERANKD_KEY") && !code.includes(KEY), code);
  }
  assert.equal(await page.evaluate(() => sessionStorage.length + localStorage.length), 0);
  await page.getByRole("button", { name: "API key: set" }).click();
  await page.getByLabel("Keep it until this tab is closed").check();
  await page.getByRole("button", { name: "Use it" }).click();
  await page.reload();
  await page.locator(".model b").waitFor();
});

on("a busy server says when to try again", { base: KEYED, expect: [401, 503] }, async (page) => {
  await page.locator("#key").fill(KEY);
  await page.getByRole("button", { name: "Use it" }).click();
  const documents = Array.from({ length: 40 }, (_, i) => `${i} ${"rivers carve valleys ".repeat(60)}`);
  await fill(page, QUERY, documents.slice(0, 20));
  await page.getByLabel("Explain why").uncheck();
  const stop = new AbortController();
  // Others with the same key, who come again as soon as they are answered.
  const busy = async () => {
    while (!stop.signal.aborted) {
      const request = fetch(`${KEYED}/v1/rerank`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${KEY}` },
        body: JSON.stringify({ query: QUERY, documents }),
        signal: stop.signal,
      });
      await request.then((response) => response.text()).catch(() => {});
      await new Promise((done) => setTimeout(done, 20));
    }
  };
  const requests = Array.from({ length: 8 }, busy);
  const alert = page.getByRole("alert");
  for (let tries = 0; !(await alert.getByText("Try again in").count()); tries++) {
    assert.ok(tries < 40, "it was never busy");
    await rank(page);
    await page.getByRole("button", { name: "Rank" }).waitFor();
    await page.waitForTimeout(100);
  }
  assert.match(await alert.innerText(), /\(503\)[^]*the server is busy[^]*Try again in \d+ seconds?\./);
  stop.abort();
  await Promise.all(requests);
  for (let tries = 0; !(await page.locator(".results li").count()); tries++) {
    assert.ok(tries < 40, "it stays busy");
    await rank(page);
    await page.getByRole("button", { name: "Rank" }).waitFor();
    await page.waitForTimeout(100);
  }
  assert.equal(await alert.innerText(), "");
});

test("a proxy may serve it below a path of its own", async () => {
  const proxy = createServer((request, response) => {
    const path = request.url.replace(/^\/below\/this/, "");
    if (path === request.url) return response.writeHead(404).end();
    const { method, headers } = request;
    const passed = httpRequest(`${OPEN}${path}`, { method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    request.pipe(passed);
  });
  await new Promise((done) => proxy.listen(0, "127.0.0.1", done));
  const page = await browser.newPage();
  try {
    const missing = [];
    page.on("response", (response) => response.status() === 404 && missing.push(response.url()));
    await page.goto(`http://127.0.0.1:${proxy.address().port}/below/this/`);
    await fill(page);
    await rank(page);
    assert.equal((await shown(page)).length, 4);
    assert.match(await page.locator(".same pre").innerText(), /\/below\/this\/v1\/rerank/);
    const docs = await page.getByRole("link", { name: "Docs" }).evaluate((link) => link.href);
    assert.ok(docs.endsWith("/below/this/docs/"), docs);
    assert.deepEqual(missing, []);
  } finally {
    await page.close();
    proxy.closeAllConnections();
    proxy.close();
  }
});

test("the page of the API works under its policy", async () => {
  const page = await browser.newPage();
  try {
    const wrong = [];
    page.on("pageerror", (error) => wrong.push(String(error)));
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && wrong.push(message.text()));
    page.on("request", (request) => !/^(data|blob):/.test(request.url()) && !request.url().startsWith(OPEN) && wrong.push(request.url()));
    const answer = await page.goto(`${OPEN}/docs/`);
    assert.match(answer.headers()["content-security-policy"], /default-src 'none'/);
    const route = page.locator(".opblock-post", { has: page.locator("[data-path='/v1/rerank']") });
    await route.locator(".opblock-summary-control").click();
    await route.getByRole("button", { name: "Try it out" }).click();
    await route.locator("textarea").first().fill(JSON.stringify({ query: QUERY, documents: DOCUMENTS }));
    await route.getByRole("button", { name: "Execute" }).click();
    await route.locator(".live-responses-table").getByText("relevance_score").first().waitFor();
    assert.deepEqual(wrong, []);
  } finally {
    await page.close();
  }
});

on("the same request as code does the same", {}, async (page) => {
  await fill(page, `what's "the land"?`, ["It's $HOME `land`.", "A\tb \\ c"]);
  await page.getByLabel("Explain why").uncheck();
  const sent = page.waitForRequest("**/v1/rerank");
  await rank(page);
  const body = (await sent).postDataJSON();
  await shown(page);
  const { execFileSync } = await import("node:child_process");
  const code = async (way) => {
    await page.locator(".same").getByLabel(way, { exact: true }).check();
    return page.locator(".same pre").innerText();
  };
  const expected = await api(OPEN, body);
  const answer = JSON.parse(execFileSync("bash", ["-c", await code("curl")], { encoding: "utf8" }));
  assert.deepEqual(answer.results, expected.results);
  const printed = execFileSync("python3", ["-c", await code("Python")], { encoding: "utf8" });
  assert.ok(printed.startsWith(`${expected.results[0].relevance_score}`.slice(0, 6)), printed);
  const logged = execFileSync("node", ["--input-type=module", "-e", await code("JavaScript")], { encoding: "utf8" });
  assert.ok(logged.includes("relevance_score"), logged);
  const cohere = await code("Python, cohere");
  execFileSync("python3", ["-c", "import ast, sys; ast.parse(sys.argv[1])", cohere]);
  assert.ok(cohere.includes("client.rerank("));
  await page.getByRole("button", { name: "Copy" }).click();
  await page.getByText(/Copied|did not allow/).waitFor();
});

on("all of it can be done by keyboard, and focus is always seen", {}, async (page) => {
  await page.locator(".model b").waitFor();
  const tab = async (name) => {
    for (let i = 0; i < 30; i++) {
      await page.keyboard.press("Tab");
      const focus = await page.evaluate(() => {
        const element = document.activeElement;
        // Of what is drawn by its label, the label shows the focus.
        const drawn = element.matches(".choice input, #file") ? element.nextElementSibling : element;
        const style = getComputedStyle(drawn);
        return {
          name: element.labels?.[0]?.innerText || element.innerText || element.id,
          seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
        };
      });
      assert.ok(focus.seen, `${focus.name} shows no focus`);
      if (focus.name.trim() === name) return;
    }
    assert.fail(`${name} is not reached`);
  };
  await tab("Try an example");
  await page.keyboard.press("Enter");
  await tab("Results at most");
  await page.keyboard.type("3");
  await tab("Explain why");
  await page.keyboard.press("Space");
  assert.equal(await page.getByLabel("Explain why").isChecked(), false);
  await page.keyboard.press("Control+Enter");
  assert.equal((await shown(page)).length, 3);
  await tab("Copy");
});

for (const colorScheme of ["light", "dark"]) {
  on(`it is accessible: ${colorScheme}`, { colorScheme }, async (page) => {
    await page.locator(".model b").waitFor();
    await accessible(page, "empty");
    await page.getByRole("button", { name: "Try an example" }).click();
    await rank(page);
    await shown(page);
    await accessible(page, "results");
    const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = ground.match(/\d+/g).slice(0, 3).every((part) => Number(part) > 128);
    assert.equal(light, colorScheme === "light", ground);
    if (IMAGES) await picture(page, colorScheme === "light" ? "page.png" : "page-dark.png");
  });
}

on("a narrow screen needs no scrolling sideways", { viewport: { width: 360, height: 740 } }, async (page) => {
  await page.getByRole("button", { name: "Try an example" }).click();
  await rank(page);
  await shown(page);
  await page.getByRole("button", { name: "API key" }).click();
  const { wide, view } = await page.evaluate(() => ({ wide: document.documentElement.scrollWidth, view: innerWidth }));
  assert.ok(wide <= view, `${wide} of ${view}`);
  await accessible(page, "narrow");
});

async function picture(page, name) {
  mkdirSync(IMAGES, { recursive: true });
  await page.evaluate(() => document.activeElement.blur());
  const image = await page.screenshot();
  assert.ok(image.length < 250_000, `${name} has ${image.length} bytes`);
  writeFileSync(`${IMAGES}/${name}`, image);
}

on("an instruction is asked for where the model takes one, and stands in the copied code", { base: DECODER }, async (page) => {
  const { default_instruction } = await (await fetch(`${DECODER}/info`)).json();
  const field = page.getByLabel("Instruction", { exact: true });
  await field.waitFor();
  assert.ok(default_instruction.length > 10);
  assert.equal(await field.getAttribute("placeholder"), default_instruction);
  await fill(page);
  await page.getByLabel("Explain why").uncheck();
  const plain = page.waitForRequest("**/v1/rerank");
  await rank(page);
  assert.ok(!("instruction" in (await plain).postDataJSON()));
  await shown(page);
  await field.fill("Find what names a river");
  const sent = page.waitForRequest("**/v1/rerank");
  await rank(page);
  assert.equal((await sent).postDataJSON().instruction, "Find what names a river");
  await shown(page);
  for (const way of ["curl", "Python", "JavaScript"]) {
    await page.locator(".same").getByLabel(way, { exact: true }).check();
    const code = await page.locator(".same pre").innerText();
    assert.match(code, /"instruction": "Find what names a river"/);
  }
  await accessible(page, "with an instruction");
});

on("a model that takes no instruction is not asked for one", {}, async (page) => {
  await page.getByLabel("Results at most").waitFor();
  await page.waitForLoadState("networkidle");
  assert.equal(await page.getByLabel("Instruction", { exact: true }).count(), 0);
});
