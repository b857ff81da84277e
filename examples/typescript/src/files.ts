// Files of the directories that the formation grants, by `wasi:filesystem`. Take it along.
//
// A path can't lead out of the directory that was granted, by `..` or by a link: the host doesn't follow it.

import { getDirectories } from "wasi:filesystem/preopens@0.2.12";
import type { Descriptor } from "wasi:filesystem/types@0.2.12";

const CHUNK_BYTES = 64n * 1024n;

/** A file's bytes, by its path in the directory that the guest has as `directory`; `undefined` if there is none. */
export function readFile(directory: string, path: string): Uint8Array<ArrayBuffer> | undefined {
  const granted = getDirectories().find(([, name]) => name === directory);
  if (!granted) {
    throw new Error(`no directory is granted as ${directory}`);
  }
  using folder = granted[0];
  try {
    using file = folder.openAt({ symlinkFollow: true }, path, {}, { read: true });
    return file.stat().type === "regular-file" ? readAll(file) : undefined;
  } catch (error) {
    const code = (error as { payload?: unknown }).payload;
    if (code === "no-entry" || code === "not-directory" || code === "not-permitted") {
      return undefined;
    }
    throw error;
  }
}

function readAll(file: Descriptor): Uint8Array<ArrayBuffer> {
  const chunks: Uint8Array[] = [];
  let length = 0n;
  for (let isEnd = false; !isEnd; ) {
    const [chunk, end] = file.read(CHUNK_BYTES, length);
    chunks.push(chunk);
    length += BigInt(chunk.length);
    isEnd = end;
  }
  const whole = new Uint8Array(Number(length));
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}
