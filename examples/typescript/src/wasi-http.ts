// Between `wasi:http` and the web's `Request` and `Response`, streaming both ways.
//
// An instance serves one request after another, so whatever belongs to one is disposed of with it: the garbage
// collector would get to it too late, if at all. An exception that leaves a component is a trap, which costs the
// instance, so all are caught here: one that comes before an answer is logged and answered by 500.

import {
  Fields,
  IncomingBody,
  type IncomingRequest,
  OutgoingBody,
  OutgoingResponse,
  type OutputStream,
  ResponseOutparam,
} from "wasi:http/types@0.2.12";

const CHUNK_BYTES = 64n * 1024n;

type Fetch = (request: Request) => Response | Promise<Response>;

/** A component's export `incomingHandler`, by which `fetch` answers its requests. */
export function serve(fetch: Fetch) {
  return {
    async handle(incoming: IncomingRequest, out: ResponseOutparam): Promise<void> {
      using body = new RequestBody(incoming);
      await send(await answer(fetch, incoming, body), out);
    },
  };
}

/** An answer that can be sent, and what is behind its head. */
type Answer = { outgoing: OutgoingResponse; response: Response };

async function answer(fetch: Fetch, incoming: IncomingRequest, body: RequestBody): Promise<Answer> {
  let request: Request;
  try {
    request = readRequest(incoming, body);
  } catch (error) {
    // Such as a method that the web's `Request` refuses.
    console.error("the request can't be taken:", error);
    return begin(new Response("Bad Request\n", { status: 400 }));
  }
  try {
    return begin(await fetch(request));
  } catch (error) {
    // The client isn't told what it was.
    console.error("the request failed:", error);
    return begin(new Response("Internal Server Error\n", { status: 500 }));
  }
}

/** Throws where a header or the status can't be sent. */
function begin(response: Response): Answer {
  const outgoing = new OutgoingResponse(headersOf(response));
  outgoing.setStatusCode(response.status);
  return { outgoing, response };
}

function readRequest(incoming: IncomingRequest, body: RequestBody): Request {
  const method = incoming.method();
  const name = method.tag === "other" ? method.val : method.tag.toUpperCase();
  const scheme = incoming.scheme()?.tag === "HTTPS" ? "https" : "http";
  const url = `${scheme}://${incoming.authority() ?? "localhost"}${incoming.pathWithQuery() ?? "/"}`;

  const headers = new Headers();
  using fields = incoming.headers();
  const decoder = new TextDecoder();
  for (const [field, value] of fields.entries()) {
    headers.append(field, decoder.decode(value));
  }
  const hasBody = name !== "GET" && name !== "HEAD";
  return new Request(url, { method: name, headers, body: hasBody ? body.stream() : null });
}

/** A request and its body, which WASI wants given back in this order: the stream, the body, the request. */
class RequestBody implements Disposable {
  #incoming: IncomingRequest;
  #end: () => void = () => {};

  constructor(incoming: IncomingRequest) {
    this.#incoming = incoming;
  }

  /** Nothing is read from the client before the app reads this. */
  stream(): ReadableStream<Uint8Array> {
    const body = this.#incoming.consume();
    const bytes = body.stream();
    this.#end = () => {
      this.#end = () => {};
      bytes[Symbol.dispose]();
      IncomingBody.finish(body)[Symbol.dispose]();
    };
    return new ReadableStream<Uint8Array>(
      {
        pull: (controller) => {
          try {
            controller.enqueue(bytes.blockingRead(CHUNK_BYTES));
          } catch (error) {
            this.#end();
            // An error that a component can catch has a payload; the end of a stream is one of its cases.
            if ((error as { payload?: { tag?: string } }).payload?.tag !== "closed") {
              throw error;
            }
            controller.close();
          }
        },
        cancel: () => this.#end(),
      },
      { highWaterMark: 0 },
    );
  }

  [Symbol.dispose](): void {
    this.#end();
    this.#incoming[Symbol.dispose]();
  }
}

/** The head goes first, so that the host isn't asked to hold a body that nobody takes yet. */
async function send({ outgoing, response }: Answer, out: ResponseOutparam): Promise<void> {
  const body = outgoing.body();
  ResponseOutparam.set(out, { tag: "ok", val: outgoing });
  try {
    await sendBody(response, body);
    OutgoingBody.finish(body, undefined);
  } catch (error) {
    // The client went away, or the app could not go on: a body that isn't finished is one that is cut off.
    body[Symbol.dispose]();
    console.error("the response was cut off:", error);
  }
}

function headersOf(response: Response): Fields {
  const encoder = new TextEncoder();
  const headers: [string, Uint8Array][] = [];
  response.headers.forEach((value, name) => {
    // An answer to HEAD may say a length and has no bytes: for WASI that is a body that is cut off.
    if (response.body || name !== "content-length") {
      headers.push([name, encoder.encode(value)]);
    }
  });
  return Fields.fromList(headers);
}

async function sendBody(response: Response, body: OutgoingBody): Promise<void> {
  using stream = body.write();
  const reader = response.body?.getReader();
  for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
    write(stream, part.value);
  }
}

function write(stream: OutputStream, bytes: Uint8Array): void {
  while (bytes.length > 0) {
    const room = Number(stream.checkWrite());
    if (room === 0) {
      using ready = stream.subscribe();
      ready.block();
      continue;
    }
    stream.write(bytes.subarray(0, room));
    bytes = bytes.subarray(room);
  }
}
