// The worker process: it is given jobs of the queue, one at a time.

/** As much of `wasmhost:job/types` (wit/job/job.wit in the repository) as is used here. */
type Job = { id: string; attempt: number; payload: Uint8Array };
type Failure = { tag: "retry" | "bury"; val: string };

type Thumbnail = { image: string; width: number };

export const handler = {
  /** Returns when the job is done, and throws a `Failure` when it is not. */
  handle(job: Job): void {
    const { image, width } = parse(job.payload);
    console.log(`job ${job.id}, attempt ${job.attempt}: ${image} at ${width} pixels`);
  },
};

function parse(payload: Uint8Array): Thumbnail {
  try {
    const wanted: Partial<Thumbnail> = JSON.parse(new TextDecoder().decode(payload));
    if (typeof wanted.image === "string" && Number.isInteger(wanted.width)) {
      return wanted as Thumbnail;
    }
  } catch {
    // Not JSON: said below.
  }
  // No later attempt can do better.
  throw { tag: "bury", val: 'expected {"image": "...", "width": N}' } satisfies Failure;
}
