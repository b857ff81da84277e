// The worker process: it is given jobs of the queue, one at a time.

import { enqueueMany, type NewJob } from "wasmhost:job/queue@0.1.0";
import { Bury, type Job, work } from "./wasmhost-job.js";

type Thumbnails = { image: string; widths: number[] };

export const handler = work((job) => {
  const { image, widths } = parse(job.payload);
  if (widths.length === 1) {
    const bytes = shrink(image, widths[0]);
    console.log(`job ${job.id}, attempt ${job.attempt}: ${image} at ${widths[0]} pixels, ${bytes} bytes`);
  } else {
    // A job for each, so that other instances take their share.
    enqueueMany(job.queue, widths.map((width) => newJob(job, image, width)));
  }
});

/** Nothing is drawn here. A negative width is a `RangeError`, which nobody catches: the job is tried again. */
function shrink(_image: string, width: number): number {
  const row = new Uint8Array(width * 4);
  return row.length * width;
}

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
  throw new Bury('expected {"image": "...", "width": N}, or several widths');
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
