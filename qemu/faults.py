"""Images with something wrong in them: files replaced or taken away, without mounting anything."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from qemu.image import BuildError, Image


def altered(
    image: Image, place: Path, files: Mapping[str, bytes | None], *, added: Mapping[str, bytes] | None = None,
    mode: str = "0100755",
) -> Image:  # fmt: skip
    """A copy of an image, below the directory `place`, in which these files have this content, or are not
    there (None). They must exist, and those that are `added` must not; `mode` is their inodes' (inode(7)).
    Raises BuildError, OSError.
    """
    disk = place / "altered.ext4"
    subprocess.run(["cp", "--sparse=always", str(image.disk), str(disk)], check=True)
    orders = []
    for number, (path, content) in enumerate((*files.items(), *(added or {}).items())):
        if path in files:
            orders.append(f"rm {path}")
        if content is not None:
            source = place / f"content-{number}"
            source.write_bytes(content)
            orders += [f"write {source} {path}", f"set_inode_field {path} mode {mode}"]
    script = place / "orders"
    script.write_text("\n".join(orders) + "\n", encoding="utf-8")
    done = subprocess.run(
        ["/sbin/debugfs", "-w", "-f", str(script), str(disk)], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines()[1:] if line]  # the first is its version
    if done.returncode != 0 or said:
        raise BuildError(f"debugfs: {said}")
    return image._replace(disk=disk)
