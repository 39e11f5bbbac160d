"""REST requests to calls, and answers to HTTP responses. Sans-I/O, pure.

`GET` and `POST /api/API/VERB`: where the arguments come from, and which status an answer has. Every function
takes untrusted bytes and raises nothing but `Refused`.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote_plus

from msgspec import DecodeError, Raw
from msgspec.json import Decoder, encode

from initspawn.gateway.admission import API_PATH, Refused
from initspawn.gateway.afb import Answer, reply_object

# Query arguments that say who calls: they are no arguments of the verb.
CREDENTIALS = frozenset(("access_token", "x-afb-token", "x-afb-uuid", "token", "uuid"))
METHODS = ("GET", "POST")
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
TOKEN_PROBLEM = {"WWW-Authenticate": 'error="invalid_token"'}
SCOPE_PROBLEM = {"WWW-Authenticate": 'error="insufficient_scope"'}
# HTTP status and headers by AFB code; every other code, 0 and positive ones included, is 200.
STATUSES: dict[int, tuple[int, Mapping[str, str]]] = {
    -1: (500, {}),
    -2: (500, {}),
    -3: (404, {}),
    -4: (404, {}),
    -5: (501, {}),
    -6: (401, TOKEN_PROBLEM),
    -7: (401, TOKEN_PROBLEM),
    -8: (403, SCOPE_PROBLEM),
    -9: (403, SCOPE_PROBLEM),
    -10: (403, SCOPE_PROBLEM),
}

_values = Decoder(list[Raw])


def procedure(path: str) -> str:
    """`API/VERB` of a decoded path; slashes before either are skipped. Raises Refused(404)."""
    api, _, verb = path.removeprefix(API_PATH).lstrip("/").partition("/")
    verb = verb.lstrip("/")
    if not api or not verb:
        raise Refused(404)
    return f"{api}/{verb}"


def arguments(method: str, query: str, content_type: str, body: bytes) -> tuple[bytes, dict[str, str | None]]:
    """(the call's arguments as JSON, all fields of the request). Raises Refused(400, 405 or 415).

    The fields of a form, like those of the query, may carry a credential.
    """
    if method not in METHODS:
        raise Refused(405, ("Allow", ", ".join(METHODS)))
    found = fields(query)
    kind = content_type.lower()
    if method == "POST" and kind:
        if JSON in kind:
            if body.strip():
                return _json(body), found
        elif FORM in kind:
            found |= fields(body.decode("utf-8", "replace"))
        else:
            raise Refused(415)
    return encode({name: text for name, text in found.items() if name.lower() not in CREDENTIALS}), found


def fields(text: str) -> dict[str, str | None]:
    """The arguments of a query or form: all are text, without `=` null, the last of equal names counts."""
    found: dict[str, str | None] = {}
    for field in text.split("&"):
        name, equals, value = field.partition("=")
        if name or equals:
            found[unquote_plus(name)] = unquote_plus(value) if equals else None
    return found


def _json(body: bytes) -> bytes:
    """The body, if it is one JSON value in UTF-8. Raises Refused(400) with a reply object."""
    try:
        body.decode()
        if len(_values.decode(b"[%b]" % body)) == 1:
            return body
    except (DecodeError, UnicodeDecodeError, RecursionError):
        pass
    raise Refused(400, body=reply_object("invalid-request", "the body is not JSON"))


def status(answer: Answer) -> tuple[int, Mapping[str, str]]:
    """HTTP status and further headers of an answer."""
    return STATUSES.get(answer.code, (200, {}))
