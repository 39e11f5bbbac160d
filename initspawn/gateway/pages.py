"""Plain HTTP: the test page or the user's own, REST calls, clear answers to all that is not served."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from initspawn.gateway.admission import HostPolicy, Refused, check_framing
from initspawn.gateway.calls import Rest
from initspawn.gateway.files import Directory
from initspawn.gateway.login import login, logout

WWW = Path(__file__).with_name("www")
NONE: Mapping[str, str] = {}
BUILT_IN = "/initspawn"  # where the test page is when there is one of the user's own
# Of ours only these files are served: a path that is not a key here cannot reach the file system.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}


class Guard:
    """Middleware: believes a request's Host and Origin or answers 403; gives every answer safe headers."""

    def __init__(self, app: ASGIApp, hosts: HostPolicy, aliases: tuple[str, ...] = ()) -> None:
        self._app = app
        self._hosts = hosts
        self._aliases = tuple(f"{prefix}/" for prefix in aliases)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        local = scope["server"][0] if scope["server"] else ""
        app, host = self._app, ""
        try:
            check_framing(headers)
            host = self._hosts.check(headers, scheme=scope["scheme"], local=local)
        except Refused as refused:
            app = Response(status_code=refused.status, headers=dict(refused.headers))

        inline = bool(self._aliases) and scope["path"].startswith(self._aliases)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(safe_headers(host, inline=inline))
            await send(message)

        await app(scope, receive, guarded)


def safe_headers(host: str, *, inline: bool = False) -> Mapping[str, str]:
    """Headers of every answer. `host` is a checked Host: not all browsers let 'self' mean ws: too.

    `inline`: what a page has in itself counts as well; pages that others have made are written so.
    """
    own = "'self' 'unsafe-inline'" if inline else "'self'"
    sockets = f" ws://{host} wss://{host}" if host else ""
    policy = (
        f"default-src 'none'; script-src {own}; style-src {own}; img-src 'self' data:; font-src 'self'; "
        "media-src 'self'; manifest-src 'self'; "
        f"connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


def application(
    hosts: HostPolicy, state: Mapping[str, Any], page: str | None = None, aliases: Mapping[str, str] = NONE
) -> Starlette:
    """The HTTP application. `state` is what uvicorn hands to its protocols (the lifespan state).

    `page` is the directory of the user's own page, which takes the place of ours; `aliases` are
    further directories by the prefix of their addresses. Raises OSError for one that is none.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        yield state

    start: Callable[[Starlette], AbstractAsyncContextManager[Mapping[str, Any]]] = lifespan
    place = "" if page is None else BUILT_IN
    routes = [Route(place + path, _file(*entry), methods=["GET"]) for path, entry in FILES.items()]
    routes.append(Route("/api/{procedure:path}", Rest()))
    routes += [Route("/login", login, methods=["POST"]), Route("/logout", logout, methods=["POST"])]
    for prefix, directory in aliases.items():
        files = Directory(directory, prefix).answer
        routes += [Route(place, files, methods=["GET"]) for place in (prefix, prefix + "/{path:path}")]
    if page is not None:
        routes.append(Route("/{path:path}", Directory(page).answer, methods=["GET"]))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, hosts, tuple(aliases))],
        exception_handlers={HTTPException: _refusal},
        lifespan=start,
    )
    app.router.redirect_slashes = False
    return app


def _file(name: str, kind: str) -> Callable[[Request], Any]:
    """An endpoint for one file, read now: a confined gateway opens nothing later."""
    content = (WWW / name).read_bytes()

    async def endpoint(_: Request) -> Response:
        return Response(content, media_type=kind)

    return endpoint


async def _refusal(_: Request, error: Exception) -> Response:
    """404 and 405 with an empty body."""
    assert isinstance(error, HTTPException)
    return Response(status_code=error.status_code, headers=error.headers)
