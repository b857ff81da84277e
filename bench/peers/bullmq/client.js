// Gives BullMQ jobs, and prints what became of them as JSON: the same as bench/native/src/bin/jobs.rs for wasmhost,
// whose modes and figures these are. A client is a call of `add` that is awaited; all share a connection.

import { Queue } from "bullmq";

import { connection, nowUs, queueName } from "./common.js";

const OUTSTANDING_MAX = 1000;
const LOOK_EVERY_MS = 10;

const [mode, clients, seconds, rate] = [process.argv[2], ...process.argv.slice(3).map(Number)];
// Jobs that are done go at once: there is less to write.
const queue = new Queue(queueName, { connection, defaultJobOptions: { removeOnComplete: true } });
await queue.waitUntilReady();

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const took = [];
let outstanding = 0;
let looks = 0;
let outstandingSum = 0;

async function enqueue(data) {
  const sent = performance.now();
  await queue.add("job", data);
  took.push(performance.now() - sent);
}

const isDone = async () => {
  const counts = await queue.getJobCounts("wait", "active");
  outstanding = counts.wait + counts.active;
  return outstanding === 0;
};

async function flow(until) {
  while (performance.now() < until) {
    if (mode === "until-done" && outstanding >= OUTSTANDING_MAX) {
      await sleep(1);
      continue;
    }
    outstanding += 1;
    await enqueue({});
  }
}

// Clients that take, in turn, what has become due.
async function pace() {
  const due = [];
  const [startUs, start, all] = [nowUs(), performance.now(), rate * seconds];
  let next = 0;
  const send = async () => {
    while (next < all || due.length) {
      const sentUs = due.shift();
      if (sentUs) await enqueue({ sentUs });
      else await sleep(0);
    }
  };
  const tick = async () => {
    while (next < all) {
      const until = Math.min(Math.floor(((performance.now() - start) / 1000) * rate) + 1, all);
      for (; next < until; next++) due.push(Math.round(startUs + (next / rate) * 1e6));
      await sleep(1);
    }
  };
  await Promise.all([tick(), ...Array.from({ length: clients }, send)]);
}

const start = performance.now();
let done = null;
if (mode === "pace") {
  await pace();
} else {
  const until = start + seconds * 1000;
  const flows = Promise.all(Array.from({ length: clients }, () => flow(until)));
  while (mode === "until-done" && performance.now() < until) {
    await isDone();
    looks += 1;
    outstandingSum += outstanding;
    await sleep(LOOK_EVERY_MS);
  }
  await flows;
}
const enqueueSeconds = (performance.now() - start) / 1000;
if (mode === "until-done") {
  while (!(await isDone())) await sleep(LOOK_EVERY_MS);
  done = (performance.now() - start) / 1000;
}

took.sort((a, b) => a - b);
const at = (of100) => took[Math.min(Math.floor((took.length * of100) / 100), took.length - 1)] ?? 0;
console.log(
  JSON.stringify({
    jobs: took.length,
    enqueue_seconds: enqueueSeconds,
    seconds: done,
    outstanding: looks ? outstandingSum / looks : null,
    p50_ms: at(50),
    p99_ms: at(99),
  }),
);
await queue.close();
process.exit(0);
