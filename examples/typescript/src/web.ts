// The web process: an ordinary Hono app, and one line that exports it.

import { getEnvironment } from "wasi:cli/environment@0.2.12";
import { Hono } from "hono";
import { readFile } from "./files.js";
import { serve } from "./wasi-http.js";

const app = new Hono();

app.get("/", (c) => c.text("Hello, world!\n"));

app.get("/greet/:name", (c) => {
  const { name } = c.req.param();
  const times = Math.min(Number(c.req.query("times") ?? 1) || 1, 100);
  return c.json({ greetings: Array.from({ length: times }, () => `Hello, ${name}!`) });
});

app.post("/sum", async (c) => {
  const numbers: unknown = await c.req.json().catch(() => undefined);
  if (!Array.isArray(numbers) || !numbers.every((number) => typeof number === "number")) {
    return c.json({ error: "expected a JSON array of numbers" }, 400);
  }
  return c.json({ sum: numbers.reduce((sum, number) => sum + number, 0) });
});

// An instance is kept between requests, so this counts on: for itself, since no two share memory.
let visits = 0;
app.get("/visits", (c) => c.json({ visits: ++visits }));

// A request to another server: the formation names it, and grants it.
app.get("/upstream", async (c) => {
  const upstream = new Map(getEnvironment()).get("UPSTREAM") ?? "";
  const answer = await fetch(upstream);
  return c.json({ status: answer.status, text: await answer.text() });
});

// Static files, of the directory that the formation grants.
app.get("/files/:name", (c) => {
  const file = readFile("/public", c.req.param("name"));
  return file ? c.body(file, 200, { "content-type": "text/plain; charset=utf-8" }) : c.notFound();
});

// Hono answers an `Error` by 500, `serve` whatever else comes out of `fetch`.
app.get("/fail", (c) => {
  throw c.req.query("how") === "error" ? new Error("as asked for") : "as asked for";
});

export const incomingHandler = serve(app.fetch);
