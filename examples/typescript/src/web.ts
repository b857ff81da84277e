// The web process: an ordinary Hono app, and one line that exports it.

import { Hono } from "hono";
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

export const incomingHandler = serve(app.fetch);
