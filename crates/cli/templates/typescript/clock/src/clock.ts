// The clock process: `handle` is called at each time of its schedule.

import { greeting } from "./greeting.js";

/** `wasmhost:clock/types` (wit/deps/clock/clock.wit). */
type Tick = { schedule: string; nominalMs: bigint; manual: boolean };

export const handler = {
  // A tick isn't repeated: what must not be missed is put on a queue, for a worker.
  handle(tick: Tick): void {
    try {
      console.log(`tick ${tick.nominalMs / 1000n} s: ${greeting().trim()}`);
    } catch (error) {
      // An `Error` that leaves a component is a trap, which costs the instance. A text is told in the tick's history.
      console.error(error);
      throw String(error);
    }
  },
};
