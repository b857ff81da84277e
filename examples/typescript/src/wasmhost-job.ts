// Between `wasmhost:job/handler` and a function that does a job. Take it along.
//
// An exception that leaves a component is a trap: it costs the instance, and the third one buries the job. So nothing is
// thrown to the host but a `Failure`.

/** `wasmhost:job/types` (wit/deps/job/job.wit). */
export type Job = {
  id: string;
  queue: string;
  attempt: number;
  attempts: number;
  contentType: string;
  payload: Uint8Array;
  metadata: [string, string][];
};

type Failure = { tag: "retry" | "bury"; val: string } | { tag: "retry-after"; val: [bigint, string] };

/** Thrown by a handler: no later attempt can do better, so the job is dead at once. */
export class Bury extends Error {}

/** Thrown by a handler: the job is tried again after so many milliseconds. */
export class RetryAfter extends Error {
  readonly ms: number;

  constructor(ms: number, message: string) {
    super(message);
    this.ms = ms;
  }
}

/**
 * The object that a component exports as `handler` to have `handle` do its jobs. A job is done when `handle` returns.
 * Whatever else it throws is logged, and the job is tried again after the usual backoff, as often as `attempts` says.
 */
export function work(handle: (job: Job) => void | Promise<void>) {
  return {
    async handle(job: Job): Promise<void> {
      try {
        await handle(job);
      } catch (error) {
        throw failureOf(error);
      }
    },
  };
}

const FULL_WAIT_MS = 10_000n;

function failureOf(error: unknown): Failure {
  if (error instanceof Bury) {
    return { tag: "bury", val: error.message };
  }
  if (error instanceof RetryAfter) {
    return { tag: "retry-after", val: [BigInt(Math.max(0, Math.round(error.ms))), error.message] };
  }
  // An imported function throws its error as `payload`; these are those of `wasmhost:job/queue`.
  const refused = (error as { payload?: { tag?: string; val?: unknown } } | null)?.payload;
  if (refused?.tag === "full") {
    return { tag: "retry-after", val: [FULL_WAIT_MS, String(refused.val)] };
  }
  if (refused?.tag === "denied" || refused?.tag === "invalid") {
    return { tag: "bury", val: String(refused.val) };
  }
  console.error("the job failed:", error);
  return { tag: "retry", val: refused ? JSON.stringify(refused) : String(error) };
}
