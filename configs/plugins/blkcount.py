"""A sample encoder plug-in: the lines of stdout in blocks, those of stderr counted.

    plugins: {uid: sample, spath: /etc/initspawn/plugins, libs: blkcount.py}
    ...
    encoder: {plugin: sample, output: blkcount, opts: {blkcount: 3}}

Options: `blkcount`, lines in a block (default 10); `maxlen`, bytes kept of a line (default 512).
"""


class BlockCount:
    """Events: a list of `blkcount` lines of stdout; {"err": NUMBER, "data": LINE} for a line of stderr; at
    the end the last, shorter list and {"errcount": NUMBER, "linecount": NUMBER}.
    """

    def __init__(self, options):
        self.size = options.get("blkcount", 10)
        self.maxlen = options.get("maxlen", 512)
        for name, value in (("blkcount", self.size), ("maxlen", self.maxlen)):
            if type(value) is not int or not 1 <= value <= 65536:
                raise ValueError(f"`{name}` must be a whole number from 1 to 65536, not {value!r}")
        self.rest = {"stdout": b"", "stderr": b""}
        self.block = []
        self.counts = {"stdout": 0, "stderr": 0}

    def feed(self, stream, data):
        """What these bytes complete. Keeps less than `maxlen` bytes of a line that has not ended."""
        *lines, rest = (self.rest[stream] + data).split(b"\n")
        self.rest[stream] = rest[: self.maxlen]
        for line in lines:
            yield from self.line(stream, line)

    def line(self, stream, line):
        text = line[: self.maxlen].decode("utf-8", "backslashreplace")
        self.counts[stream] += 1
        if stream == "stderr":
            yield {"err": self.counts[stream], "data": text}
            return
        self.block.append(text)
        if len(self.block) == self.size:
            yield self.block
            self.block = []

    def finish(self):
        """The unterminated last lines, the last block, the sums."""
        for stream, rest in self.rest.items():
            if rest:
                yield from self.line(stream, rest)
        if self.block:
            yield self.block
        yield {"errcount": self.counts["stderr"], "linecount": self.counts["stdout"]}


ENCODERS = {"blkcount": BlockCount, "my-custom-encoder": BlockCount}
