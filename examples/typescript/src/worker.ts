// The worker process: it is given jobs of the queue, one at a time.

import { enqueueMany, type NewJob, type QueueError } from "wasmhost:job/queue@0.1.0";

/** As much of `wasmhost:job/types` (wit/job/job.wit in the repository) as is used here. */
type Job = { id: string; queue: string; attempt: number; payload: Uint8Array };
type Failure = { tag: "retry" | "bury"; val: string } | { tag: "retry-after"; val: [bigint, string] };

type Thumbnails = { image: string; widths: number[] };

const FULL_WAIT_MS = 10_000n;

export const handler = {
  /** Returns when the job is done, and throws a `Failure` when it is not. */
  handle(job: Job): void {
    const { image, widths } = parse(job.payload);
    if (widths.length === 1) {
      console.log(`job ${job.id}, attempt ${job.attempt}: ${image} at ${widths[0]} pixels`);
    } else {
      // A job for each, so that other instances take their share.
      enqueue(job, widths.map((width) => newJob(job, image, width)));
    }
  },
};

function parse(payload: Uint8Array): Thumbnails {
  try {
    const { image, width } = JSON.parse(new TextDecoder().decode(payload));
    const widths: unknown[] = Array.isArray(width) ? width : [width];
    if (typeof image === "string" && widths.length > 0 && widths.every(Number.isInteger)) {
      return { image, widths: widths as number[] };
    }
  } catch {
    // Not JSON: said below.
  }
  // No later attempt can do better.
  throw { tag: "bury", val: 'expected {"image": "...", "width": N}, or several widths' } satisfies Failure;
}

function newJob(job: Job, image: string, width: number): NewJob {
  return {
    payload: new TextEncoder().encode(JSON.stringify({ image, width })),
    options: {
      // If this job is done twice, what waits or runs already isn't enqueued again.
      unique: { key: `${job.id} ${width}`, scope: { tag: "running" } },
      contentType: "application/json",
      metadata: [],
    },
  };
}

function enqueue(job: Job, jobs: NewJob[]): void {
  try {
    enqueueMany(job.queue, jobs);
  } catch (error) {
    throw failure((error as { payload: QueueError }).payload);
  }
}

function failure({ tag, val }: QueueError): Failure {
  switch (tag) {
    case "full":
      return { tag: "retry-after", val: [FULL_WAIT_MS, val] };
    case "unavailable":
      return { tag: "retry", val };
    default:
      return { tag: "bury", val };
  }
}
