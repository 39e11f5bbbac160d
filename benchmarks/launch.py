"""How long a start takes: from asking for /bin/true in a sandbox to knowing that it has ended.

Ours through the supervisor as it is in production, with the measurement on; beside it `bwrap` with the
same isolation, and a plain `posix_spawn`. docs/benchmarks.md tells how to read the table.
"""

from __future__ import annotations

import argparse
import marshal
import os
import shutil
import subprocess
import sys
import tempfile

import launch_loop
import measure

from initspawn.config.compile import compile_raw
from initspawn.plan import Api, Plan, Sandbox
from initspawn.planfile import save

WARM = 20  # runs of each before the first that counts
SHARED, PRIVATE, PLAIN = "sandbox, shared network", "sandbox, private network", "no namespaces"
BWRAP_SHARED, BWRAP_PRIVATE, SPAWN = "bwrap, shared network", "bwrap, private network", "posix_spawn"
AT_ONCE = 32
MANY = [(SHARED, BWRAP_SHARED), (PRIVATE, BWRAP_PRIVATE), (PLAIN, SPAWN)]
PAIRS = [
    (SHARED, BWRAP_SHARED),
    (PRIVATE, BWRAP_PRIVATE),
    (PLAIN, SPAWN),
    (SHARED, SPAWN),
    (launch_loop.FIRST + SHARED, BWRAP_SHARED),
    (launch_loop.FIRST + PRIVATE, BWRAP_PRIVATE),
    (launch_loop.FIRST + PLAIN, SPAWN),
    (launch_loop.MEASUREMENT + SHARED, SHARED),
    (launch_loop.MEASUREMENT + launch_loop.FIRST + SHARED, launch_loop.FIRST + SHARED),
    *((f"{AT_ONCE} x {other}", f"{AT_ONCE} x {name}") for name, other in MANY),
]
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
NOBODY = 65534


def program() -> str:
    """/bin/true by a path that is no symbolic link on the way: everybody resolves it equally."""
    return os.path.join(os.path.realpath("/bin"), "true")


def tree() -> list[tuple[str, str, str]]:
    """The sandbox's file tree as (mode, source, target)."""
    mounts = []
    for path in SYSTEM:
        if os.path.islink(path):
            mounts.append(("symlink", os.readlink(path), path))
        elif os.path.isdir(path):
            mounts.append(("ro", path, path))
    return [*mounts, ("procfs", "", "/proc"), ("dev", "", "/dev"), ("tmpfs", "", "/tmp")]


def configuration() -> dict[str, object]:
    """The file that the measured supervisor serves."""
    mounts = [
        {"mode": mode, "target": target, **({"source": source} if source else {})}
        for mode, source, target in tree()
    ]
    full = {"acls": {"user": NOBODY, "group": NOBODY}, "seccomp": "default"}
    true = {"exec": {"cmdpath": program()}}
    shared = {"shares": {"all": "disable", "net": "enable"}, "mounts": mounts}
    private = {"shares": {"all": "disable"}, "mounts": mounts}
    sandboxes = [
        {"uid": "shared", **full, "namespace": shared, "commands": {"uid": SHARED, **true}},
        {"uid": "private", **full, "namespace": private, "commands": {"uid": PRIVATE, **true}},
        {
            "uid": "plain",
            **({"acls": full["acls"]} if os.geteuid() == 0 else {}),
            "commands": {"uid": PLAIN, **true},
        },
    ]
    return {"metadata": {"uid": "benchmark", "api": "benchmark"}, "sandboxes": sandboxes}


def bwrap(path: str, sandbox: Sandbox) -> list[str]:
    """The same isolation by bubblewrap's options."""
    argv = [path, "--unshare-all", *([] if "net" in sandbox.namespaces else ["--share-net"])]
    argv += ["--uid", str(NOBODY), "--gid", str(NOBODY), "--cap-drop", "ALL"]
    argv += ["--new-session", "--die-with-parent", "--seccomp", str(launch_loop.FILTER_FD)]
    for mode, source, target in tree():
        argv += {
            "ro": ["--ro-bind", source, target],
            "symlink": ["--symlink", source, target],
            "procfs": ["--proc", target],
            "dev": ["--dev", target],
            "tmpfs": ["--tmpfs", target],
        }[mode]
    for name, value in sandbox.environment:
        argv += ["--setenv", name, value]
    return [*argv, "--chdir", "/", program()]


def run(count: int) -> measure.Samples:
    """Measure everything, in a process of its own. Raises subprocess.CalledProcessError."""
    user, group = os.geteuid(), os.getegid()
    api: Api = compile_raw(configuration(), file="benchmark", user=user, group=group, environ={})
    others = {SPAWN: [program()]}
    if path := shutil.which("bwrap"):
        others[BWRAP_SHARED] = bwrap(path, api.sandbox("shared"))
        others[BWRAP_PRIVATE] = bwrap(path, api.sandbox("private"))
    with tempfile.TemporaryDirectory(prefix="initspawn-benchmark-") as place:
        plan = os.path.join(place, "plan")
        save(Plan(user=user, group=group, apis=(api,)), plan)
        job = {
            "plan": plan, "others": others, "count": count, "warm": min(WARM, count),
            "filter": api.sandbox("shared").filters[0],
            "many": [(name, AT_ONCE) for pair in MANY for name in pair],
        }  # fmt: skip
        # The interpreter itself: in a virtual environment sys.executable is a link to it.
        argv = [os.path.realpath(sys.executable), "-I", "-S", launch_loop.__file__]
        done = subprocess.run(argv, input=marshal.dumps(job), stdout=subprocess.PIPE, check=True)
    samples: measure.Samples = marshal.loads(done.stdout)
    return {name: samples[name] for name in order() if name in samples}


def order() -> list[str]:
    """The rows of the table."""
    ours = [SHARED, PRIVATE, PLAIN]
    firsts = [launch_loop.FIRST + name for name in ours]
    parts = [launch_loop.MEASUREMENT + name for name in (SHARED, firsts[0])]
    many = [f"{AT_ONCE} x {name}" for pair in MANY for name in pair]
    return [SHARED, BWRAP_SHARED, PRIVATE, BWRAP_PRIVATE, PLAIN, SPAWN, *firsts, *parts, *many]


def heading() -> dict[str, str]:
    """What was measured, and where."""
    found = shutil.which("bwrap")
    version = "not installed, left out"
    if found:
        version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "benchmark": f"start to end of {program()}",
        **measure.machine(),
        "bwrap": version.strip(),
        "sandbox": "own user, pid, mnt, ipc, uts and cgroup namespaces, an own file tree with /proc,\n"
        "/dev and /tmp, the profile `default`, no capability; ours measured before it runs",
    }


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="runs of each (300)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.count < 1:
        parser.error("--count: at least 1")
    measure.show(measure.results(run(options.count), PAIRS), heading(), json=options.json)


if __name__ == "__main__":
    main()
