// The worker process: the function is called for each job of the queue.

import { greeting } from "./greeting.js";
import { work } from "./wasmhost-job.js";

// The job is done when this returns. An exception has it tried again later, and `Bury` never again.
export const handler = work((job) => {
  const name = new TextDecoder().decode(job.payload).trim();
  console.log(`job ${job.id}, attempt ${job.attempt}: ${greeting(name).trim()}`);
});
