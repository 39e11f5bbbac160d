"""`POST /login` and `POST /logout`: a page trades its token for a cookie that no script can read.

The supervisor makes a token of its own for the cookie, which is over after some hours. `SameSite=Strict`: no
other site's page makes a browser send it; and a request that has nothing but the cookie must say by its
`Origin`, which was compared with `Host`, that it comes from here. A GET is never believed for its cookie.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from initspawn.gateway import afb
from initspawn.gateway.admission import (
    Refused,
    believed_cookie,
    check_fetch_site,
    find_token,
    port_of,
    secure,
    token_cookie,
)
from initspawn.gateway.calls import ask, too_many
from initspawn.gateway.link import Way
from initspawn.gateway.quota import TOO_MANY_CALLS

_FOR_EVER = 12 * 3600  # seconds; the token in it is over by then


async def login(request: Request) -> Response:
    """204 and the cookie for a valid token in a header, else 401."""
    return await _answer(request, "login")


async def logout(request: Request) -> Response:
    """204, and the cookie is worth nothing any more."""
    return await _answer(request, "logout")


async def _answer(request: Request, order: str) -> Response:
    scope = request.scope
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    port = port_of(scope["server"])
    try:
        check_fetch_site(headers)
        token = find_token(headers, {}) if order == "login" else believed_cookie(headers, port)
        if not token:
            raise Refused(401)
        way: Way = scope["state"]["way"]
        if not way.guest.call():
            raise too_many(TOO_MANY_CALLS, way.guest.call_wait())
        # Nobody is told whether what was to be ended was there, so a log-out is no trial.
        answer = await ask(way, afb.encode_order(1, order, token), token if order == "login" else None)
    except Refused as refused:
        return Response(refused.body, refused.status, dict(refused.headers))
    if answer.code < 0:
        return Response(status_code=401)
    fresh = afb.decode_text(answer.response) if order == "login" else ""
    age = _FOR_EVER if fresh else 0
    cookie = f"{token_cookie(port)}={fresh}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure(scope)}"
    return Response(status_code=204, headers={"Set-Cookie": cookie})
