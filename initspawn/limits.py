"""Every finite default in one table: buffers, queues, counts and waits. Boot module.

Units are in the names' comments; `info` shows the table.
"""

from __future__ import annotations

READ_CHUNK = 65536  # bytes read from a pipe or socket per wake-up
EVENTS_PER_WAKE = 64  # epoll events handled before timers and signals are looked at again
LOG_BYTES = 6 << 20  # memory for the events kept per task for replay, roughly; halved as LOG_EVENTS is
ENDED_LOG_BYTES = 64 << 10  # of that, once the task has ended and its readers have left
LOG_EVENTS = 8192  # events kept per task for replay: half of it may wait, the rest is two full reads
ENDED_TASKS = 64  # ended tasks whose record and output are kept
TASKS = 512  # tasks alive at once
OWN_TASKS = 16  # and so many of our own where these are too many: a guard's change, the gateway
OWN_DESCRIPTORS = 320  # that tasks leave for connections and our own needs; at most a quarter of our limit
OWN_BYTES = 4 << 20  # memory to be free before output is read or a task started, and as much is held
CALM_SECONDS = 2.0  # without a sign of it until a shortage is over
TERMINAL_SIZE = 32767  # rows or columns of a terminal
EVENT_TASKS = 16  # tasks of one command alive at once before events start no more of it
CONNECTIONS = 256  # control connections at once: one for each WebSocket, the rest for local programs
WEBSOCKETS = 200  # of all addresses at once: one that does not read costs up to OUT_BYTES
FRAME_BYTES = 1_048_500  # largest frame of the WebSocket
CONTROL_BYTES = FRAME_BYTES + 65536  # largest frame of the control socket: such a frame, and what we add
OUT_BYTES = 1 << 20  # bytes waiting for one control connection before its events are held back
STALL_SECONDS = 10.0  # a subscriber that reads nothing for so long no longer holds a command up
RETURN_SECONDS = 10.0  # the place of a subscriber that may come back is kept so long
RETURNS = 256  # such places in one task's log
LOST_SECONDS = 0.5  # at the stop, for who is waited for and has no process any more
STOP_GRACE_SECONDS = 2.0  # from the polite signal to the end of the whole tree
CLOSE_SECONDS = 10.0  # from the order to stop to the end of the supervisor, whatever its tasks do
DRAIN_SECONDS = 1.0  # from a command's end to the forced end of its output
REFILL_SECONDS = 0.002  # a command that runs for so long has the next start made beside it
RESERVE_SANDBOXES = 16  # sandboxes that wait, built, for their next start, beside those that are to be warm
RESERVE_EACH = 2  # starts that wait in each of them: one for who asks next, one for who asks right after
RESERVE_STARTS = 256  # starts that wait at most
RESERVE_SECONDS = 60.0  # they wait so long
LAUNCH_SECONDS = 10.0  # of a start until its exec before it is refused
LAUNCH_EACH_SECONDS = 0.1  # added for each other task that is alive: they share the processors
ADDRESS_CONNECTIONS = 128  # of one network address, or one local user, at once
ADDRESS_CALLS = 50_000  # of one address per second: more than one client gets answered here
ADDRESS_CALLS_SECONDS = 10  # of them that may come at once
ADDRESS_FAILURES = 20  # tokens that are none of ours, of one address per minute, before others are not tried
ADDRESSES = 4096  # addresses remembered that have no connection
IMPORT_SECONDS = 20.0  # for another server's API to answer
IMPORT_LONGEST_PAUSE = 10.0  # between two attempts to connect to it
IMPORT_CALLS = 256  # unanswered calls of it
IMPORT_BYTES = 4 << 20  # memory for its events that wait for their turn, roughly
TLS_CHECK_SECONDS = 5.0  # between two looks at the files of the gateway's certificate
TLS_FILE_BYTES = 131072  # largest of them
PLAN_BYTES = 64 << 20  # largest plan that is read
ARGUMENT_BYTES = 131072  # one argument: the kernel's MAX_ARG_STRLEN
MAX_LINE_BYTES = 512  # default `maxlen` of the line encoders
MAX_DEPTH = 32  # default `maxdepth` of the json encoder
JSON_BYTES = 524_288  # one value of the json encoder, as the command writes it
PLUGIN_SECONDS = 10.0  # for an encoder plug-in to answer, the start of its process included
NOTIFY_BYTES = 4096  # longest message of sd_notify
NOTIFIES = 64  # such messages of a sandbox's that are read in
NOTIFY_PERIOD = 0.1  # seconds
NOTIFY_SECONDS = 3600.0  # by which one message may extend the time for getting ready
PLUGIN_BYTES = 1 << 20  # that it may tell in one answer
MAX_LINES = 128  # default `maxline` of the text encoders

TABLE = {
    name.lower(): value
    for name, value in list(globals().items())
    if name.isupper() and isinstance(value, (int, float))
}
