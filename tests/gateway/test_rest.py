"""REST: arguments, statuses, identity, and everything a foreign page or a broken client may send."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.errors import STATUS_CODES
from initspawn.gateway import rest
from initspawn.gateway.admission import Refused
from initspawn.limits import FRAME_BYTES
from tests.gateway.conftest import Gateway
from tests.gateway.fake_supervisor import until
from tests.gateway.raw_client import RawClient

JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"


@pytest.fixture
def http(gateway: Gateway) -> Iterator[RawClient]:
    """A connection that speaks HTTP."""
    with gateway.client() as connection:
        yield connection


def post(client: RawClient, target: str, body: bytes, *headers: str) -> tuple[int, str, bytes]:
    return client.request(target, *headers, f"Content-Length: {len(body)}", method="POST", body=body)


def value(reply: tuple[int, str, bytes]) -> Any:
    status, head, body = reply
    assert status == 200, (head, body)
    assert "content-type: application/json" in head
    found = json.loads(body)
    assert found["jtype"] == "afb-reply"
    assert found["request"] == {"status": "success", "code": 0}
    return found.get("response")


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ("", {}),
        ("?", {}),
        ("?a=1&b&c=&a=2", {"a": "2", "b": None, "c": ""}),
        ("?x[]=1", {"x[]": "1"}),
        ('?query={"a":1}', {"query": '{"a":1}'}),
        ("?a=%C3%A9+x%2B", {"a": "é x+"}),
        ("?&&=", {"": ""}),
        ("?token=t&UUID=u&x-afb-token=t&x-afb-uuid=u&access_token=t&a=1", {"a": "1"}),
    ],
)
def test_a_get_and_a_post_without_a_type_take_the_query(
    http: RawClient, query: str, arguments: dict[str, Any]
) -> None:
    target = "/api/x/echo" + query.replace("{", "%7B").replace('"', "%22").replace("}", "%7D")
    assert value(http.request(target)) == arguments
    assert value(post(http, target, b"")) == arguments


@pytest.mark.parametrize("body", ["1", '"t"', "[1, {}]", ' {"a": {"b": []}} \n', "true", '"é"'])
def test_a_json_body_is_the_argument(http: RawClient, body: str) -> None:
    assert value(post(http, "/api/x/echo?a=1", body.encode(), JSON)) == json.loads(body)
    assert value(post(http, "/api/x/echo", body.encode(), f"{JSON}; charset=utf-8")) == json.loads(body)


def test_an_empty_json_body_is_the_query(http: RawClient) -> None:
    assert value(post(http, "/api/x/echo?a=1", b"", JSON)) == {"a": "1"}
    assert value(post(http, "/api/x/echo", b"null", JSON)) is None


def test_form_fields_win(http: RawClient) -> None:
    assert value(post(http, "/api/x/echo?a=1&b=2", b"a=3&c+d=%20", FORM)) == {"a": "3", "b": "2", "c d": " "}


@pytest.mark.parametrize("body", [b"{", b"1,2", b"1]", b"{}{}", b"\xff", b'"\xff"', b"NaN", b"[" * 90_000])
def test_what_is_no_json_is_refused_at_once(http: RawClient, body: bytes) -> None:
    status, _, reply = post(http, "/api/x/echo", body, JSON)
    assert status == 400
    assert json.loads(reply)["request"]["status"] == "invalid-request"
    assert value(http.request("/api/x/echo")) == {}


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "x"])
def test_other_types(http: RawClient, kind: str) -> None:
    status, _, body = post(http, "/api/x/echo", b"a", f"Content-Type: {kind}")
    assert (status, body) == (415, b"")


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "X"])
def test_other_methods(http: RawClient, method: str) -> None:
    status, head, _ = http.request("/api/x/echo", method=method)
    assert status == 405
    assert "allow: GET, POST" in head


@pytest.mark.parametrize(
    ("path", "procedure"),
    [
        ("/api/x/procedure", "x/procedure"),
        ("/api//x//procedure", "x/procedure"),
        ("/api/x/procedure/sub/", "x/procedure/sub/"),
        ("/api/x/procedure/..%2f..", "x/procedure/../.."),
        ("/api/x%2Fprocedure", "x/procedure"),
        ("/api/x/procedure/%22%0a", 'x/procedure/"\n'),
    ],
)
def test_paths(http: RawClient, path: str, procedure: str) -> None:
    assert value(http.request(path)) == procedure


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/x", "/api/x/", "/api//", "/api/x//", "/apix/x/echo"])
def test_paths_that_name_no_verb(http: RawClient, path: str) -> None:
    status, _, body = http.request(path)
    assert (status, body) == (404, b"")


HTTP_STATUS = {
    "internal-error": 500,
    "out-of-memory": 500,
    "unknown-api": 404,
    "unknown-verb": 404,
    "not-available": 501,
    "unauthorized": 401,
    "invalid-token": 401,
    "forbidden": 403,
    "insufficient-scope": 403,
    "bad-api-state": 403,
}


@pytest.mark.parametrize("text", STATUS_CODES)
def test_the_status_of_an_answer(http: RawClient, text: str) -> None:
    fault = json.dumps({"status": text, "code": STATUS_CODES[text], "info": "why"})
    status, head, body = post(http, "/api/x/fail", fault.encode(), JSON)
    assert status == HTTP_STATUS.get(text, 200)
    assert json.loads(body)["request"] == {"status": text, "info": "why", "code": STATUS_CODES[text]}
    problem = {401: "invalid_token", 403: "insufficient_scope"}.get(status)
    assert (f'www-authenticate: error="{problem}"' in head.lower()) == (problem is not None)


# Who calls.


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/api/x/token", ("Authorization: Bearer T", "x-afb-token: no")),
        ("/api/x/token?access_token=T&token=no", ("x-afb-token: no",)),
        ("/api/x/token?x-afb-token=no&token=no", ("x-afb-token: T",)),
        ("/api/x/token?X-AFB-Token=T&token=no", ()),
        ("/api/x/token?token=T", ()),
    ],
)
def test_where_the_token_is_found(http: RawClient, target: str, headers: tuple[str, ...]) -> None:
    assert value(http.request(target, *headers)) == "T"


def test_a_token_is_for_one_request_only(http: RawClient) -> None:
    assert value(http.request("/api/x/token?token=T")) == "T"
    assert value(http.request("/api/x/token")) is None
    assert value(post(http, "/api/x/token", b"token=F", FORM)) == "F"
    assert value(http.request("/api/x/quiet")) is True


def test_requests_of_a_connection_share_a_control_connection(gateway: Gateway, http: RawClient) -> None:
    before = len(gateway.supervisor.connections)
    for _ in range(3):
        value(http.request("/api/x/echo"))
    assert len(gateway.supervisor.connections) == before + 1
    status, _, _ = http.upgrade("/api?token=W")
    assert status == 101
    assert http.call("x/token")[2]["response"] == "W"
    assert http.call("x/quiet")[2]["response"] is False
    assert len(gateway.supervisor.connections) == before + 1


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("?x-afb-uuid=no&uuid=no", ("x-afb-uuid: S", "Cookie: x-afb-uuid-{port}=no")),
        ("?x-afb-uuid=S&uuid=no", ("Cookie: x-afb-uuid-{port}=no",)),
        ("?uuid=no", ("Cookie: a=b; x-afb-uuid-{port}=S; x-afb-uuid-1=no",)),
        ("?UUID=S", ()),
        ("?uuid=", ()),
    ],
)
def test_where_the_session_is_found(http: RawClient, target: str, headers: tuple[str, ...]) -> None:
    wanted = "" if target == "?uuid=" else "S"
    status, head, body = http.request(
        "/api/x/session" + target, *(line.format(port=http.port) for line in headers)
    )
    assert status == 200
    assert json.loads(body)["response"] == wanted
    assert (
        f"set-cookie: x-afb-uuid-{http.port}={wanted}; Path=/; Max-Age=32000000; HttpOnly; SameSite=Lax"
        in head
    )


def test_a_session_is_made(http: RawClient) -> None:
    first, second = (value(http.request("/api/x/session?uuid")) for _ in range(2))
    assert re.fullmatch("[0-9a-f-]{36}", first)
    assert first != second


@pytest.mark.parametrize("name", ["x" * 37, "a%0d%0ab", "a%3bb", "a%20b", "%C3%A9"])
def test_sessions_no_cookie_can_hold(gateway: Gateway, http: RawClient, name: str) -> None:
    assert http.request(f"/api/x/echo?uuid={name}")[0] == 400
    with gateway.client() as other:
        assert other.upgrade(f"/api?uuid={name}")[0] == 400


# Whose page asks.


@pytest.mark.parametrize("site", ["cross-site", "same-site", "x", ""])
def test_another_sites_request_is_refused(gateway: Gateway, http: RawClient, site: str) -> None:
    calls = len(gateway.supervisor.calls)
    assert http.request("/api/x/echo?token=T", f"Sec-Fetch-Site: {site}")[0] == 403
    with gateway.client() as other:
        assert other.upgrade("/api", f"Sec-Fetch-Site: {site}")[0] == 403
    assert len(gateway.supervisor.calls) == calls


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_same_sites_request(http: RawClient, site: str) -> None:
    value(http.request("/api/x/echo", f"Sec-Fetch-Site: {site}"))


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1"])
def test_another_origin_is_refused(http: RawClient, origin: str) -> None:
    assert http.request("/api/x/echo?token=T", f"Origin: {origin}")[0] == 403
    assert post(http, "/api/x/echo", b"1", JSON, f"Origin: {origin}")[0] == 403


# Sizes, waits, ends.


def test_the_largest_body(gateway: Gateway) -> None:
    with gateway.client() as http:
        text = b'"' + b"x" * (FRAME_BYTES - 2) + b'"'
        assert len(value(post(http, "/api/x/echo", text, JSON))) == FRAME_BYTES - 2
    with gateway.client() as http:
        status = http.request("/api/x/echo", JSON, f"Content-Length: {FRAME_BYTES + 1}", method="POST")[0]
        assert status == 413
    with gateway.client() as http:
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            http.send(
                b"POST /api/x/echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 17
            )
        assert http.response()[0] == 413


def test_a_body_that_does_not_come() -> None:
    with Gateway(BODY_SECONDS=0.2) as gateway, gateway.client() as http:
        assert http.request("/api/x/echo", JSON, "Content-Length: 2", method="POST")[0] == 408
        assert http.at_end()


def test_a_client_that_leaves_while_it_waits(gateway: Gateway) -> None:
    ended = gateway.supervisor.ended()
    with gateway.client() as http:
        http.send(b"GET /api/x/hang HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: gateway.supervisor.called("x/hang"), "the call")
    until(lambda: gateway.supervisor.ended() > ended, "the end of the control connection")


def test_a_supervisor_that_leaves_while_it_is_waited_for(http: RawClient) -> None:
    status, _, body = http.request("/api/x/vanish")
    assert status == 500
    assert json.loads(body)["request"] == {"status": "disconnected", "code": -15}
    assert value(http.request("/api/x/echo")) == {}


def test_no_supervisor() -> None:
    with Gateway() as gateway:
        gateway.supervisor.full = True
        with gateway.client() as http:
            assert http.request("/api/x/echo")[0] == 500


def test_pipelined_requests(http: RawClient) -> None:
    http.send(
        b"".join(
            b"GET /api/x/echo?n=%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(20)
        )
    )
    for number in range(20):
        assert value(http.response()) == {"n": str(number)}


def test_curl(gateway: Gateway) -> None:
    url = f"http://127.0.0.1:{gateway.port}/api/x/echo"
    command = ["curl", "--silent", "--fail", "--json", '{"a":[1]}', url]
    result = subprocess.run(command, capture_output=True, timeout=30, check=True)
    assert json.loads(result.stdout)["response"] == {"a": [1]}
    result = subprocess.run([*command[:3], "--get", "--data-urlencode", "a=b c&d", url], capture_output=True,
                            timeout=30, check=True)  # fmt: skip
    assert json.loads(result.stdout)["response"] == {"a": "b c&d"}


# The codec.


@given(
    st.sampled_from(["GET", "POST", "PUT"]) | st.text(max_size=4),
    st.text(max_size=40),
    st.sampled_from(["", "application/json", "application/x-www-form-urlencoded"]) | st.text(max_size=10),
    st.binary(max_size=60),
)
def test_arguments_of_anything(method: str, query: str, kind: str, body: bytes) -> None:
    with contextlib.suppress(Refused):
        arguments, found = rest.arguments(method, query, kind, body)
        json.loads(arguments)
        assert all(isinstance(name, str) for name in found)


@given(st.text(max_size=40))
def test_procedures_of_anything(path: str) -> None:
    with contextlib.suppress(Refused):
        api, slash, verb = rest.procedure(path).partition("/")
        assert api
        assert slash
        assert verb[0] != "/"
