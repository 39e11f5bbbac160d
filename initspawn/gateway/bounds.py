"""The gateway's finite defaults: counts and waits. The frame size is `limits.FRAME_BYTES`."""

from __future__ import annotations

from initspawn import limits

WEBSOCKETS = limits.WEBSOCKETS  # by default; `Limits` has those of this run
HTTP_CONNECTIONS = 64  # further TCP connections: requests, keep-alive, upgrades under way
PENDING_CALLS = 64  # unanswered calls of one connection before it is no longer read
LINK_BYTES = 32768  # read from the supervisor at once, and kept for a client that does not read
PAGE_BYTES = 32 << 20  # a file of the user's own page
HEAD_BYTES = 65536  # a request's line and headers
HEAD_SECONDS = 10.0  # from the first byte (or the connect) to a complete request head
BODY_SECONDS = 10.0  # from a complete head to a complete body
KEEP_ALIVE_SECONDS = 5  # between two requests on one connection
CLOSE_SECONDS = 1.0  # from our Close frame to the end of the TCP connection
STOP_SECONDS = 2  # from SIGTERM to the end of the process, whatever clients do
QUERY_FIELDS = 64  # query arguments looked at
BACKLOG = 128  # connections the kernel queues
PROBE_IDLE_SECONDS = 30  # silence before TCP keep-alive asks whether the peer still exists
PROBE_SECONDS = 10  # between two such probes
PROBES = 3  # unanswered probes before the connection is dropped
