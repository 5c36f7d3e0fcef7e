"""The review page over HTTP, for one person on one machine.

Whoever does not know the token in the address gets nothing; nor does a page of another site that was made to resolve
to this machine (the Host header is checked) or that embeds this one.
"""

import contextlib
import functools
import hmac
import secrets
import socket
from importlib import resources
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from ssenet_jax.commands.review.album import LONGEST, Album
from ssenet_jax.commands.review.ledger import Conflict, Ledger
from ssenet_jax.stages.reviewed import ACCEPTED, CORRECTED, DECISIONS, Decision

PAGE = resources.files("ssenet_jax.commands.review") / "page"
HOSTS = ("127.0.0.1", "localhost")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Guarded:
    """Lets through the requests whose path begins with the token, and adds the headers to every answer."""

    def __init__(self, app: ASGIApp, token: str):
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_guarded(message):
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in given)]
            await send(message)

        first = scope["path"].split("/")[1]
        app = self._app if hmac.compare_digest(first.encode(), self._token.encode()) else _STRANGER
        await app(scope, receive, send_guarded)


_STRANGER = PlainTextResponse("This is not the address that `ssenet review` printed.\n", status_code=403)


def serve(album: Album, ledger: Ledger, title: str, opened: socket.socket) -> None:
    """Prints the address of the page and serves it on an open socket until it is interrupted."""
    token = secrets.token_urlsafe(24)
    app = application(album, ledger, title=title, token=token)
    print(f"review: http://127.0.0.1:{opened.getsockname()[1]}/{token}/", flush=True)
    print("every decision is saved when it is made; Ctrl-C ends the page", flush=True)
    web = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
    with contextlib.suppress(KeyboardInterrupt):
        web.run(sockets=[opened])


def application(album: Album, ledger: Ledger, *, title: str, token: str) -> Starlette:
    """The page and what it asks for, below ``/TOKEN/``.

    Answers 400 to what is malformed, 403 to another token, 404 to an unknown photo, 409 to a save that another page was
    ahead of, 413 to a mask larger than any photo; never with half a save.
    """
    service = _Service(album, ledger, title)
    routes = [
        Route("/", _index),
        Route("/run", service.run),
        Route("/changes", service.changes),
        Route("/photo", service.photo),
        Route("/thumbnail", service.thumbnail),
        Route("/overlay", service.overlay),
        Route("/description", service.description),
        Route("/scores", service.scores),
        Route("/labels", service.labels),
        Route("/decision", service.decide, methods=["PUT"]),
        Route("/decision", service.clear, methods=["DELETE"]),
        Mount("/page", StaticFiles(directory=str(PAGE))),
    ]
    return Starlette(
        routes=[Mount(f"/{token}", routes=routes)],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False),
            Middleware(Guarded, token=token),
        ],
        exception_handlers={
            HTTPException: lambda request, error: _problem(error.status_code, error.detail),
            Conflict: lambda request, error: _problem(409, str(error), current=_row(error.current)),
            ValueError: lambda request, error: _problem(400, str(error)),
            OSError: lambda request, error: _problem(507, str(error)),
        },
    )


class _Service:
    """What the page asks for; functions that are not async run in threads."""

    def __init__(self, album: Album, ledger: Ledger, title: str):
        self._album, self._ledger, self._title = album, ledger, title

    def run(self, request: Request) -> Response:
        album = self._album
        photos = [{"id": i, **_rounded(album.doubts[i]), "decision": _row(self._ledger.of(i))} for i in album]
        return JSONResponse(
            {
                "title": self._title,
                "classes": ["background", *album.class_names],
                "colors": album.colors(),
                "alpha": album.alpha,
                "background": album.background,
                "saves": self._ledger.since(0)[0],
                "photos": photos,
            }
        )

    def changes(self, request: Request) -> Response:
        try:
            count, changed = self._ledger.since(int(request.query_params.get("after", "")))
        except ValueError:
            raise HTTPException(400, "after must be a number of saves") from None
        return JSONResponse({"saves": count, "changed": {i: _row(decision) for i, decision in changed.items()}})

    def photo(self, request: Request) -> Response:
        return Response(self._album.photo(self._id(request)), media_type="image/jpeg")

    def thumbnail(self, request: Request) -> Response:
        return _kept(self._album.thumbnail(self._id(request)), "image/jpeg")

    def overlay(self, request: Request) -> Response:
        return _kept(self._album.overlay(self._id(request)), "image/png")  # its address holds the time of the decision

    def description(self, request: Request) -> Response:
        image_id = self._id(request)
        decision = _row(self._ledger.of(image_id))
        return JSONResponse(self._album.describe(image_id) | {"decision": decision})

    def scores(self, request: Request) -> Response:
        return Response(self._album.scores(self._id(request)), media_type="application/octet-stream")

    def labels(self, request: Request) -> Response:
        image_id, which = self._id(request), _one_of(request, "of", ("run", "reviewed"))
        labels = self._album.labels(image_id, which)
        if labels is None:
            raise HTTPException(404, f"there is no {which} mask of {image_id}")
        return Response(labels, media_type="application/octet-stream")

    async def decide(self, request: Request) -> Response:
        image_id, decision = self._id(request), _one_of(request, "decision", DECISIONS)
        alpha, known = _alpha(request), request.query_params.get("known", "")
        drawn = await _body(request)
        if (decision == CORRECTED) != bool(drawn):
            raise HTTPException(400, "a corrected mask comes with its pixels, another decision without")
        mask_of = None
        if decision in (ACCEPTED, CORRECTED):
            mask_of = functools.partial(self._album.mask, image_id, alpha, drawn or None)
        row = await run_in_threadpool(self._ledger.save, image_id, decision, alpha, known, mask_of)
        return JSONResponse(_row(row))

    def clear(self, request: Request) -> Response:
        self._ledger.clear(self._id(request), request.query_params.get("known", ""))
        return JSONResponse(None)

    def _id(self, request: Request) -> str:
        image_id = request.query_params.get("id", "")
        if image_id not in self._album:
            raise HTTPException(404, f"there is no photo {image_id[:200]!r} with scores in this run")
        return image_id


def _index(request: Request) -> Response:
    return FileResponse(str(PAGE / "index.html"))


def _problem(status: int, text: str, **more: Any) -> Response:
    return JSONResponse({"error": " ".join(str(text).split()), **more}, status_code=status)


def _row(decision: Decision | None) -> dict | None:
    return None if decision is None else decision._asdict()


def _rounded(doubt: Any) -> dict:
    disagreement = None if doubt.disagreement is None else round(doubt.disagreement, 4)
    return {
        "doubt": round(doubt.doubt, 4),
        "undecided": round(doubt.undecided, 4),
        "contested": round(doubt.contested, 4),
        "disagreement": disagreement,
        "coverage": [[label + 1, round(share, 4)] for label, share in doubt.coverage],
    }


def _kept(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind, headers={"Cache-Control": "private, max-age=86400"})


def _one_of(request: Request, name: str, values: tuple[str, ...]) -> str:
    value = request.query_params.get(name, "")
    if value not in values:
        raise HTTPException(400, f"{name} is {value[:50]!r}; it must be one of {', '.join(values)}")
    return value


def _alpha(request: Request) -> float | None:
    text = request.query_params.get("alpha", "")
    try:
        alpha = float(text) if text else None
    except ValueError:
        alpha = -1.0
    if alpha is not None and not 0 <= alpha <= 100:
        raise HTTPException(400, f"alpha is {text[:50]!r}; it must be a number from 0 to 100, or empty")
    return alpha


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LONGEST * LONGEST:
            raise HTTPException(413, "the mask is larger than any photo")
    return bytes(body)
