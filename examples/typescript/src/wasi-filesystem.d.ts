// As much of `wasi:filesystem` (wit/deps/wasi-filesystem.wit) as `files.ts` uses, and of `wasi:cli` (wit/deps/wasi-cli.wit)
// what reads the environment.

declare module "wasi:filesystem/types@0.2.12" {
  export class Descriptor implements Disposable {
    openAt(
      pathFlags: { symlinkFollow?: boolean },
      path: string,
      openFlags: { create?: boolean; directory?: boolean; exclusive?: boolean; truncate?: boolean },
      flags: { read?: boolean; write?: boolean },
    ): Descriptor;
    stat(): { type: string; size: bigint };
    read(bytes: bigint, offset: bigint): [Uint8Array, boolean];
    [Symbol.dispose](): void;
  }
}

declare module "wasi:filesystem/preopens@0.2.12" {
  import type { Descriptor } from "wasi:filesystem/types@0.2.12";
  export function getDirectories(): [Descriptor, string][];
}

declare module "wasi:cli/environment@0.2.12" {
  export function getEnvironment(): [string, string][];
}
