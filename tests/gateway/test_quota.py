"""What one address may have and ask for: the counting itself with a clock of its own, then over each door."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from initspawn.gateway.quota import (
    TOO_MANY_CALLS,
    TOO_MANY_FAILURES,
    Bucket,
    Limits,
    Quotas,
    network,
    parse,
)
from initspawn.limits import ADDRESS_CALLS_SECONDS, ADDRESSES
from tests.gateway.conftest import Gateway
from tests.gateway.fake_supervisor import until
from tests.gateway.raw_client import BINARY, frame
from tests.gateway.test_wsapi import call

UNKNOWN = {"id": 0, "status": "insufficient-scope", "code": -9, "unknown": True}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_bucket(clock: Clock) -> None:
    bucket = Bucket(3, 0.5, clock.now)
    assert [bucket.take(clock.now) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait(clock.now) == 2.0
    clock.now += 1.5
    assert bucket.wait(clock.now) == 0.5
    assert not bucket.take(clock.now)
    clock.now += 0.5
    assert bucket.wait(clock.now) == 0
    assert [bucket.take(clock.now), bucket.take(clock.now)] == [True, False]
    clock.now += 5.9
    assert not bucket.full(clock.now)
    clock.now += 1000
    assert bucket.full(clock.now)
    assert [bucket.take(clock.now) for _ in range(4)] == [True, True, True, False]


def test_a_bucket_without_an_end(clock: Clock) -> None:
    bucket = Bucket(0, 0, clock.now)
    assert all(bucket.take(clock.now) for _ in range(1000))
    assert (bucket.wait(clock.now), bucket.full(clock.now)) == (0, True)


def test_connections_of_one_address(clock: Clock) -> None:
    quotas = Quotas(Limits(connections=2), clock)
    first, second = quotas.enter("a"), quotas.enter("a")
    assert first is second is not None
    assert quotas.enter("a") is None
    assert quotas.enter("b") is not None
    quotas.leave(first)
    assert quotas.enter("a") is first


def test_calls_of_one_address(clock: Clock) -> None:
    quotas = Quotas(Limits(calls=5), clock)
    guest, other = quotas.enter("a"), quotas.enter("b")
    assert guest is not None
    assert other is not None
    assert sum(guest.call() for _ in range(1000)) == 5 * ADDRESS_CALLS_SECONDS
    assert other.call()
    assert guest.call_wait() == pytest.approx(0.2)
    clock.now += 0.2
    assert (guest.call(), guest.call()) == (True, False)


def test_wrong_tokens_of_one_address(clock: Clock) -> None:
    quotas = Quotas(Limits(failures=3), clock)
    guest = quotas.enter("a")
    assert guest is not None
    for _ in range(3):
        assert not guest.locked()
        guest.failed()
    assert guest.locked() == 20.0
    quotas.leave(guest)
    assert quotas.enter("a") is guest  # coming anew does not help
    clock.now += 20
    assert not guest.locked()


def test_the_addresses_remembered_are_bounded(clock: Clock) -> None:
    quotas = Quotas(Limits(failures=2), clock)
    stays = quotas.enter("stays")
    for number in range(3 * ADDRESSES):
        guest = quotas.enter(str(number))
        assert guest is not None
        guest.failed()
        quotas.leave(guest)
        assert len(quotas._guests) <= ADDRESSES + 1
    assert quotas.enter("stays") is stays
    clock.now += 1000
    quotas.enter("one more")
    assert len(quotas._guests) == 2  # nothing is to be known of all others


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("what?", "what?"),
    ],
)
def test_what_counts_as_one_address(host: str, wanted: str) -> None:
    assert network(host) == wanted


@pytest.mark.parametrize("text", ["", "calls", "calls=", "calls=-1", "calls=x", "speed=1", "calls=\u0663"])
def test_limits_that_are_none(text: str) -> None:
    assert parse("calls=0") == ("calls", 0)
    with pytest.raises(ValueError, match="write connections=NUMBER, calls=NUMBER, failures=NUMBER"):
        parse(text)


# Over the doors. One call per second and ten at once: what comes back meanwhile is one or two.

FEW = ADDRESS_CALLS_SECONDS


@pytest.fixture
def strict() -> Iterator[Gateway]:
    with Gateway("--limit", "calls=1", "--limit", "failures=2", "--limit", "connections=3") as running:
        running.supervisor.script["x/wrong"] = [UNKNOWN]
        yield running
        assert running.stop() == 0
        assert running.errors == b""


def test_too_many_calls_over_a_websocket(strict: Gateway) -> None:
    with strict.client() as client:
        client.open()
        replies = [client.call("x/echo", number) for number in range(2 * FEW)]
        refused = [reply for reply in replies if reply[0] == 4]
        assert FEW - 3 <= len(refused) <= FEW
        request = refused[0][2]["request"]
        assert request == {"status": "not-available", "info": TOO_MANY_CALLS, "code": -5}
        assert len(strict.supervisor.called("x/echo")) == 2 * FEW - len(refused)
        time.sleep(1.1)
        assert client.call("x/echo", 7)[2]["response"] == 7  # the connection goes on


def test_a_refused_call_keeps_its_token_for_the_next(strict: Gateway) -> None:
    with strict.client() as client:
        client.open("/api?token=first")
        with strict.client() as other:  # of the same address
            other.open()
            while other.call("x/echo")[0] == 3:
                pass
        assert client.call("x/token")[0] == 4
        time.sleep(1.1)
        assert client.call("x/token")[2]["response"] == "first"


def test_too_many_calls_over_rest(strict: Gateway) -> None:
    with strict.client() as client:
        answers = [client.request("/api/x/echo") for _ in range(2 * FEW)]
        refused = [answer for answer in answers if answer[0] == 429]
        assert len(refused) >= FEW - 3
        _, head, body = refused[0]
        assert "retry-after: 1" in head.lower()
        assert json.loads(body)["request"]["status"] == "not-available"
        assert client.request("/")[0] == 200  # a page is no call


def test_too_many_calls_over_a_service_socket(strict: Gateway) -> None:
    with strict.local("wsapi x") as client:
        answers = []
        for number in range(1, 2 * FEW + 1):
            client.send(frame(call("echo", "1", number=number), BINARY))
            answers.append(client.frame()[1])
        assert sum(b"not-available" in answer for answer in answers) >= FEW - 3


def test_too_many_connections(strict: Gateway) -> None:
    before = strict.supervisor.alive()
    with strict.client() as one, strict.client() as two, strict.client() as three:
        for client in (one, two, three):
            client.open()
        with strict.client() as four:
            assert four.at_end()
        until(lambda: strict.supervisor.alive() == before + 3, "three connections and no more")
        with strict.local("http") as local:  # another address
            local.open()
    until(lambda: strict.supervisor.alive() == before, "the end of all")
    with strict.client() as again:
        again.open()


def test_local_users_are_counted_apart(strict: Gateway) -> None:
    with strict.local("http", user=1) as one, strict.local("http", user=1) as two:
        with strict.local("wsapi x", user=1) as three, strict.local("http", user=1) as four:
            for client in (one, two):
                client.open()
            three.send(frame(call("echo", "1"), BINARY))
            assert three.frame()
            assert four.at_end()
        with strict.local("http", user=2) as other:
            other.open()


def test_wrong_tokens_over_a_websocket(strict: Gateway) -> None:
    with strict.client() as client:
        client.open("/api?token=bad1")
        for _ in range(3):
            assert client.call("x/wrong")[2]["request"]["status"] == "insufficient-scope"
        # The same one again is no further try; another one is, and the third is not made.
        assert client.call("x/wrong", None, "bad1")[2]["request"]["status"] == "insufficient-scope"
        assert client.call("x/wrong", None, "bad2")[2]["request"]["status"] == "insufficient-scope"
        seen = len(strict.supervisor.calls)
        refused = client.call("x/wrong", None, "bad3")[2]["request"]
        assert refused == {"status": "not-available", "info": TOO_MANY_FAILURES, "code": -5}
        assert len(strict.supervisor.calls) == seen
        with strict.client() as another:
            status, head, _ = another.upgrade("/api?token=bad4")
            assert status == 429
            assert "retry-after" in head.lower()
        with strict.client() as nobody:
            nobody.open()  # without a token there is nothing to guess
        with strict.local("http") as local:
            local.open("/api?token=good")


def test_wrong_tokens_over_rest(strict: Gateway) -> None:
    with strict.client() as client:
        found = [client.request("/api/x/wrong", f"Authorization: Bearer {n}") for n in range(4)]
        assert [status for status, _, _ in found] == [403, 403, 429, 429]
        assert 0 < int(found[-1][1].lower().partition("retry-after: ")[2].split()[0]) <= 30
        assert (
            client.request("/login", "Authorization: Bearer x", "Content-Length: 0", method="POST")[0] == 429
        )
        assert client.request("/api/x/echo")[0] == 200
