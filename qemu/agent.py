"""In the guest: runs what the host asks for. `python3 -I -S agent.py PORT`, PORT a virtio or serial port.

Commands get no terminal and the agent's environment. Several may run at the same time. A command has
ended when its process has; whoever else still holds its output is no longer listened to.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import tty

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from qemu.frames import ERR, EXIT, HELLO, INPUT, NUMBER, OUT, RUN, SIGNAL, Parser, frame

CHUNK = 65536


class Agent:
    """One port and the commands of its host."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.parser = Parser()
        self.selector = selectors.DefaultSelector()
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.selector.register(port, selectors.EVENT_READ, self.hear)

    def send(self, kind: int, channel: int, payload: bytes = b"") -> None:
        """Write a frame; waits while the host does not read."""
        data = memoryview(frame(kind, channel, payload))
        while data:
            data = data[os.write(self.port, data) :]

    def serve(self) -> None:
        """Serve until the host goes away."""
        self.send(HELLO, 0)
        while True:
            for key, _ in self.selector.select():
                if key.fd in self.selector.get_map():  # an earlier one of this round may have ended it
                    key.data()

    def hear(self) -> None:
        data = os.read(self.port, CHUNK)
        if not data:
            sys.exit("agent: the host is gone")
        for kind, channel, payload in self.parser.feed(data):
            if kind == RUN:
                self.run(channel, **json.loads(payload))
            elif (process := self.running.get(channel)) is not None:  # else it has just ended
                if kind == INPUT:
                    self.input(process, payload)
                elif kind == SIGNAL:
                    process.send_signal(payload[0])

    def run(self, channel: int, argv: list[str], env: dict[str, str], cwd: str) -> None:
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                argv, env={**os.environ, **env}, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0
            )
        except OSError as error:
            self.send(ERR, channel, f"agent: {error}\n".encode())
            self.send(EXIT, channel, NUMBER.pack(127))
            return
        self.running[channel] = process
        pidfd = os.pidfd_open(process.pid)
        for kind, file in ((OUT, process.stdout), (ERR, process.stderr)):
            assert file
            os.set_blocking(file.fileno(), False)
            self.selector.register(
                file, selectors.EVENT_READ, lambda kind=kind, file=file: self.output(channel, kind, file)
            )
        self.selector.register(pidfd, selectors.EVENT_READ, lambda: self.end(channel, process, pidfd))

    @staticmethod
    def input(process: subprocess.Popen[bytes], payload: bytes) -> None:
        assert process.stdin
        try:
            if payload:
                process.stdin.write(payload)
            else:
                process.stdin.close()
        except (BrokenPipeError, ValueError):  # it reads no more, or was told the end already
            pass

    def output(self, channel: int, kind: int, file) -> bool:  # type: ignore[no-untyped-def]
        """Hand on what there is; whether there was something."""
        try:
            data = file.read(CHUNK)
        except ValueError:  # closed
            return False
        if data:
            self.send(kind, channel, data)
        elif data == b"" and file.fileno() in self.selector.get_map():
            self.selector.unregister(file)
        return bool(data)

    def end(self, channel: int, process: subprocess.Popen[bytes], pidfd: int) -> None:
        self.selector.unregister(pidfd)
        os.close(pidfd)
        code = process.wait()
        for kind, file in ((OUT, process.stdout), (ERR, process.stderr)):
            assert file
            while self.output(channel, kind, file):
                pass
            if file.fileno() in self.selector.get_map():
                self.selector.unregister(file)
            file.close()
        assert process.stdin
        process.stdin.close()
        del self.running[channel]
        self.send(EXIT, channel, NUMBER.pack(code))


def main() -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    port = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
    if os.isatty(port):
        tty.setraw(port)
    Agent(port).serve()


if __name__ == "__main__":
    main()
