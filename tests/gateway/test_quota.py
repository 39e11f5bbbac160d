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
    Guest,
    Limits,
    Quotas,
    network,
    parse,
)
from initspawn.gateway.wsapi import nstr
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
    for token in (b"1", b"2", b"3"):
        assert not guest.locked(token)
        show(guest, token)
    assert guest.locked(b"4") == 20.0
    assert not guest.begin_trial(b"4")
    quotas.leave(guest)
    assert quotas.enter("a") is guest  # coming anew does not help
    clock.now += 20
    assert not guest.locked(b"4")


def show(guest: Guest, token: bytes, *, valid: bool = False) -> None:
    assert guest.begin_trial(token)
    guest.end_trial(token, valid=valid)


def test_a_token_without_an_answer_yet_counts_as_wrong(clock: Clock) -> None:
    guest = Guest(Limits(failures=2), clock)
    assert [guest.begin_trial(token) for token in (b"1", b"2", b"3")] == [True, True, False]
    assert [guest.begin_trial(b"1") for _ in range(9)] == [True] * 9, "it is one trial"
    for token in (b"2", *[b"1"] * 10):
        guest.end_trial(token, valid=True)
    assert [guest.begin_trial(token) for token in (b"1", b"2", b"3")] == [True, True, False]
    guest.end_trial(b"1", valid=False)
    assert (guest.begin_trial(b"1"), guest.locked(b"2"), guest.locked(b"1")) == (False, 0, 30)


def test_valid_tokens_are_no_store_of_wrong_ones(clock: Clock) -> None:
    guest = Guest(Limits(failures=2), clock)
    for number in range(100):
        show(guest, b"%d" % number, valid=True)
    assert [guest.begin_trial(b"x%d" % number) for number in range(3)] == [True, True, False]


def test_the_addresses_remembered_are_bounded(clock: Clock) -> None:
    quotas = Quotas(Limits(failures=2), clock)
    stays = quotas.enter("stays")
    for number in range(3 * ADDRESSES):
        guest = quotas.enter(str(number))
        assert guest is not None
        show(guest, b"wrong")
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


@pytest.mark.parametrize("order", ["login", "logout"])
def test_too_many_log_ins_and_log_outs(strict: Gateway, order: str) -> None:
    with strict.client() as client:
        shown = "Authorization: Bearer good", f"Cookie: initspawn-token-{client.port}=good"
        headers = (*shown, f"Origin: http://127.0.0.1:{client.port}", "Content-Length: 0")
        answers = [client.request(f"/{order}", *headers, method="POST") for _ in range(2 * FEW)]
        done = [status for status, _, _ in answers if status == 204]
        assert FEW <= len(done) <= FEW + 3
        assert len(strict.supervisor.called(order)) == len(done)
        status, head, body = answers[-1]
        assert (status, "retry-after: 1" in head.lower()) == (429, True)
        assert json.loads(body)["request"]["info"] == TOO_MANY_CALLS


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


@pytest.fixture
def trials() -> Iterator[Gateway]:
    """Two wrong tokens a minute, and no other limit."""
    with Gateway("--limit", "failures=2") as running:
        running.supervisor.script["x/wrong"] = [UNKNOWN]
        yield running
        assert running.stop() == 0
        assert running.errors == b""


def test_wrong_tokens_sent_without_waiting_over_a_websocket(trials: Gateway) -> None:
    with trials.client() as client:
        client.open()
        calls = (json.dumps([2, str(n), "x/wrong", None, f"bad{n}"]).encode() for n in range(40))
        client.send(b"".join(map(frame, calls)))
        told = [client.message()[2]["request"]["status"] for _ in range(40)]
        assert (told.count("insufficient-scope"), told.count("not-available")) == (2, 38)
        assert len(trials.supervisor.calls) == 2


def test_wrong_tokens_sent_without_waiting_over_a_service_socket(trials: Gateway) -> None:
    with trials.local("wsapi x") as client:
        messages: list[bytes] = []
        for number in range(1, 41):
            messages.append(b"T" + number.to_bytes(2, "little") + nstr(b"bad%d" % number))
            messages.append(call("wrong", "1", number=number, token=number))
        client.send(b"".join(frame(message, BINARY) for message in messages))
        told = [client.frame()[1] for _ in range(40)]
        assert sum(b"not-available" in answer for answer in told) == 38
        assert len(trials.supervisor.calls) == 2


def test_tokens_without_an_answer_yet_over_rest(trials: Gateway) -> None:
    bearer = "Authorization: Bearer {}".format
    with trials.client() as one, trials.client() as two, trials.client() as three:
        for client, token in ((one, "a"), (two, "b")):
            line = f"GET /api/x/hang HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\n{bearer(token)}\r\n\r\n"
            client.send(line.encode())
        until(lambda: len(trials.supervisor.calls) == 2, "two calls without an answer")
        assert three.request("/api/x/echo", bearer("c"))[0] == 429
        with trials.client() as four:
            assert four.upgrade("/api?token=c")[0] == 429
        with trials.client() as five:
            five.open("/api?token=b")
        assert three.request("/api/x/echo", bearer("a"))[0] == 200, "it is being tried already"
        for connection in trials.supervisor.connections:
            connection.release()
        assert (one.response()[0], two.response()[0]) == (200, 200)
        assert three.request("/api/x/echo", bearer("c"))[0] == 200


def test_who_leaves_before_the_answer_has_tried(trials: Gateway) -> None:
    with trials.client() as one, trials.client() as two:
        one.open("/api?token=a").text('[2, "1", "x/hang", null]')
        two.open("/api?token=b").text('[2, "1", "x/hang", null]')
        until(lambda: len(trials.supervisor.calls) == 2, "both calls")
    until(lambda: trials.supervisor.alive() == 1, "the end of both")
    with trials.client() as client:
        assert client.upgrade("/api?token=c")[0] == 429


def test_a_good_token_in_many_calls_at_once_is_not_refused(trials: Gateway) -> None:
    clients = [trials.client() for _ in range(8)]
    for client in clients:
        client.open("/api?token=good")
        calls = (json.dumps([2, str(n), "x/echo", None, "good"]).encode() for n in range(60))
        client.send(b"".join(map(frame, calls)))
    for client in clients:
        assert [client.message()[0] for _ in range(60)] == [3] * 60
        client.socket.close()
