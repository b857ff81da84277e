"""The web process: functions for routes, in plain Python."""

import json
import re
from collections.abc import Callable
from urllib.parse import parse_qs

from wasi_http import Request, Response, get, serve
from wit_world.imports import environment


def hello(_request: Request) -> Response:
    return Response.text("Hello, world!\n")


def greet(request: Request, name: str) -> Response:
    times = parse_qs(request.query).get("times", ["1"])[0]
    if not times.isascii() or not times.isdigit() or int(times) > 100:
        return Response.json({"error": "expected times from 0 to 100"}, status=400)
    return Response.json({"greetings": [f"Hello, {name}!"] * int(times)})


def count_words(request: Request) -> Response:
    """The longest words of {"text": ...}, and how many there are."""
    try:
        text = json.loads(request.body())["text"]
        words = re.findall(r"\w+", text)
    except (ValueError, KeyError, TypeError):
        return Response.json({"error": 'expected {"text": "..."}'}, status=400)
    longest = sorted(set(words), key=lambda word: (-len(word), word))[:3]
    return Response.json({"words": len(words), "longest": longest})


visits = 0


def count_visits(_request: Request) -> Response:
    # An instance is kept between requests, so this counts on: for itself, since no two share memory.
    global visits
    visits += 1
    return Response.json({"visits": visits})


def ask_upstream(_request: Request) -> Response:
    """A request to another server: the formation names it, and grants it."""
    # `os.environ` is that of the build.
    upstream = dict(environment.get_environment())["UPSTREAM"]
    answer = get(upstream)
    return Response.json({"status": answer.status, "text": answer.body.decode()})


def static_file(_request: Request, name: str) -> Response:
    """Static files, of the directory that the formation grants. No path leads out of it."""
    try:
        with open(f"/public/{name}", "rb") as file:
            return Response(200, file.read(), [("content-type", b"text/plain; charset=utf-8")])
    except OSError:
        return Response.text("Not Found\n", status=404)


def fail(_request: Request) -> Response:
    raise RuntimeError("as asked for")


ROUTES: list[tuple[str, str, Callable[..., Response]]] = [
    ("GET", r"/", hello),
    ("GET", r"/greet/([^/]+)", greet),
    ("POST", r"/words", count_words),
    ("GET", r"/visits", count_visits),
    ("GET", r"/upstream", ask_upstream),
    ("GET", r"/files/([^/]+)", static_file),
    ("GET", r"/fail", fail),
]


def app(request: Request) -> Response:
    # A client that asks for the head alone gets that of GET.
    wanted = "GET" if request.method == "HEAD" else request.method
    methods = set()
    for method, pattern, handler in ROUTES:
        if match := re.fullmatch(pattern, request.path):
            if method == wanted:
                return handler(request, *match.groups())
            methods.add(method)
    if methods:
        return Response.text("Method Not Allowed\n", status=405, allow=", ".join(sorted(methods)))
    return Response.text("Not Found\n", status=404)


IncomingHandler = serve(app)
