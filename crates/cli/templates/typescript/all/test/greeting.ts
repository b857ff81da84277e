import { greeting } from "../src/greeting.js";

for (const [name, expected] of [["Ada", "Hello, Ada!\n"], [undefined, "Hello, world!\n"]] as const) {
  if (greeting(name) !== expected) {
    throw new Error(`greeting(${name}) is ${greeting(name)}`);
  }
}
