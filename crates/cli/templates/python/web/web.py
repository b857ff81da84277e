"""The web process: `app` is called for each request."""

from urllib.parse import parse_qs

from greeting import greeting
from wasi_http import Request, Response, serve


def app(request: Request) -> Response:
    if request.path != "/":
        return Response.text("There is nothing here.\n", status=404)
    return Response.text(greeting(parse_qs(request.query).get("name", [None])[0]))


IncomingHandler = serve(app)
