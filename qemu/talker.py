"""Sends a datagram to somebody far away ten times a second; /run/talker counts what became of them."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import Counter

FAR = ("198.51.100.9", 9)
PLACE = "/run/talker"


def main() -> None:
    """For ever."""
    counts: Counter[str] = Counter()
    with open("/dev/kmsg", "w", encoding="ascii") as log:
        log.write("talker: begins\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while True:
            try:
                sender.sendto(b"hello", FAR)
                counts["sent"] += 1
            except OSError as error:
                counts[errno.errorcode[error.errno or 0]] += 1
            with open(f"{PLACE}.new", "w", encoding="ascii") as file:
                file.writelines(f"{what} {number}\n" for what, number in counts.items())
            os.replace(f"{PLACE}.new", PLACE)
            time.sleep(0.1)


if __name__ == "__main__":
    main()
