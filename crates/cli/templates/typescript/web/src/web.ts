// The web process: an ordinary Hono app, and one line that exports it.

import { Hono } from "hono";
import { greeting } from "./greeting.js";
import { serve } from "./wasi-http.js";

const app = new Hono();

app.get("/", (c) => c.text(greeting(c.req.query("name"))));

export const incomingHandler = serve(app.fetch);
