"""REST calls: one request, one call to the supervisor, one response. `rest` translates."""

from __future__ import annotations

import asyncio
import logging
import math

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from initspawn.gateway import afb, rest
from initspawn.gateway.admission import (
    Headers,
    Refused,
    believed_cookie,
    check_fetch_site,
    find_session,
    find_token,
    port_of,
    secure,
    session_cookie,
    values,
)
from initspawn.gateway.bounds import BODY_SECONDS
from initspawn.gateway.link import Link, Way
from initspawn.gateway.quota import TOO_MANY_CALLS, TOO_MANY_FAILURES
from initspawn.limits import FRAME_BYTES

SESSION_SECONDS = 32_000_000  # how long a browser keeps a session's name: what AFB servers say
_RETRY = ("Retry-After", "5")

logger = logging.getLogger("initspawn.gateway")


class Rest:
    """The ASGI application at `/api/`; a class, so that its route takes every method."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await _respond(scope, receive)
        except Refused as refused:
            kind = rest.JSON if refused.body else None
            response = Response(refused.body, refused.status, dict(refused.headers), kind)
        await response(scope, receive, send)


class Exchange:
    """One call on a link: its owner for so long."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[afb.Answer] = asyncio.get_running_loop().create_future()

    def link_received(self, bodies: list[bytes]) -> None:
        """The answer; there may be nothing else, because the call hears no events."""
        try:
            for answer in map(afb.decode_answer, bodies):
                if answer.id is not None and not self.answer.done():
                    self.answer.set_result(answer)
        except afb.BadFrame:
            self.link_lost("the supervisor sent something that is no answer")

    def link_full(self, full: bool) -> None:
        """A single call is on its way: nothing to hold back."""

    def link_lost(self, reason: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionError(reason))


async def _respond(scope: Scope, receive: Receive) -> Response:
    """What a request comes to. Raises Refused."""
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    check_fetch_site(headers)
    procedure = rest.procedure(scope["path"])
    body = await _body(headers, receive)
    kind = next(values(headers, "content-type"), "")
    query = scope["query_string"].decode("latin-1")
    arguments, fields = rest.arguments(scope["method"], query, kind, body)
    port = port_of(scope["server"])
    session = find_session(headers, fields, port)
    token = find_token(headers, fields)
    if token is None and scope["method"] != "GET":
        token = believed_cookie(headers, port)
    call = afb.encode_single(1, procedure, arguments, token, session)
    way: Way = scope["state"]["way"]
    if not way.guest.call():
        raise too_many(TOO_MANY_CALLS, way.guest.call_wait())
    answer = await ask(way, call, token)
    status, more = rest.status(answer)
    cookie = f"{session_cookie(port)}={session}; Path=/; Max-Age={SESSION_SECONDS}; HttpOnly; SameSite=Lax"
    more = {**more, "Set-Cookie": cookie + secure(scope)}
    return Response(afb.answer_object(answer), status, more, rest.JSON)


def too_many(reason: str, seconds: float) -> Refused:
    """429 (RFC 6585), and when to come again."""
    retry = ("Retry-After", str(math.ceil(seconds) or 1))
    return Refused(429, retry, body=afb.reply_object("not-available", reason))


async def ask(way: Way, call: bytes, token: str | None) -> afb.Answer:
    """The supervisor's answer to a call that shows this token. Raises Refused(503) without a way to it, (500)
    if it goes away meanwhile, (429) for who has shown too many wrong tokens.
    """
    if token is None:
        return await _exchange(way, call)
    shown, guest, valid = afb.text_json(token), way.guest, False
    if not guest.begin_trial(shown):
        raise too_many(TOO_MANY_FAILURES, guest.locked(shown))
    try:
        answer = await _exchange(way, call)
        valid = not answer.unknown
    finally:
        guest.end_trial(shown, valid=valid)
    return answer


async def _exchange(way: Way, call: bytes) -> afb.Answer:
    exchange = Exchange()
    try:
        link: Link = await way.link(exchange)
        link.send([call])
    except ValueError:
        raise Refused(413) from None
    except OSError as error:
        logger.error("no way to the supervisor: %s", error)
        raise Refused(503, _RETRY) from None
    try:
        return await exchange.answer
    except ConnectionError as error:
        logger.debug("control connection lost: %s", error)
        raise Refused(500, body=afb.reply_object("disconnected")) from None


async def _body(headers: Headers, receive: Receive) -> bytes:
    """The request's body, at most as large as a WebSocket frame. Raises Refused(408 or 413)."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more:
                length = next(values(headers, "content-length"), "0")
                if len(body) > FRAME_BYTES or int(length) > FRAME_BYTES:
                    raise Refused(413)
                message = await receive()
                if message["type"] == "http.disconnect":  # it has gone, or goes on with what is no HTTP
                    raise Refused(400)
                body += message.get("body", b"")
                more = message.get("more_body", False)
    except TimeoutError:
        raise Refused(408, ("Connection", "close")) from None
    return bytes(body)
