"""What the image of a device lacks for a boot with initspawn, beside its plan."""

from __future__ import annotations

from initspawn.config.interpreter import library_places, without
from initspawn.plan import Plan
from initspawn.tree import Tree

# As rootfs-overlay/usr/sbin/initspawn-init has them: its $PATH, and what it calls there.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = ("timeout", "head", "sleep", "readlink", "mount")
_PYTHON = "/usr/bin/python3"
_OURS = {
    "/usr/lib/initspawn/initspawn/boot/__main__.py": "it is of the package directory `initspawn/`",
    "/usr/sbin/initspawn-init": "it is of `rootfs-overlay/`",
}
_THEIRS = {
    _PYTHON: "Buildroot: BR2_PACKAGE_PYTHON3=y; Yocto: python3-core",
    "/bin/sh": "BusyBox or dash",
    **dict.fromkeys(PROGRAMS, "coreutils and util-linux, or BusyBox"),
}
# What a supervisor imports, now or later, and a Python may have been installed without: its package for Yocto
# (python3-manifest.json of openembedded-core). Which SHA-256 there is depends on the Python's version.
STANDARD = {
    "_ctypes": "ctypes", "_socket": "io", "ctypes": "ctypes", "difflib": "difflib", "fcntl": "fcntl",
    "json": "json", "mmap": "mmap", "resource": "resource", "select": "core",
}  # fmt: skip
SHA, _SHA_PACKAGE = ("_sha2", "_sha256"), "crypt"
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
    if library_places(tree):  # else it is a program of its own kind
        lines += _parts(tree)
    return lines


def _parts(tree: Tree) -> list[str]:
    """Of the standard library of its Python."""
    packages = {name: STANDARD[name] for name in without(tree, STANDARD)}
    if len(without(tree, SHA)) == len(SHA):
        packages[SHA[0]] = _SHA_PACKAGE
    if not packages:
        return []
    yocto = " ".join(f"python3-{name}" for name in dict.fromkeys(packages.values()))
    return [
        f"{tree.root} has a Python without {', '.join(packages)}: a boot needs all of it; Yocto: {yocto}; "
        "Debian: python3, not only python3-minimal"
    ]
