"""Between `wasi:http` and functions that take a `Request` and return a `Response`.

An instance serves one request after another, so whatever belongs to one is given back with it, by `with`: what is left
to the garbage collector is held by the host until then. An exception that leaves a component is a trap, which costs the
instance, so all are caught here: one that comes before an answer is logged and answered by 500.
"""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import outgoing_handler
from wit_world.imports.streams import InputStream, OutputStream, StreamError_Closed
from wit_world.imports.types import (
    Fields,
    IncomingBody,
    IncomingRequest,
    IncomingResponse,
    Method_Head,
    Method_Other,
    OutgoingBody,
    OutgoingRequest,
    OutgoingResponse,
    ResponseOutparam,
    Scheme_Http,
    Scheme_Https,
)

CHUNK_BYTES = 64 * 1024
BODY_BYTES_MAX = 1024 * 1024


class BodyTooLarge(Exception):
    pass


class Request:
    """A client's request. Parts that aren't looked at aren't fetched from the host."""

    def __init__(self, incoming: IncomingRequest):
        self._incoming = incoming
        target = incoming.path_with_query() or "/"
        path, _, self.query = target.partition("?")
        self.path = unquote(path)

    @property
    def method(self) -> str:
        method = self._incoming.method()
        if isinstance(method, Method_Other):
            return method.value
        return type(method).__name__.removeprefix("Method_").upper()

    def header(self, name: str) -> str | None:
        with self._incoming.headers() as headers:
            values = headers.get(name)
        return values[0].decode("latin-1") if values else None

    def body(self) -> bytes:
        """All of it. `BodyTooLarge` where that is more than a megabyte."""
        return _read_body(self._incoming)


def _read_body(of: IncomingRequest | IncomingResponse) -> bytes:
    chunks = []
    length = 0
    body = of.consume()
    try:
        with body.stream() as stream:
            while chunk := _read(stream):
                length += len(chunk)
                if length > BODY_BYTES_MAX:
                    raise BodyTooLarge
                chunks.append(chunk)
    finally:
        IncomingBody.finish(body).__exit__(None, None, None)
    return b"".join(chunks)


def _read(stream: InputStream) -> bytes | None:
    try:
        return stream.blocking_read(CHUNK_BYTES)
    except Err as error:
        if isinstance(error.value, StreamError_Closed):
            return None
        raise


@dataclass
class Response:
    status: int = 200
    body: bytes = b""
    headers: list[tuple[str, bytes]] = field(default_factory=list)

    @classmethod
    def text(cls, text: str, status: int = 200, **headers: str) -> Self:
        return cls._of("text/plain; charset=utf-8", text, status, headers)

    @classmethod
    def json(cls, value: Any, status: int = 200, **headers: str) -> Self:
        return cls._of("application/json", json.dumps(value), status, headers)

    @classmethod
    def _of(cls, content_type: str, text: str, status: int, headers: dict[str, str]) -> Self:
        named = [(name.replace("_", "-"), value.encode()) for name, value in headers.items()]
        return cls(status, text.encode(), [("content-type", content_type.encode()), *named])


def get(url: str) -> Response:
    """The answer of another server, which the formation must grant. `Err` with an error code where there is none."""
    parts = urlsplit(url)
    request = OutgoingRequest(Fields())
    request.set_scheme(Scheme_Https() if parts.scheme == "https" else Scheme_Http())
    request.set_authority(parts.netloc)
    request.set_path_with_query((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
    with outgoing_handler.handle(request, None) as coming:
        with coming.subscribe() as ready:
            ready.block()
        answer = coming.get()
        # Two results: whether it was taken already, and whether there is one.
        assert isinstance(answer, Ok)
        if isinstance(answer.value, Err):
            raise answer.value
        with answer.value.value as response:
            with response.headers() as headers:
                entries = headers.entries()
            return Response(response.status(), _read_body(response), entries)


def serve(app: Callable[[Request], Response]) -> type[exports.IncomingHandler]:
    """A component's `IncomingHandler`, by which `app` answers its requests."""

    class IncomingHandler(exports.IncomingHandler):
        def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
            with request:
                outgoing, body = _answer(app, request)
                if isinstance(request.method(), Method_Head):
                    body = b""
                _send(outgoing, body, response_out)

    return IncomingHandler


def _answer(app: Callable[[Request], Response], incoming: IncomingRequest) -> tuple[OutgoingResponse, bytes]:
    try:
        return _begin(app(Request(incoming)))
    except BodyTooLarge:
        return _begin(Response.text("Content Too Large\n", status=413))
    # `sys.exit` too would end the instance.
    except BaseException:
        # The client isn't told what it was.
        traceback.print_exc()
        return _begin(Response.text("Internal Server Error\n", status=500))


def _begin(response: Response) -> tuple[OutgoingResponse, bytes]:
    """Raises where a header or the status can't be sent."""
    outgoing = OutgoingResponse(Fields.from_list(response.headers))
    outgoing.set_status_code(response.status)
    return outgoing, response.body


def _send(outgoing: OutgoingResponse, text: bytes, out: ResponseOutparam) -> None:
    """The head goes first, so that the host isn't asked to hold a body that nobody takes yet."""
    body = outgoing.body()
    ResponseOutparam.set(out, Ok(outgoing))
    try:
        with body.write() as stream:
            _write(stream, text)
        OutgoingBody.finish(body, None)
    except Err as error:
        # The client went away. A body that isn't finished is one that is cut off.
        body.__exit__(None, None, None)
        print("the response was cut off:", error.value, file=sys.stderr)


def _write(stream: OutputStream, data: bytes) -> None:
    while data:
        room = stream.check_write()
        if room == 0:
            with stream.subscribe() as ready:
                ready.block()
            continue
        stream.write(data[:room])
        data = data[room:]
