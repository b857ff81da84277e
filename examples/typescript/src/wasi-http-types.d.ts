// As much of `wasi:http/types` (wit/deps/wasi-http.wit) as `wasi-http.ts` uses.

declare module "wasi:http/types@0.2.12" {
  type Known = "get" | "head" | "post" | "put" | "delete" | "connect" | "options" | "trace" | "patch";
  type Method = { tag: Known } | { tag: "other"; val: string };

  export class Fields implements Disposable {
    static fromList(entries: [string, Uint8Array][]): Fields;
    entries(): [string, Uint8Array][];
    [Symbol.dispose](): void;
  }

  export class IncomingRequest implements Disposable {
    method(): Method;
    pathWithQuery(): string | undefined;
    scheme(): { tag: "HTTP" | "HTTPS" | "other" } | undefined;
    authority(): string | undefined;
    headers(): Fields;
    consume(): IncomingBody;
    [Symbol.dispose](): void;
  }

  export class IncomingBody {
    stream(): InputStream;
    static finish(body: IncomingBody): Disposable;
  }

  export class InputStream implements Disposable {
    blockingRead(bytes: bigint): Uint8Array;
    [Symbol.dispose](): void;
  }

  export class OutgoingResponse {
    constructor(headers: Fields);
    setStatusCode(status: number): void;
    body(): OutgoingBody;
  }

  export class OutgoingBody implements Disposable {
    write(): OutputStream;
    static finish(body: OutgoingBody, trailers: Fields | undefined): void;
    [Symbol.dispose](): void;
  }

  export class OutputStream implements Disposable {
    checkWrite(): bigint;
    write(bytes: Uint8Array): void;
    subscribe(): Pollable;
    [Symbol.dispose](): void;
  }

  export class Pollable implements Disposable {
    block(): void;
    [Symbol.dispose](): void;
  }

  export class ResponseOutparam {
    static set(out: ResponseOutparam, response: { tag: "ok"; val: OutgoingResponse }): void;
  }
}
