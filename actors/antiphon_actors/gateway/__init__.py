"""The gateway: where callers reach the bots of a cluster.

It holds each caller's connection while what is behind it may be replaced. `gateway` admits callers and
keeps their `session`s, whose decisions are those of `session_state`; `http` and `server` are the way in,
`supervisors` the way to the processes that run bots, `actor` the Ray actor around all of it. Today callers
come over WebSockets; other ways in (WebRTC, telephony, gRPC) are to be further routes of `http` that end in
the same sessions.
"""
