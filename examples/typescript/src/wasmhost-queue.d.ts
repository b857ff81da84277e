// `wasmhost:job/queue` (wit/job/job.wit in the repository). Options that a job doesn't need may be left out.

declare module "wasmhost:job/queue@0.1.0" {
  type UniqueScope = { tag: "waiting" } | { tag: "running" } | { tag: "lasting"; val: bigint };

  type Options = {
    delayMs?: bigint;
    priority?: number;
    unique?: { key: string; scope: UniqueScope };
    attempts?: number;
    contentType?: string;
    metadata: [string, string][];
  };

  export type NewJob = { payload: Uint8Array; options: Options };
  export type Receipt = { id: string; created: boolean };

  /** A thrown error has this as its `payload`. */
  export type QueueError = { tag: "denied" | "full" | "invalid" | "unavailable"; val: string };

  export function enqueue(queue: string, job: NewJob): Receipt;
  export function enqueueMany(queue: string, jobs: NewJob[]): Receipt[];
}
