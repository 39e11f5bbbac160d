"""All targets, and which modules need one."""

from __future__ import annotations

from tests.fuzz import doors, files, output, verbs
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target for part in (doors, verbs, output, files) for target in part.TARGETS
}

# Every module of these packages is a target's, or says here why it is not.
FACING = ("gateway", "encoders", "control", "verbs")
OTHERS = {
    "gateway.__main__": "starts gateway.process",
    "gateway.acceptor": "accepts: tests/gateway, with a real gateway",
    "gateway.bounds": "numbers",
    "gateway.direct": "the state of one connection: tests/gateway, with a real gateway",
    "gateway.process": "a command line, written by the supervisor",
    "gateway.quota": "counts: addresses are the kernel's, limits the command line's",
    "gateway.server": "accepts and hands over: tests/gateway, with a real gateway",
    "gateway.tls": "the handshake is OpenSSL's; certificates come from the supervisor",
    "encoders.base": "what the others have in common",
    "encoders.host": "reads what the supervisor writes; what it writes is target `plugin`",
    "control.client": "reads what the supervisor writes",
    "control.connection": "the state of one connection: tests/system/test_control.py, with a real supervisor",
    "control.visitor": "the caller of one call",
    "control.server": "accepts: tests/system/test_control.py",
    "control.state": "opens files: the tokens in them are target `token-file`",
    "verbs.actions": "gets what verbs.query has read",
    "verbs.answer": "values",
    "verbs.builtin": "looks names up: tests/unit/verbs",
    "verbs.controller": "calls of the configuration",
    "verbs.imports": "the state of one connection: tests/unit/verbs; what it reads is target `service`",
    "verbs.foreign": "hands on what verbs.imports has heard",
}
# Further modules that read what a stranger has written.
ALSO = (
    "cli.output", "config.bpf", "config.compile", "config.load_json", "config.load_yaml", "linux.cgroup",
    "planfile", "sandbox.bind", "sandbox.measure", "sandbox.mounted", "supervisor.eventlog",
    "supervisor.devices", "supervisor.plugin",
)  # fmt: skip
