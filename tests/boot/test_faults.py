"""What goes wrong before systemd never keeps the machine from booting.

The real init of these machines is a script that says what it finds and switches them off: a boot is short.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qemu.faults import altered
from qemu.guest import Guest
from qemu.image import Image
from qemu.machine import KERNEL, Machine, Shape

ROOT = Path(__file__).parents[2]
INIT = "init=/usr/sbin/initspawn-init"
SCRIPT = "/usr/local/sbin/say-and-stop"
SAY = f"initspawn.init={SCRIPT}"
PYTHON = "/usr/bin/python3.11"
LIBRARY = "/usr/lib/python3.11"
CTYPES = f"{LIBRARY}/lib-dynload/_ctypes.cpython-311-x86_64-linux-gnu.so"
EARLY = "/opt/initspawn/initspawn/boot/early.py"
PLAN = "/etc/initspawn/boot.plan"
STAGE = "/usr/lib/initspawn/initspawn/boot/__main__.py"
SECONDS = 180.0
MOUNTED = ("/proc", "/sys", "/dev", "/dev/shm", "/dev/pts", "/run", "/sys/fs/cgroup")


def console_of(image: Image, append: str = "", *, until: str = "that was all") -> str:
    """What a machine shows that boots from this image, up to these words."""
    with Machine(Shape(image, memory=512, append=f"quiet {INIT} {append}")) as machine:
        machine.wait_console(until, SECONDS)
        return machine.console()


def test_everything_is_there_when_the_real_init_starts(image: Image) -> None:
    shown = console_of(image, f"{SAY} -- one two")
    assert "real init: PID 1, arguments: one two" in shown
    assert re.findall(r"mounted: (\S+)", shown) == sorted(MOUNTED, key=shown.index)
    assert set(re.findall(r"mounted: (\S+)", shown)) == set(MOUNTED)
    assert "answers at /run/initspawn/control" in shown
    assert "log: " not in shown


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param({PYTHON: None}, "initspawn has ended early", id="no-interpreter"),
        pytest.param(
            {EARLY: b"import nowhere\n"}, "has ended early", id="a-missing-module", marks=pytest.mark.soak
        ),
        pytest.param({EARLY: b"import os\nos.kill(os.getpid(), 11)\n"}, "has ended early", id="a-crash"),
        pytest.param(
            {EARLY: b"raise SystemExit(3)\n"}, "has ended early", id="an-exit", marks=pytest.mark.soak
        ),
        pytest.param(
            {f"{LIBRARY}/encodings/__init__.py": None},
            "has ended early",
            id="half-a-python",
            marks=pytest.mark.soak,
        ),
        pytest.param({CTYPES: None}, "has ended early", id="no-ctypes", marks=pytest.mark.soak),
        pytest.param({PLAN: None}, "no plan, so no commands", id="no-plan"),
    ],
)
def test_a_fault_of_ours_is_told_and_left_behind(
    image: Image, tmp_path: Path, files: dict[str, bytes | None], said: str
) -> None:
    shown = console_of(altered(image, tmp_path, files), SAY)
    before, after = shown.split("real init: PID 1")
    assert said in before  # on the console at once
    assert said in after  # and in the kernel's log
    assert ("answers at" in shown) == (PLAN in files)


@pytest.mark.racy
def test_a_hang_ends_when_there_is_no_sign_of_life(image: Image, tmp_path: Path) -> None:
    broken = altered(image, tmp_path, {EARLY: b"while True: pass\n"})
    shown = console_of(broken, f"{SAY} initspawn.patience=3")
    assert "real init: PID 1" in shown
    assert "initspawn gave no sign of life for 3 s" in shown


BOOT = """
metadata: {{uid: boot, api: boot}}
sandboxes:
  uid: s
  acls: {{user: root}}
  {keys}
  commands:
    - uid: c
      autostart: {start}
      exec: {{cmdpath: /bin/sh, args: [-c, {line}]}}
    - uid: "next"
      autostart: {{stage: early, after: c}}
      exec: {{cmdpath: /bin/sh, args: [-c, {behind}]}}
"""
WAITED = "{before: handover, ready: exited}"
HOLD = "/var/lib/initspawn/hold"


def planned(image: Image, place: Path, start: str, line: str, behind: str = "true") -> Image:
    """The image with another plan: a shell line that starts by itself, and one that comes after it."""
    return altered(image, place, {PLAN: compiled(place, start, line, behind)}, mode="0100600")


def compiled(place: Path, start: str, line: str, behind: str = "true", *, keys: str = "") -> bytes:
    """That plan. `keys` are further ones of its sandbox."""
    config, plan = place / "boot.yaml", place / "boot.plan"
    config.write_text(
        BOOT.format(start=start, line=json.dumps(line), behind=json.dumps(behind), keys=keys),
        encoding="utf-8",
    )
    compiler = [
        sys.executable,
        "-m",
        "initspawn",
        "compile",
        "--arch",
        "x86_64",
        str(config),
        "-o",
        str(plan),
    ]
    subprocess.run(compiler, check=True)
    return plan.read_bytes()


def test_the_last_good_plan_runs_where_newer_ones_are_damaged_or_do_not_fit(
    image: Image, tmp_path: Path
) -> None:
    """One is rubbish, the next has limits that this kernel does not know."""
    script = (ROOT / "qemu/rootfs-overlay" / SCRIPT[1:]).read_text(encoding="utf-8")
    asking = script.replace('echo "that', 'initspawn call initspawn/info\necho "that')
    start = WAITED
    last = compiled(tmp_path, start, "echo it runs >/dev/console")
    limited = compiled(tmp_path, start, "echo never >/dev/console", keys="cgroups: {mem: {max: 64M}}")
    files: dict[str, bytes | None] = {PLAN: limited, SCRIPT: asking.encode()}
    own = "/etc/initspawn/own.plan"
    changed = altered(image, tmp_path, files, added={f"{PLAN}.last": last, own: b"\0rubbish"})
    shown = console_of(changed, f"{SAY} initspawn.plan={own} cgroup_disable=memory")
    before, after = shown.split("real init: PID 1")
    unfit = "sandbox `s`: its cgroups cannot be made: "
    for said in (f"{own}: not a plan", unfit, f"{PLAN}.last is the plan instead"):
        assert said in before  # on the console at once
        assert said in after  # and in the kernel's log
    assert "it runs" in before
    assert "never" not in before
    told = re.search(r'"plan": *(\{[^}]*\})', after)
    assert told, after
    plan = json.loads(told[1])
    assert plan["file"] == f"{PLAN}.last"
    damaged, wrong = plan["refused"]
    assert damaged == f"{own}: not a plan"
    assert unfit in wrong
    assert "memory" in wrong


def test_the_real_init_waits_for_who_says_so(image: Image, tmp_path: Path) -> None:
    start = WAITED
    shown = console_of(planned(image, tmp_path, start, "sleep 4; echo done >/dev/console"), SAY)
    assert re.search(r"done\s+real init: PID 1", shown)


@pytest.mark.parametrize(
    ("keys", "line", "said"),
    [
        ("on_failure: recovery", "exit 3", "not to the real init, but to recovery"),
        pytest.param(
            "start_timeout: 2, on_timeout: recovery",
            "sleep 60",
            "not ready 2 s after the boot began",
            marks=pytest.mark.soak,
        ),
    ],
)
def test_recovery_comes_in_place_of_the_real_init(
    image: Image, tmp_path: Path, keys: str, line: str, said: str
) -> None:
    broken = planned(image, tmp_path, f"{{before: handover, ready: exited, {keys}}}", line)
    shown = console_of(broken, f"{SAY.replace('.init', '.recovery')} initspawn.init=/bin/false")
    assert said in shown
    assert "real init: PID 1" in shown  # the same script


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("start_timeout: 2, on_timeout: reboot", "sleep 60"),
        pytest.param("on_failure: reboot", "exit 3", marks=pytest.mark.soak),
    ],
)
def test_a_reboot_instead(image: Image, tmp_path: Path, keys: str, line: str) -> None:
    """Nothing that was written is lost: nobody writes to the root any more when it comes."""
    broken = planned(image, tmp_path, f"{{before: handover, ready: exited, {keys}}}", f">/here; {line}")
    with Machine(Shape(broken, memory=512, append=f"{INIT} {SAY} rw loglevel=7")) as machine:
        assert machine.wait(SECONDS) == 0
        shown = machine.console()
    assert re.search("restarting the machine.*re-mounted.*reboot: Restarting system", shown, re.S)
    assert "real init" not in shown.replace("not to the real init", "")


def test_a_hold_keeps_the_real_init_away_until_it_is_gone(image: Image, tmp_path: Path) -> None:
    begin = f"mkdir -p {HOLD[:-5]}; >{HOLD}"
    finish = f"sleep 3; rm {HOLD}; echo erased >/dev/console"
    held = planned(image, tmp_path, WAITED, begin, finish)
    assert re.search(r"erased\s+real init: PID 1", console_of(held, f"{SAY} rw"))


@pytest.mark.soak
def test_who_fails_under_a_hold_is_started_again_and_then_recovered(image: Image, tmp_path: Path) -> None:
    """The supervisor is killed each time; the real init is never started."""
    line = f"mkdir -p {HOLD[:-5]}; >{HOLD}; kill -KILL $(pgrep -of __main__.py)"
    broken = planned(image, tmp_path, WAITED, line.replace("$", "$$"))
    shown = console_of(broken, f"{SAY.replace('.init', '.recovery')} initspawn.init=/bin/false")
    assert shown.split("real init: PID")[0].count("initspawn is started again") == 3
    assert "does not stay up" in shown


def test_switched_off_by_the_boot_loader(image: Image) -> None:
    shown = console_of(image, f"{SAY} initspawn=off")
    assert "real init: PID 1" in shown
    assert "answers at" not in shown


def stub_that(line: str) -> dict[str, bytes | None]:
    """PID 1's first program, that does this first."""
    text = (ROOT / "rootfs-overlay/usr/sbin/initspawn-init").read_text(encoding="utf-8")
    changed = re.sub(r"^PATH=.*\n", lambda found: f"{found[0]}{line}\n", text, flags=re.MULTILINE)
    return {INIT.partition("=")[2]: changed.encode()}


# The early stage crashes the first time.
ONCE = "import os\nif not os.path.exists('/once'):\n    os.mkdir('/once')\n    os.kill(os.getpid(), 11)\n"


def test_a_console_that_takes_nothing_stops_nobody(image: Image, tmp_path: Path) -> None:
    """Its flow is stopped and its buffer full when initspawn fails, which has to be told, is started again,
    and has a command that writes there.
    """
    stop = (
        "import os, termios; console = os.open('/dev/console', os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK);"
        "termios.tcflow(console, termios.TCOOFF); os.write(console, b'.' * 65536)"
    )
    early = (ROOT / "initspawn/boot/early.py").read_text(encoding="utf-8")
    script = (ROOT / "qemu/rootfs-overlay" / SCRIPT[1:]).read_text(encoding="utf-8")
    line = f"rm {HOLD}; echo the hold is gone >/dev/kmsg; echo it never comes >/dev/console &"
    files = {
        **stub_that(f'python3 -c "{stop}"'),
        EARLY: early.replace("import annotations\n", f"import annotations\n{ONCE}", 1).encode(),
        SCRIPT: script.replace("#!/bin/sh\n", "#!/bin/sh\nexec >/dev/kmsg\n", 1).encode(),
        PLAN: compiled(tmp_path, WAITED, line),
    }
    shown = console_of(altered(image, tmp_path, files, added={HOLD: b""}), f"{SAY} loglevel=8")
    said = ("has ended early", "is started again", "the hold is gone", "real init: PID 1", "answers at /run")
    assert [shown.index(what) for what in said] == sorted(shown.index(what) for what in said)
    assert "it never comes" not in shown


@pytest.mark.soak
def test_a_console_that_was_hung_up_stops_nobody(image: Image, tmp_path: Path) -> None:
    """Whoever writes to where PID 1 wrote gets EIO."""
    hang_up = (
        "import ctypes, fcntl, os, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 1);"
        "ctypes.CDLL(None).vhangup()"
    )
    line = (
        "mount -t devtmpfs dev /dev; exec </dev/ttyS0 >/dev/ttyS0 2>&1; "
        f'(python3 -c "{hang_up}"; :); /bin/echo x || echo "it was hung up" >/dev/kmsg'
    )
    early = (ROOT / "initspawn/boot/early.py").read_text(encoding="utf-8")
    script = (ROOT / "qemu/rootfs-overlay" / SCRIPT[1:]).read_text(encoding="utf-8")
    files = {
        **stub_that(line),
        EARLY: early.replace("import annotations\n", f"import annotations\n{ONCE}", 1).encode(),
        SCRIPT: script.replace("#!/bin/sh\n", "#!/bin/sh\nexec >/dev/kmsg\n", 1).encode(),
        PLAN: compiled(tmp_path, WAITED, f"rm {HOLD}; echo it is done >/dev/kmsg"),
    }
    shown = console_of(altered(image, tmp_path, files, added={HOLD: b""}), f"{SAY} loglevel=8")
    said = ("it was hung up", "has ended early", "is started again", "it is done", "real init: PID 1")
    assert [shown.index(what) for what in said] == sorted(shown.index(what) for what in said)


def test_a_machine_without_a_console_boots(image: Image, tmp_path: Path) -> None:
    """PID 1 begins without descriptors; nobody writes into what is opened first."""
    script = (ROOT / "qemu/rootfs-overlay" / SCRIPT[1:]).read_text(encoding="utf-8")
    files = {
        SCRIPT: script.replace("#!/bin/sh\n", "#!/bin/sh\nexec >/dev/kmsg\n", 1).encode(),
        PLAN: compiled(tmp_path, WAITED, "echo lost; echo it is done >/dev/kmsg"),
    }
    machine = Shape(
        altered(image, tmp_path, files), memory=512, append=f"{INIT} {SAY} loglevel=8",
        kernel_options=KERNEL.replace("console=ttyS0", "console=none earlyprintk=serial,ttyS0,keep"),
    )  # fmt: skip
    with Machine(machine) as booted:
        booted.wait_console("that was all", SECONDS)
        shown = booted.console()
    said = ("unable to open an initial console", "it is done", "real init: PID 1", "answers at")
    assert [shown.index(what) for what in said] == sorted(shown.index(what) for what in said)
    assert "lost" not in shown


def test_a_root_that_cannot_be_written_and_a_dev_null_that_is_a_file(image: Image, tmp_path: Path) -> None:
    """Who came before us, such as an initramfs, has left it so; no command may have a file for it."""
    stub = stub_that("mount -t devtmpfs dev /dev; rm /dev/null; echo x >/dev/null; ls -l /dev/null")
    shown = console_of(altered(image, tmp_path, stub), f"{SAY} ro")
    assert re.search(r"-rw\S+ .* /dev/null", shown)
    assert "answers at /run/initspawn/control" in shown


def test_a_run_directory_that_is_full_and_no_name_of_the_console(image: Image, tmp_path: Path) -> None:
    """Nothing can be kept there, and what is to run runs."""
    fill = (
        "mount -t devtmpfs dev /dev; rm /dev/console; mount -t tmpfs -o mode=755,size=16k run /run;"
        "head -c 1M /dev/zero >/run/all; ls -l /run/all"
    )
    files = {**stub_that(fill), PLAN: compiled(tmp_path, WAITED, "echo it runs >/dev/kmsg")}
    shown = console_of(altered(image, tmp_path, files), f"{SAY} loglevel=8")
    assert re.search("16384 .*/run/all", shown)
    assert shown.index("it runs") < shown.index("real init: PID 1")
    assert "answers at /run/initspawn/control" in shown


def test_an_init_that_cannot_be_executed_is_passed_over(image: Image, tmp_path: Path) -> None:
    """The next candidate's turn; with none left, a shell: the kernel never panics."""
    bad = {SCRIPT: b"\177ELF of nothing", "/lib/systemd/systemd": b"#!/no/such\n"}
    shown = console_of(altered(image, tmp_path, bad), SAY, until="nothing else could be started")
    assert "panic" not in shown


def running(guest: Guest) -> dict[str, int]:
    """The pids of the tasks that run, by the name of their command."""
    found = json.loads(guest.check("initspawn", "call", "initspawn/tasks"))
    return {task["command"]: task["pid"] for task in found if task["state"] == "running"}


@pytest.mark.racy
def test_what_a_dead_early_supervisor_left_is_ended_not_doubled(image: Image) -> None:
    append = "quiet init=/usr/sbin/initspawn-init systemd.mask=initspawn.service"
    with Guest(Shape(image, memory=768, append=append)) as guest:
        guest.wait_agent()
        old = list(running(guest).values())
        orphan = guest.check("pgrep", "-fx", "sleep infinity").strip()
        gone = f"while test -e /proc/{old[0]}; do sleep 0.1; done"
        guest.shell(f"kill -KILL $(pgrep -of 'boot/__main__.py early'); {gone}")
        # The others went with it; this one is nobody's.
        assert guest.run("test", "-e", f"/proc/{orphan}").code == 0
        options = ("--service-type=notify", "-pNotifyAccess=main", "-pDelegate=yes", "-pKillMode=mixed")
        guest.check("systemd-run", "--unit=late", *options, "python3", "-I", "-S", STAGE, "adopt")
        assert guest.run("test", "-e", f"/proc/{orphan}").code == 1
        assert "count" in running(guest)
        assert guest.shell("pgrep -fcx 'sleep infinity'") == "1\n"
        assert guest.run("test", "-e", "/sys/fs/cgroup/initspawn").code == 1


@pytest.mark.soak
def test_the_machines_watchdog_is_fed_by_who_is_pid_1(image: Image) -> None:
    """However busy the machine is; a systemd that has crashed feeds it no more, and the machine restarts."""
    with Guest(Shape(image, cpus=2, memory=768, append=f"quiet {INIT}")) as guest:
        guest.wait_agent()
        guest.check("modprobe", "softdog")
        guest.shell("mkdir -p /etc/systemd/system.conf.d")
        guest.write("/etc/systemd/system.conf.d/dog.conf", b"[Manager]\nRuntimeWatchdogSec=15\n")
        guest.check("systemctl", "daemon-reexec")
        before = running(guest)
        busy = "for _ in 1 2 3 4; do timeout 25 sh -c 'while :; do :; done' & done; wait"
        guest.shell(busy, timeout=180)
        assert running(guest) == before
        guest.start("kill", "-SEGV", "1")
        assert guest.wait(180) == 0
        assert "Initiating system reboot" in guest.console()
