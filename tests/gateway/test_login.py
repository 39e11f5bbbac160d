"""The trade of a token for a cookie, and what the cookie is good for."""

from __future__ import annotations

import json

import pytest

from tests.gateway.conftest import Gateway
from tests.gateway.raw_client import RawClient

EMPTY = "Content-Length: 0"


def origin(client: RawClient) -> str:
    return f"Origin: http://127.0.0.1:{client.port}"


def cookie(client: RawClient, value: str = "T") -> str:
    return f"Cookie: a=b; initspawn-token-{client.port}={value}; initspawn-token-1=no"


def shown(reply: tuple[int, str, bytes]) -> object:
    """The token that the supervisor was shown."""
    return json.loads(reply[2]).get("response")


def test_login(gateway: Gateway) -> None:
    with gateway.client() as client:
        status, head, body = client.request(
            "/login", "Authorization: Bearer good", origin(client), EMPTY, method="POST"
        )
        assert (status, body) == (204, b"")
        wanted = "Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"
        assert f"set-cookie: initspawn-token-{client.port}=fresh; {wanted}\r\n" in head + "\r\n"
        assert ("login", "good") in gateway.supervisor.calls


@pytest.mark.parametrize(
    ("target", "headers", "method", "wanted"),
    [
        ("/login", ("Authorization: Bearer bad",), "POST", 401),
        ("/login", (), "POST", 401),
        ("/login?token=good", (), "POST", 401),  # an address is kept in histories
        ("/login", ("Authorization: Bearer good",), "GET", 405),
        ("/login", ("Authorization: Bearer good", "Origin: http://evil.example"), "POST", 403),
        ("/login", ("Authorization: Bearer good", "Sec-Fetch-Site: cross-site"), "POST", 403),
        ("/logout", (), "POST", 401),
    ],
)
def test_no_login(
    gateway: Gateway, target: str, headers: tuple[str, ...], method: str, wanted: int
) -> None:
    with gateway.client() as client:
        status, head, _ = client.request(target, *headers, EMPTY, method=method)
        assert status == wanted
        assert "set-cookie" not in head


def test_logout(gateway: Gateway) -> None:
    with gateway.client() as client:
        headers = cookie(client, "good"), origin(client), EMPTY
        status, head, _ = client.request("/logout", *headers, method="POST")
        assert status == 204
        assert f"set-cookie: initspawn-token-{client.port}=; Path=/; Max-Age=0;" in head
        assert ("logout", "good") in gateway.supervisor.calls


def test_a_page_of_ours_is_believed_for_its_cookie(gateway: Gateway) -> None:
    with gateway.client() as client:
        post = client.request("/api/x/token", cookie(client), origin(client), EMPTY, method="POST")
        assert shown(post) == "T"
        client.upgrade("/api", cookie(client), origin(client))
        assert client.call("x/token")[2]["response"] == "T"


def test_nobody_else_is(gateway: Gateway) -> None:
    with gateway.client() as client:
        assert shown(client.request("/api/x/token", cookie(client), origin(client))) is None  # a GET
        assert shown(client.request("/api/x/token", cookie(client), EMPTY, method="POST")) is None
        evil = client.request(
            "/api/x/token", cookie(client), "Origin: http://evil.example", EMPTY, method="POST"
        )
        assert evil[0] == 403
        other = client.request(
            "/api/x/token", cookie(client), origin(client), "x-afb-token: H", EMPTY, method="POST"
        )
        assert shown(other) == "H"
        client.upgrade("/api", cookie(client))
        assert "response" not in client.call("x/token")[2]
