"""PID 1 without another init, in a pid namespace: it keeps the supervisor up, and ends with it, orderly.

Nothing here may reach the machine: `SETUP` goes on only as PID 1 of a namespace of its own.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.system.server import PATIENCE, children, read, wait_for, write
from tests.system.test_serve import shell

pytestmark = pytest.mark.root  # mounts in a mount namespace of its own
ROOT = Path(__file__).parents[2]
STUB = "initspawn-init"
STAGE = f"{ROOT}/initspawn/boot/__main__.py"
# No log, no run directory, no control group and no key for emergencies is the machine's.
SETUP = """
set -e
[ $$ = 1 ]
mount -t tmpfs tmpfs /run
for file in cmdline uptime; do mount --bind {place}/$file /proc/$file; done
mount --bind /dev/null /dev/kmsg
umount -l /sys/fs/cgroup
mount -t tmpfs tmpfs /sys/fs/cgroup
{first}
exec /bin/sh {place}/{stub}
"""
UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc")
# Instead of the interpreter: says what it was asked for, and ends at once.
ENDS = """#!/bin/sh
shift 3
case $1 in halt) echo "$*" ;; *) echo "$1" ;; esac >>{place}/told
{line}
"""
# Instead of sleep(1): says how long, and waits for nothing; in the end for whoever looks at what was said.
PAUSES = """#!/bin/sh
echo "sleep $1" >>{place}/told
[ "$(grep -c sleep {place}/told)" -lt {last} ] || exec /bin/sleep 60
"""


# Before the script: no process can be made any more.
NO_FORK = """
import os, pyseccomp
deny = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
for call in ("clone", "clone3", "fork", "vfork"):
    deny.add_rule(pyseccomp.ERRNO(11), call)
deny.load()
os.execv("/bin/sh", {argv})
"""


def lines(place: Path) -> list[str]:
    return (place / "told").read_text().splitlines()


def told_by_both(place: Path) -> list[str]:
    """Who comes after another one may be quicker to say so."""
    found = lines(place)
    return sorted(found[:2]) + found[2:]


@contextmanager
def started(
    place: Path,
    words: str,
    *,
    first: str = "",
    bin: dict[str, str] | None = None,
    line: str = "",
    **environment: str,
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`unshare`, and the PID 1 that it has made. `words`: the kernel's; `first`: what is done before; `bin`:
    scripts that are found before all programs, of which `python3` is the interpreter. `line`: what the
    script begins with.
    """
    for name, text in {"told": "", "cmdline": f"quiet {words}\n", "sysrq-trigger": "", **(bin or {})}.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    (place / "uptime").write_text(Path("/proc/uptime").read_text())
    stub = f"{line}\n{(ROOT / f'rootfs-overlay/usr/sbin/{STUB}').read_text()}"
    interpreter = place / "python3" if bin else sys.executable
    own = {"boot": STAGE, "python": interpreter, "PATH": f"{place}:/usr/bin:/bin", "stub": place / STUB}
    for name, value in own.items():
        stub = re.sub(f"(?m)^{name}=.*", f"{name}={value}", stub, count=1)
    assert "/proc/sysrq-trigger" in stub
    (place / STUB).write_text(stub.replace("/proc/sysrq-trigger", f"{place}/sysrq-trigger"))
    (place / "setup").write_text(SETUP.format(place=place, stub=STUB, first=first))
    with subprocess.Popen(
        [*UNSHARE, "sh", f"{place}/setup"], env={**os.environ, **environment},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            (init,) = wait_for(lambda: children(process.pid), "its PID 1")
            assert os.readlink(f"/proc/{init}/ns/pid") != os.readlink("/proc/self/ns/pid")
            yield process, init
        finally:
            if process.poll() is None:
                process.kill()


def polite(place: Path, name: str, seconds: int) -> str:
    end = f"sleep {seconds}; echo {name} ends >>{place}/told; exit 0"
    return f"trap '{end}' TERM; echo {name} >>{place}/told; while :; do sleep 0.2; done"


def planned(place: Path, *more: dict[str, Any], doors: tuple[str, ...] = ()) -> str:
    """The words that name a plan with two services; `doors`: options of `compile`."""
    top = {"after": "base", "stage": "api", "stop_timeout": 30}
    commands = [
        shell("base", polite(place, "base", 0), autostart={}),
        shell("top", polite(place, "top", 1), autostart=top),
        *more,
    ]
    box = {"uid": "box", "acls": {"user": "root"}, "commands": commands}
    made = write(place, "t.json", {"metadata": {"uid": "t", "api": "t"}, "sandboxes": box})
    compiler = [sys.executable, "-m", "initspawn", "compile", made, "-o", str(place / "plan")]
    subprocess.run([*compiler, *doors], check=True, capture_output=True)
    return f"initspawn.init=none initspawn.plan={place}/plan"


def both(place: Path) -> None:
    wait_for(lambda: len(lines(place)) == 2, "its services")


def supervisor(init: int) -> int:
    found = [pid for pid in children(init) if b"__main__.py\0alone" in read(f"/proc/{pid}/cmdline")]
    return found[-1]


@pytest.mark.parametrize(
    ("told", "ends"), [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGHUP)], ids=["off", "again"]
)
def test_it_ends_orderly_and_tells_how(tmp_path: Path, told: int, ends: int) -> None:
    with started(tmp_path, planned(tmp_path)) as (process, init):
        both(tmp_path)
        os.kill(init, told)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == -ends  # reboot(2): what a pid namespace's maker is told
        assert told_by_both(tmp_path) == ["base", "top", "top ends", "base ends"]
        assert (tmp_path / "sysrq-trigger").read_text() == ""


def test_a_container_without_dev_null_ends_and_says_why(tmp_path: Path) -> None:
    """A shell starts nothing in the background there, and would not even wait before the next try."""
    empty = "mount -t tmpfs none /dev"
    with started(tmp_path, "initspawn.init=none", first=empty, bin={"python3": ENDS}) as (process, _):
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1
        assert said == "initspawn-init: /dev/null is missing: nothing can be started\n"
        assert lines(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "hold", "becomes"),
    [("initspawn.init=none", False, False), ("initspawn.init={place}/init", False, True),
     ("initspawn.init={place}/init", True, False)],
    ids=["alone", "boot", "held"],
)  # fmt: skip
def test_pid_1_lives_on_where_no_process_can_be_made(
    tmp_path: Path, words: str, hold: bool, becomes: bool
) -> None:
    """A shell that cannot fork ends, and a kernel whose PID 1 ends panics."""
    scripts = {
        "python3": ENDS.format(place=tmp_path, line=""),
        "init": f"#!/bin/sh\necho init >>{tmp_path}/told\nexec /bin/sleep 60\n",
        "alone.py": NO_FORK.format(argv=["sh", str(tmp_path / STUB)]),
    }
    if hold:
        scripts["hold"] = ""
    told = f"{words.format(place=tmp_path)} initspawn.hold={tmp_path}/hold"
    first = f"umount /proc/uptime; exec {sys.executable} {tmp_path}/alone.py"
    begins = f"echo begins >>{tmp_path}/told"
    with started(tmp_path, told, first=first, bin=scripts, line=begins) as (process, _):
        if becomes:
            wait_for(lambda: lines(tmp_path) == ["begins", "begins", "init"], "the real init")
        else:
            wait_for(lambda: lines(tmp_path) == ["begins"] * 3, "two more tries")
        assert process.poll() is None
        process.kill()


@pytest.mark.parametrize("first", ["", "exec 0<&- 1>&- 2>&-"], ids=["an-end-of-file", "closed"])
def test_a_machine_in_recovery_without_a_console_stands_still(tmp_path: Path, first: str) -> None:
    """Its shell has nothing to read and ends; PID 1 does not."""
    machine = "readlink() { echo 'pid:[4026531836]'; }"  # to this copy of the script it is one
    ends = {
        "python3": ENDS.format(place=tmp_path, line="printf recovery >&3"),
        "sleep": PAUSES.format(place=tmp_path, last=2),
    }
    with started(tmp_path, "", first=first, bin=ends, line=machine) as (process, _):
        wait_for(lambda: lines(tmp_path)[-2:] == ["sleep 5"] * 2, "its second shell")
        assert process.poll() is None
        process.kill()


def test_it_takes_another_plan(tmp_path: Path) -> None:
    """Not while the boot waits for a command; then what is new starts, and the rest goes on."""
    start = {"before": "handover", "ready": "exited", "start_timeout": 0}
    awaited = shell("awaited", f"until [ -e {tmp_path}/go ]; do sleep 0.1; done", autostart=start)
    with started(tmp_path, planned(tmp_path, awaited)) as (process, init):
        both(tmp_path)

        def reload() -> subprocess.CompletedProcess[str]:
            inside = ["nsenter", "-t", str(init), "-m", "-p", sys.executable, "-I", "-S", STAGE, "reload"]
            return subprocess.run(inside, capture_output=True, text=True, timeout=PATIENCE)

        planned(tmp_path, shell("more", polite(tmp_path, "more", 0), autostart={}))
        done = reload()
        assert (done.returncode, done.stdout) == (111, "")
        assert done.stderr == "initspawn: the boot waits for commands with `before: handover` still\n"
        (tmp_path / "go").touch()
        done = wait_for(lambda: (made := reload()).returncode == 0 and made, "the reload")
        assert done.stdout.startswith("initspawn: reloaded: 1 API, 3 commands (1 new or changed, 1 gone), ")
        wait_for(lambda: told_by_both(tmp_path) == ["base", "top", "more"], "the new one")
        (tmp_path / "plan").unlink()
        done = reload()
        assert done.returncode == 111
        assert "plan: No such file or directory" in done.stderr
        os.kill(init, signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        assert sorted(lines(tmp_path)[3:]) == ["base ends", "more ends", "top ends"]


def test_a_container_feeds_no_watchdog(tmp_path: Path) -> None:
    """It says so; nobody opens the machine's, which would begin to count."""
    (tmp_path / "log").touch()
    os.mkfifo(tmp_path / "dog")
    log = f"mount --bind {tmp_path}/log /dev/kmsg"
    words = f"{planned(tmp_path)} initspawn.watchdog=30 initspawn.watchdog_device={tmp_path}/dog"
    reader = os.open(tmp_path / "dog", os.O_RDONLY | os.O_NONBLOCK)
    with started(tmp_path, words, first=log) as (process, init), open(reader, "rb", buffering=0) as dog:
        had = select.poll()  # a writer, if only for a moment
        had.register(dog, select.POLLHUP)
        both(tmp_path)
        said = (tmp_path / "log").read_text()
        assert said.count("watchdog: not in a container: it is the machine's\n") == 1
        os.kill(init, signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGINT
        assert had.poll(0) == []


def test_with_another_init_it_is_told_that_nobody_here_feeds_a_watchdog(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    (tmp_path / "real").write_text(f"#!/bin/sh\necho real >>{tmp_path}/told\n")
    (tmp_path / "real").chmod(0o755)
    log = f"mount --bind {tmp_path}/log /dev/kmsg"
    words = f"initspawn.init={tmp_path}/real initspawn.plan={tmp_path}/none initspawn.watchdog=30"
    with started(tmp_path, words, first=log) as (process, _):
        process.communicate(timeout=PATIENCE)
        assert lines(tmp_path) == ["real"]
    said = "initspawn: initspawn.watchdog is for initspawn.init=none: the real init feeds it\n"
    assert said in (tmp_path / "log").read_text()


def test_a_command_that_wants_a_restart_has_one(tmp_path: Path) -> None:
    """Of the machine, and not before the others have had their time."""
    start = {"before": "handover", "ready": "exited", "on_failure": "reboot"}
    line = f"until grep top {tmp_path}/told; do sleep 0.1; done; exit 3"
    with started(tmp_path, planned(tmp_path, shell("bad", line, autostart=start))) as (process, _):
        process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGHUP
        assert told_by_both(tmp_path) == ["base", "top", "top ends", "base ends"]


def test_a_supervisor_that_hangs_does_not_keep_the_end_away(tmp_path: Path) -> None:
    with started(tmp_path, f"{planned(tmp_path)} initspawn.patience=2") as (process, init):
        both(tmp_path)
        os.kill(supervisor(init), signal.SIGSTOP)
        os.kill(init, signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGINT


def test_a_supervisor_that_is_killed_comes_back(tmp_path: Path) -> None:
    with started(tmp_path, planned(tmp_path)) as (process, init):
        both(tmp_path)
        os.kill(supervisor(init), signal.SIGKILL)
        wait_for(lambda: sorted(lines(tmp_path)) == ["base", "base", "top", "top"], "them again")
        os.kill(init, signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        assert lines(tmp_path)[4:] == ["top ends", "base ends"]


def test_the_doors_for_the_network_wait_for_nobody(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = planned(tmp_path, doors=("--gateway", "now", "--port", str(port)))

    def page() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    with started(tmp_path, words):
        wait_for(page, "the page")


def test_orphans_do_not_stay_as_zombies(tmp_path: Path) -> None:
    """Of whoever is not below the supervisor, which takes those of its tasks."""
    orphan = f"( sh -c 'echo $$ >>{tmp_path}/told; until [ -e {tmp_path}/end ]; do sleep 0.1; done' & )"
    bin = {"python3": "#!/bin/sh\nexec sleep 60\n"}
    with started(tmp_path, "initspawn.init=none", first=orphan, bin=bin) as (_, init):
        wait_for(lambda: lines(tmp_path), "the orphan")
        wait_for(lambda: b"sleep\0" in b"".join(commands(init)), "the interpreter")
        (pid,) = [pid for pid in children(init) if b"until" in read(f"/proc/{pid}/cmdline")]
        (tmp_path / "end").touch()
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "its end")


def commands(pid: int) -> list[bytes]:
    """The command lines of all processes below one."""
    found = []
    for child in children(pid):
        found += [read(f"/proc/{child}/cmdline"), *commands(child)]
    return found


def test_pauses_grow_until_a_run_goes_well_and_a_signal_ends_them(tmp_path: Path) -> None:
    """The ninth run has taken an hour, by the clock that it is given. PID 1 knows from its environment only
    that it stays.
    """
    line = f'[ "$(grep -c alone {tmp_path}/told)" -ne 9 ] || echo "99999999.00 1.00" >{tmp_path}/uptime'
    bin = {
        "python3": ENDS.format(place=tmp_path, line=line),
        "sleep": PAUSES.format(place=tmp_path, last=11),
    }
    with started(tmp_path, "", bin=bin, initspawn_init="none") as (process, init):
        wait_for(lambda: len(lines(tmp_path)) == 22, "eleven runs")
        os.kill(init, signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0  # a container's init may just end
    *told, last = lines(tmp_path)
    pauses = [1, 2, 4, 8, 16, 32, 60, 60, 1, 2, 4]
    assert told == [line for pause in pauses for line in ("alone", f"sleep {pause}")]
    assert last == "halt poweroff"


@pytest.mark.parametrize("can", [True, False], ids=["by-reboot", "by-its-end"])
def test_a_container_that_shall_restart_leaves_the_machine_alone(tmp_path: Path, can: bool) -> None:
    """The emergency keys are the machine's, whatever the container may write to."""
    (tmp_path / "hold").touch()
    line = "[ $1 = early ]" if not can else ":"
    bin = {
        "python3": ENDS.format(place=tmp_path, line=line),
        "sleep": PAUSES.format(place=tmp_path, last=99),
        "reboot": f"#!/bin/sh\necho reboot $* >>{tmp_path}/told\n",
    }
    with started(tmp_path, f"initspawn.hold={tmp_path}/hold initspawn.held=reboot", bin=bin) as (process, _):
        process.communicate(timeout=PATIENCE)
        assert process.returncode == (0 if can else 1)
    *told, last = [line for line in lines(tmp_path) if not line.startswith("early")]
    assert told[:3] == ["sleep 1", "sleep 2", "sleep 3"]
    assert [*told[3:], last] == ["halt reboot", *([] if can else ["reboot -f -f"])]
    assert (tmp_path / "sysrq-trigger").read_text() == ""


@pytest.mark.parametrize(
    ("word", "becomes"),
    [("recovery", "recovery"), ("reboot..", "halt reboot"), ("poweroff", "halt poweroff")],
)
def test_who_dies_after_its_word_has_said_it(tmp_path: Path, word: str, becomes: str) -> None:
    """PID 1 waits until nobody holds the pipe any more."""
    says = f"printf 'p%07d%s' $$ '{word}' >&3; sleep 1; echo over >>{tmp_path}/told"
    line = f"[ $1 != alone ] || {{ {says}; }}"
    bin = {
        "python3": ENDS.format(place=tmp_path, line=line),
        "recovery": f"#!/bin/sh\necho recovery >>{tmp_path}/told\n",
    }
    words = f"initspawn.init=none initspawn.recovery={tmp_path}/recovery"
    with started(tmp_path, words, bin=bin) as (process, _):
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    assert lines(tmp_path) == ["alone", "over", becomes]


@pytest.mark.parametrize(
    ("word", "becomes"),
    [("go......", "real"), ("recovery", "recovery"), ("reboot..", "halt reboot"), ("", "real")],
)
def test_with_another_init_a_word_is_the_last_one(tmp_path: Path, word: str, becomes: str) -> None:
    line = f"[ $1 != early ] || printf 'p%07d%s' $$ '{word}' >&3"
    bin = {
        "python3": ENDS.format(place=tmp_path, line=line),
        **{name: f"#!/bin/sh\necho {name} >>{tmp_path}/told\n" for name in ("real", "recovery")},
    }
    words = f"initspawn.init={tmp_path}/real initspawn.recovery={tmp_path}/recovery"
    with started(tmp_path, words, bin=bin) as (process, _):
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    assert lines(tmp_path) == ["early", becomes]


def test_the_end_is_for_our_pid_1_only() -> None:
    program = f"[ $$ = 1 ] && {sys.executable} -I -S {STAGE} halt $1"
    for way, said in (("reboot", "PID 1 is not initspawn-init"), ("rest", "write poweroff or reboot")):
        done = subprocess.run(
            [*UNSHARE, "sh", "-c", f"{program}; exit $?", "sh", way],
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (111, f"initspawn: halt: {said}\n")


def test_who_is_not_pid_1_is_not_the_only_init(tmp_path: Path) -> None:
    environment = {**os.environ, "initspawn_init": "none"}
    with started(tmp_path, "", bin={"python3": ENDS.format(place=tmp_path, line="")}) as (process, _):
        process.kill()
    (tmp_path / "log").touch()  # which is none: so it says it on its output
    program = f"mount --bind {tmp_path}/log /dev/kmsg; sh {tmp_path}/{STUB} & wait $!"
    line = [*UNSHARE, "sh", "-c", program]
    done = subprocess.run(
        line, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 1
    assert "only PID 1 can be the only init" in done.stderr


# Never where it would be for all: the namespace is asked first.
END_OTHERS = """
import os, sys
from initspawn.boot import halt
assert os.getppid() == 1 and not halt.is_machine()
halt._SECONDS = 0.5
print(halt._others())
halt._end_others()
print(halt._others())
"""


def test_who_is_left_at_the_end_is_ended_even_against_its_will() -> None:
    program = '[ $$ = 1 ] || exit 9; (trap \'\' TERM; exec sleep 99) & sleep 99 & "$0" -c "$1"; exit $?'
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", program, sys.executable, END_OTHERS],
        capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "True\nFalse\n"), done.stderr
