"""Host, Origin, subprotocol and credential of a request head."""

from __future__ import annotations

import pytest

from initspawn.gateway.admission import (
    HostPolicy,
    Refused,
    check_version,
    choose_subprotocol,
    find_token,
    query_fields,
)


def status(
    host: str | None, origin: str | None = None, *, local: str = "192.0.2.7", allowed: str = ""
) -> int:
    headers = [("host", host)] if host is not None else []
    headers += [("Origin", origin)] if origin is not None else []
    try:
        HostPolicy(allowed.split()).check(headers, scheme="http", local=local)
    except Refused as refused:
        return refused.status
    return 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:1234",
        "localhost.",
        "a.localhost:80",
        "127.0.0.1",
        "127.9.9.9:1",
        "[::1]:1234",
        "192.0.2.7",
        "192.0.2.7:8080",
    ],
)
def test_believed_hosts(host: str) -> None:
    assert status(host) == 200


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "example.com",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "192.0.2.8",
        "0.0.0.0",
        "localhost:x",
        "localhost:",
        "a@localhost",
        "localhost/x",
        "[::2]",
        "localhost localhost",
        "127.1",
    ],
)
def test_other_hosts(host: str | None) -> None:
    assert status(host) == 403


def test_dual_stack_and_scoped_addresses() -> None:
    assert status("192.0.2.7", local="::ffff:192.0.2.7") == 200
    assert status("[fe80::1]", local="fe80::1%eth0") == 200


def test_a_list_replaces_the_rule() -> None:
    assert status("Board.lan:1234", allowed="board.lan") == 200
    assert status("localhost", allowed="board.lan") == 403


def test_two_hosts_are_none() -> None:
    with pytest.raises(Refused):
        HostPolicy().check([("host", "localhost"), ("host", "localhost")], scheme="http", local="")


@pytest.mark.parametrize(
    ("host", "origin", "wanted"),
    [
        ("localhost:1234", "http://localhost:1234", 200),
        ("LOCALHOST:1234", "http://localhost:1234", 200),
        ("localhost", "http://localhost", 200),
        ("localhost:80", "http://localhost", 200),
        ("[::1]:1", "http://[::1]:1", 200),
        ("localhost:1234", "https://localhost:1234", 403),
        ("localhost:1234", "http://localhost", 403),
        ("localhost:1234", "http://localhost:1235", 403),
        ("localhost:1234", "http://127.0.0.1:1234", 403),
        ("localhost:1234", "http://evil.example", 403),
        ("localhost:1234", "http://localhost:1234/", 403),
        ("localhost:1234", "null", 403),
        ("localhost:1234", "", 403),
        ("localhost:1234", "file://", 403),
    ],
)
def test_origins(host: str, origin: str, wanted: int) -> None:
    assert status(host, origin) == wanted


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        ([], None),
        (["x-afb-ws-json1"], "x-afb-ws-json1"),
        (["X-AFB-WS-JSON1"], "x-afb-ws-json1"),
        (["x-afb-ws-rpc, x-afb-ws-json1"], "x-afb-ws-json1"),
        (["chat\t x-afb-ws-json1,foo"], "x-afb-ws-json1"),
        (["chat", "x-afb-ws-json1"], "x-afb-ws-json1"),
    ],
)
def test_subprotocols(offers: list[str], chosen: str | None) -> None:
    assert choose_subprotocol([("Sec-WebSocket-Protocol", offer) for offer in offers]) == chosen


@pytest.mark.parametrize("offer", ["chat", "", "x-afb-ws-json", "x-afb-ws-json11"])
def test_no_common_subprotocol(offer: str) -> None:
    with pytest.raises(Refused) as caught:
        choose_subprotocol([("sec-websocket-protocol", offer)])
    assert caught.value.status == 412


@pytest.mark.parametrize("versions", [[], ["8"], ["13", "8"], ["13, 8"]])
def test_versions(versions: list[str]) -> None:
    with pytest.raises(Refused) as caught:
        check_version([("sec-websocket-version", version) for version in versions])
    assert caught.value.status == 426
    assert ("Sec-WebSocket-Version", "13") in caught.value.headers


BEARER, HEADER = ("Authorization", "Bearer B"), ("X-AFB-Token", "H")


@pytest.mark.parametrize(
    ("headers", "query", "token"),
    [
        ([BEARER, HEADER], "access_token=A&x-afb-token=X&token=T", "B"),
        ([HEADER], "access_token=A&x-afb-token=X&token=T", "A"),
        ([HEADER], "x-afb-token=X&token=T", "H"),
        ([], "token=T&x-afb-token=X", "X"),
        ([], "token=T", "T"),
        ([], "uuid=U&TOKEN=T", "T"),
        ([], "Access_Token=A", "A"),
        ([("authorization", "bearer b")], "", "b"),
        ([("authorization", "Basic b")], "token=T", "T"),
        ([("authorization", "Bearer ")], "token=T", "T"),
        ([], "token=a%2Bb+c", "a+b+c"),
        ([], "token=1&token=2", "2"),
        ([], "token", None),
        ([], "token=", None),
        ([], "", None),
    ],
)
def test_credentials(headers: list[tuple[str, str]], query: str, token: str | None) -> None:
    assert find_token(headers, query_fields(query)) == token
