"""What a caller asks for: queries, arguments, free commands, the monitor."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

from initspawn.errors import RequestError
from initspawn.limits import ARGUMENT_BYTES
from initspawn.plan import OPTIONAL, REQUIRED, TEXT, Api, Command, Sandbox
from initspawn.sandbox.bind import bind
from initspawn.verbs import execute, monitor, nearest, query, registry, wsapi
from initspawn.verbs.registry import Registry
from tests.fuzz.target import Target

SANDBOX = Sandbox(uid="box", prefix="p", user=1, group=1)
API = Api(uid="t", api="t", sandboxes=(SANDBOX,))
TEMPLATES = (
    ((REQUIRED, "a"),),
    ((TEXT, "--x="), (OPTIONAL, "b")),
    ((TEXT, "--"),),
    ((OPTIONAL, "c"), (TEXT, "/"), (OPTIONAL, "a")),
)


def _value(data: bytes) -> Any:
    """What the supervisor makes of JSON; of no JSON, text."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", "surrogateescape")


def _query(data: bytes) -> None:
    """Two queries, a line each: what the configuration says, and what the caller does."""
    own, _, given = data.partition(b"\n")
    for found in (query.parse(_value(given)), query.blend(_value(own), _value(given))):
        assert found[0] in query.ACTIONS
        assert found[2] is None or found[2] in range(5)
    registry._action_of(_value(given))


def _control(data: bytes) -> None:
    asked = query.parse_control(_value(data))
    assert asked.signal is None or 0 <= asked.signal <= 64
    assert asked.pid is None or asked.pid > 0


def _input(data: bytes) -> None:
    asked = query.parse_input(_value(data))
    assert asked.pid > 0
    assert isinstance(asked.data, bytes)


def _arguments(data: bytes) -> None:
    """Each template is one argument, which the kernel takes as it is and no program reads as an option."""
    argv = bind(Command(uid="c", verb="c", sandbox="box", path="/bin/x", arguments=TEMPLATES), _value(data))
    assert argv[0] == "/bin/x"
    assert len(argv) == 1 + len(TEMPLATES)
    assert argv[2].startswith("--x=")
    assert argv[3] == "--"
    assert not argv[1].startswith("-")
    for item in argv:
        encoded = item.encode()
        assert b"\0" not in encoded
        assert len(encoded) < ARGUMENT_BYTES


def _execute(data: bytes) -> None:
    asked = _value(data)
    command = execute.command_of(execute.sandbox_of(API, asked), asked)
    argv = bind(command, None)
    assert argv[0].startswith("/")
    assert command.verb.count("/") == 1
    assert command.encoder != "log"


def _monitor(data: bytes) -> None:
    """A verb on the first line, its arguments behind it."""
    verb, _, arguments = data.partition(b"\n")
    watchers: dict[str, Any] = {}
    known = cast(Registry, SimpleNamespace(apis={"t": API}, watchers=watchers))
    caller = cast(Any, SimpleNamespace(session="s", client="c", watch=lambda found: found.update(c=print)))
    json.dumps(monitor.call(known, caller, verb.decode("latin-1"), _value(arguments)))


def _service(data: bytes) -> None:
    """What another server's API sends: frames, their messages, the values in these."""
    for opcode, payload in wsapi.Frames().feed(data):
        message = wsapi.decode(payload) if opcode == wsapi.BINARY else None
        if message is not None:
            json.dumps(wsapi.value(message.data))
            assert 0 <= message.number < 0x10000


def _nearest(data: bytes) -> None:
    known = ["box/ls", "ping", "info"]
    info = nearest.unknown_verb(data.decode("utf-8", "surrogateescape"), known).info
    assert info in ["", *(f"did you mean `{verb}`?" for verb in known)]


TARGETS = (
    Target("query", ("verbs.query", "verbs.registry"), _query, (RequestError,)),
    Target("query-control", ("verbs.query",), _control, (RequestError,)),
    Target("query-input", ("verbs.query",), _input, (RequestError,)),
    Target("arguments", ("sandbox.bind",), _arguments, (RequestError,)),
    Target("execute", ("verbs.execute",), _execute, (RequestError,)),
    Target("nearest", ("verbs.nearest",), _nearest),
    Target("service", ("verbs.wsapi",), _service, (wsapi.ServiceError,)),
    Target("monitor", ("verbs.monitor",), _monitor, (RequestError,)),
)
