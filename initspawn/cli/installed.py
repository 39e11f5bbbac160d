"""What `initspawn doctor` finds of other programs, libraries and packages; and what a finding is."""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from importlib.util import find_spec

from initspawn.cli import probes
from initspawn.cli.probes import reason_not

GOOD, LIMITED, MISSING = "ok", "limited", "missing"
# Packages of Python by the module that each is imported as.
COMPILER = {"yaml": "PyYAML", "msgspec": "msgspec", "pyseccomp": "pyseccomp"}
_OTHERS = {name: name for name in ("websockets", "uvicorn", "starlette", "h11", "pyudev")}
_SYSTEM_PATH = "/usr/sbin:/sbin:/usr/bin:/usr/local/sbin"


class Finding:
    """One line: what was looked at, its state, what was found; if it is not ok, what that means and helps."""

    def __init__(self, name: str, state: str, found: str, meaning: str = "", remedy: str = "") -> None:
        self.name = name
        self.state = state
        self.found = found
        self.meaning = meaning if state != GOOD else ""
        self.remedy = remedy if state != GOOD else ""


def libseccomp() -> str:
    """The library's version, asked of itself; empty if it is not there."""
    import ctypes

    try:
        version = ctypes.CDLL("libseccomp.so.2").seccomp_version
    except (OSError, AttributeError):
        return ""
    version.restype = ctypes.POINTER(ctypes.c_uint * 3)
    return ".".join(map(str, version().contents))


def bwrap() -> Finding:
    """The second back end."""
    path = shutil.which("bwrap")
    return Finding(
        "bwrap", GOOD if path else LIMITED, path or "not found",
        "only `namespace.opts.bwrap`, and what `explain` prints, need it", "install bubblewrap",
    )  # fmt: skip


def nftables() -> Finding:
    """What a `guard` needs, which only root may have."""
    name, meaning = "nftables", "no configuration with a `guard`"
    path = shutil.which("nft", path=_SYSTEM_PATH)
    if path is None:
        return Finding(name, LIMITED, "nft not found", meaning, "install nftables")
    if os.geteuid() != 0:
        return Finding(name, GOOD, f"{path}, not tried: only root may have a `guard`")
    reason = reason_not(partial(probes.guard_a_network, path))
    remedy = "a kernel with nf_tables, its family inet, nft_ct and conntrack, or their modules"
    return Finding(name, LIMITED if reason else GOOD, f"{path}: {reason or 'works'}", meaning, remedy)


def packages() -> Finding:
    """Of Python, for the compiler and the gateway."""
    lacking = _lacking({**COMPILER, **_OTHERS})
    return Finding(
        "packages", LIMITED if lacking else GOOD,
        f"not installed: {', '.join(lacking)}" if lacking else "all of compiler, gateway and watcher",
        "without PyYAML, msgspec and pyseccomp nothing is compiled here, without pyudev nothing starts that "
        "waits for a device, without the others nothing is served remotely",
        "install initspawn[gateway,udev]",
    )  # fmt: skip


def remedy(error: ModuleNotFoundError) -> str:
    """What is missing and what to install, where a module is of another package; empty if it is ours."""
    module = (error.name or "").partition(".")[0]
    if module in ("", "initspawn"):
        return ""
    if module in sys.stdlib_module_names:
        return f"{sys.executable} lacks `{module}`: install the whole of Python's standard library"
    lacking = _lacking(COMPILER) if module in COMPILER else [module]
    return f"this needs `{COMPILER.get(module, module)}`, a package of Python: install {', '.join(lacking)}"


def _lacking(packages: dict[str, str]) -> list[str]:
    return [name for module, name in packages.items() if find_spec(module) is None]
