"""What the image of a device lacks for a boot with initspawn, beside its plan."""

from __future__ import annotations

from initspawn.plan import Plan
from initspawn.tree import Tree

# As rootfs-overlay/usr/sbin/initspawn-init has them: its $PATH, and what it calls there.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = ("timeout", "head", "sleep", "readlink", "mount")
_OURS = {
    "/usr/lib/initspawn/initspawn/boot/__main__.py": "it is of the package directory `initspawn/`",
    "/usr/sbin/initspawn-init": "it is of `rootfs-overlay/`",
}
_THEIRS = {
    "/usr/bin/python3": "Buildroot: BR2_PACKAGE_PYTHON3=y; Yocto: python3-core",
    "/bin/sh": "BusyBox or dash",
    **dict.fromkeys(PROGRAMS, "coreutils and util-linux, or BusyBox"),
}
_PROGRAM_OF_OURS = "/usr/sbin/initspawn-init"


def lacking(plan: Plan, tree: Tree) -> list[str]:
    """What to tell about an image, each as one line; nothing of one whose plan is not for the supervisor of
    a boot, which is root's. None of it is the plan's fault, and it may come into the image after the plan.
    """
    if plan.user != 0 or not tree.root:
        return []
    lines = [
        f"{tree.root} has no {path}: a boot needs it, now or later; {remedy} (docs/boot.md)"
        for path, remedy in _OURS.items()
        if not tree.exists(path)
    ]
    if tree.exists(_PROGRAM_OF_OURS) and not tree.is_executable(_PROGRAM_OF_OURS):
        lines.append(f"{tree.root}: {_PROGRAM_OF_OURS} is not executable, and the kernel would not start it")
    for name, remedy in _THEIRS.items():
        places = [name] if name.startswith("/") else [f"{place}/{name}" for place in _PATH.split(":")]
        if not any(tree.exists(place) and tree.is_executable(place) for place in places):
            lines.append(f"{tree.root} has no program {name}: a boot needs it; {remedy}")
    return lines
