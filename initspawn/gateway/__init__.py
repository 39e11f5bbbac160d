"""The gateway: AFB JSON over WebSocket and a test page, in an unprivileged process of its own.

It parses what comes from the network and hands calls, with their credential, to the supervisor's
control socket; it decides nothing about who may do what. May import `event`, `errors`, `limits`,
`control.wire`, the standard library, uvicorn, starlette, websockets and msgspec.
"""
