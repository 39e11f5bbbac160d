"""What starting before systemd costs: the early stage in a namespace of this machine, whole boots in QEMU."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu.guest import Guest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
STAGE = ROOT / "initspawn" / "boot" / "__main__.py"
CONFIG = ROOT / "qemu" / "boot.yaml"
WAITS = "{before: handover, ready: exited}"  # of a command there that takes 0.2 s: not the stage's own time
MOST_BOOTS = 5
BARE = "python -I -S -c pass"
GO = "early stage, until PID 1 may go on"
PAIRS = [
    (GO, BARE),
    ("with initspawn, until systemd is up", "without, until systemd is up"),
    ("and its gateway, until systemd is up", "without, until systemd is up"),
]
INIT = "init=/usr/sbin/initspawn-init"
BOOTS = {
    "with initspawn": INIT,
    "and its gateway": f"{INIT} initspawn.plan=/etc/initspawn/doors.plan",
    "without": "",
}
PORT = 1234  # of that plan's gateway
# As PID 1 of a pid namespace, with a /run of its own and no cgroups; the plan is named on a command line that
# is put over the kernel's. Then it says how large the supervisor is, whose pid it is told.
NAMESPACE = """
umount -R /sys/fs/cgroup 2>/dev/null
mount -t tmpfs none /run && mount -t tmpfs none /sys/fs/cgroup && mount --bind "$3" /proc/cmdline || exit 1
printf S >&"$4"
"$1" -I -S "$2" early 3>&"$4"
read -r pid
sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\) kB/\\1/p' "/proc/$pid/status"
"""
# Of the guest: the kernel's clock in seconds, by what happened then.
MARKS = """
wall=$(date +%s.%N); read -r up _ </proc/uptime
echo "init $(dmesg | sed -n 's/^\\[ *\\([0-9.]*\\)\\] Run .* as init process/\\1/p')"
echo "handover $(dmesg | sed -n 's/^\\[ *\\([0-9.]*\\)\\] systemd\\[1\\]: systemd .*/\\1/p')"
echo "up $(systemctl show -p FinishTimestampMonotonic --value | sed 's/......$/.&/')"
if [ -S /run/initspawn/control ]; then
    echo "answer $(stat -c %.3Y /run/initspawn/control | awk "{print \\$1 - $wall + $up}")"
    pid=$(pgrep -of 'while n=')
    echo "command $(sed 's/.*) //' "/proc/$pid/stat" | awk '{print $20 / 100}')"
fi
"""


def early_stage(place: Path) -> tuple[int, int]:
    """Nanoseconds from the interpreter's exec to its word that the boot may go on; the supervisor's KiB."""
    reads, writes = os.pipe()
    argv = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        NAMESPACE,
        "sh",
    ]
    argv += [sys.executable, str(STAGE), str(place / "cmdline"), str(writes)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=(writes,)
    ) as process:
        os.close(writes)
        assert process.stdin
        assert process.stdout
        heard = _until(reads, b"S", b"")
        began = time.perf_counter_ns()
        heard = _until(reads, b"go......", heard[1:])
        taken = time.perf_counter_ns() - began
        os.close(reads)
        pid = int(re.search(rb"p(\d{7})", heard)[1])  # type: ignore[index]
        said, _ = process.communicate(f"{pid}\n", timeout=30)
    return taken, int(said)


def _until(fd: int, word: bytes, heard: bytes) -> bytes:
    while word not in heard:
        piece = os.read(fd, 4096)
        if not piece:
            raise SystemExit("boot: the early stage ended before its time")
        heard += piece
    return heard


def stages(count: int) -> tuple[measure.Samples, int]:
    """The early stage's times, beside those of a bare interpreter; the supervisor's largest size in KiB."""
    samples: measure.Samples = {}
    sizes = []
    with tempfile.TemporaryDirectory(prefix="initspawn-bench-") as name:
        place = Path(name)
        before, _, after = CONFIG.read_text(encoding="utf-8").partition(WAITS)
        (place / "boot.yaml").write_text(f"{before}{{}}{after}", encoding="utf-8")
        compiler = [sys.executable, "-m", "initspawn", "compile", str(place / "boot.yaml")]
        compiler += ["-o", str(place / "plan")]
        subprocess.run(compiler, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        (place / "cmdline").write_text(f"initspawn.plan={place / 'plan'}\n", encoding="utf-8")

        def bare() -> None:
            subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)

        for _ in range(count):
            taken, size = early_stage(place)
            samples.setdefault(GO, []).append(taken)
            sizes.append(size)
            measure.interleave({BARE: bare}, 1, samples=samples)
    return samples, max(sizes)


def boots(count: int) -> measure.Samples:
    """Whole boots, with initspawn as the kernel's init and without, from the start of init on."""
    from qemu.guest import Guest
    from qemu.image import build
    from qemu.machine import Shape

    image = build()
    samples: measure.Samples = {}
    names = {
        "command": "until the first command runs", "answer": "until the control socket answers",
        "handover": "until systemd begins", "up": "until systemd is up", "reply": "until a WebSocket reply",
    }  # fmt: skip
    for _ in range(count):
        for row, append in BOOTS.items():
            with Guest(Shape(image, cpus=2, memory=768, append=f"quiet {append}")) as guest:
                found = {} if "doors" not in append else {"reply": _first_reply(guest)}
                guest.run("systemctl", "is-system-running", "--wait", timeout=300)
                found |= {mark: float(at) for mark, at in map(str.split, guest.shell(MARKS).splitlines())}
            for mark, name in names.items():
                if mark in found:
                    taken = int((found[mark] - found["init"]) * 1e9)
                    samples.setdefault(f"{row}, {name}", []).append(taken)
    return samples


def _first_reply(guest: Guest) -> float:
    """When a client on this machine, without a token, had its first reply, in seconds of its clock."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    address = f"ws://127.0.0.1:{guest.forward(PORT)}/api"

    def replied() -> bool:
        try:
            with connect(address, subprotocols=[Subprotocol("x-afb-ws-json1")], open_timeout=1) as socket:
                socket.send('[2,"1","initspawn/ping",null]')
                return b'"insufficient-scope"' in socket.recv(timeout=5, decode=False)
        except (OSError, WebSocketException):
            time.sleep(0.1)
            return False

    guest.until(replied, 300, "the gateway")
    had = time.monotonic()
    between = [(guest.read("/proc/uptime"), time.monotonic()) for _ in range(5)]
    return had + max(float(up.split()[0]) - heard for up, heard in between)


def main(arguments: list[str]) -> None:
    """Print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help=f"runs; whole boots: at most {MOST_BOOTS}")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(arguments)
    if os.geteuid() != 0:
        raise SystemExit("boot: PID 1 of a machine is root, and so must this be")
    samples, size = stages(options.count)
    samples |= boots(min(options.count, MOST_BOOTS))
    heading = {
        "benchmark": "from the kernel's start of init on: whole boots in QEMU, without KVM; the stage here",
        **measure.machine(),
        "memory": f"early supervisor {size / 1024:.1f} MB resident",
    }
    measure.show(measure.results(samples, PAIRS), heading, json=options.json)


if __name__ == "__main__":
    main(sys.argv[1:])
