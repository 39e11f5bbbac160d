"""Loop devices: a file as a read-only block device (loop(4), include/uapi/linux/loop.h). Boot module."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

CONTROL = "/dev/loop-control"
_CONTROL_DEVICE = os.makedev(10, 237)  # include/linux/miscdevice.h: LOOP_CTRL_MINOR
LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
_SIZE = 304  # bytes of struct loop_config
_TRIES = 64  # of finding one before somebody else has it
# Somebody else has it, or it goes away while it is being opened.
_TAKEN = (errno.EBUSY, errno.ENXIO, errno.ENODEV)


def attach(image: int, name: str) -> tuple[int, str]:
    """Attach the file open as `image` to a free device: a descriptor on that, and its path. `name` is what
    losetup(8) shows. The device is free again when nobody has it open or mounted any more, however its
    users ended. Raises OSError that names what could not be opened.
    """
    control = _control()
    try:
        for _ in range(_TRIES):
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            path = f"/dev/loop{number}"
            device = -1
            try:
                device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                fcntl.ioctl(device, LOOP_CONFIGURE, _config(image, name))
                return device, path
            except OSError as error:
                if device >= 0:
                    os.close(device)
                if error.errno not in _TAKEN:
                    raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), CONTROL)


def _control() -> int:
    """The control device. It is made where nobody has yet, as before udev: opening it loads the module."""
    made = False
    if not os.path.exists(CONTROL):
        os.mknod(CONTROL, stat.S_IFCHR | 0o600, _CONTROL_DEVICE)
        made = True
    try:
        return os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        if made:
            os.unlink(CONTROL)
        raise


def _config(image: int, name: str) -> bytes:
    """struct loop_config: the file's descriptor, block size (0: the usual), struct loop_info64, reserved."""
    flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR
    shown = os.fsencode(name)[:63]
    return struct.pack("=2I5Q3II64s", image, 0, *(0,) * 5, 0, 0, 0, flags, shown).ljust(_SIZE, b"\0")
