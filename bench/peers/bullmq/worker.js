// A worker that has nothing to do, CONCURRENCY jobs at once. Where a job says when it was sent, it notes when it came.

import { appendFileSync } from "node:fs";
import { join } from "node:path";

import { Worker } from "bullmq";

import { connection, nowUs, queueName } from "./common.js";

const concurrency = Number(process.argv[2]);
const notes = join(process.env.BENCH_NOTES, "worker");
let lines = "";

const worker = new Worker(
  queueName,
  async (job) => {
    if (job.data.sentUs) lines += `${job.data.sentUs} ${nowUs()}\n`;
  },
  { connection, concurrency },
);
worker.on("error", (error) => console.error(error));
await worker.waitUntilReady();

// Not in the handler: nothing is to wait for the file.
setInterval(() => {
  if (lines) appendFileSync(notes, lines);
  lines = "";
}, 50);

process.on("SIGTERM", async () => {
  await worker.close();
  process.exit(0);
});
console.log("ready");
