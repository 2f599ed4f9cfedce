"""Every limit on how long a process waits for another: one name each, in seconds.

Command lines, options and help texts take their defaults from here; docs/reliability.md lists them. How often
something is looked at meanwhile is decided where it is looked at.
"""

from __future__ import annotations

__all__ = [
    "ABANDONED",
    "CONFIGURE",
    "DIAL",
    "DOCTOR_PEER",
    "DOWNLOAD",
    "FAREWELL",
    "FAREWELL_DRAIN",
    "GREETING",
    "HANDSHAKE",
    "HANG_UP",
    "KEEPALIVE",
    "LATE_GREETING",
    "LISTEN_AGAIN",
    "LOCAL_END",
    "LOCAL_START",
    "METRICS_REQUEST",
    "PROBE",
    "RECONNECT",
    "REFUSAL",
    "SYNC",
    "TAP_DIAL",
    "TEMPLATE",
    "UNLISTED",
    "WAIT",
]

# Worker and root ------------------------------------------------------------------------------------

#: A node waits so long for the next bytes of another during a forward (``--sync-timeout``).
SYNC = 120.0

#: After so much silence the kernel asks a host whether it is still there (``--keepalive`` of the worker); as many
#: seconds later the host is given up.
KEEPALIVE = 60.0

# The worker -----------------------------------------------------------------------------------------

#: A worker waits so long for a greeting, for each message after it and for each half megabyte of weights, and for
#: all other workers of its cluster together to connect (``--handshake-timeout``).
HANDSHAKE = 60.0

#: A worker whose peer closed the link between forwards waits so long for the root to end the session: at a regular
#: end they close in any order.
HANG_UP = 0.5

#: A worker whose root has closed its connection works on for so long at preparing or at a forward, before it gives
#: up between two ops: a root may say everything first, and then listen.
ABANDONED = 2.0

#: Connections from addresses that are not in the root's list wait so long for ones that are.
UNLISTED = 2.0

#: A worker that cannot go on has so long to send its reason; beside it, the next session may already begin.
FAREWELL = 1.0

#: After it a worker drops for so long what the root still sends, so that closing does not destroy the reason.
FAREWELL_DRAIN = 2.0

#: Who connects during a session has so long to greet, and is then told that the worker serves another root.
LATE_GREETING = 2.0

# The root -------------------------------------------------------------------------------------------

#: The root waits so long for a worker to accept a connection. A wrong address must be told soon.
DIAL = 5.0

#: The root tries for so long to connect to a worker that is not there yet; 0 ends it at once (``--wait``).
WAIT = 0.0

#: When a worker is lost before all are ready, the root looks for so long whether another one says why.
REFUSAL = 0.5

#: The root waits so long for a worker to answer its greeting.
GREETING = 5.0

#: The root waits so long for a worker to join the others, and as long again for it to prepare for its part of the
#: model; a worker has :data:`HANDSHAKE` for each.
CONFIGURE = 120.0

#: The root tries for so long to connect again to a lost worker; 0 ends the session at once (``--reconnect``).
RECONNECT = 0.0

#: After measuring (``--split auto``) the root waits so long for a worker to listen again: C++ workers stop to, for
#: a moment, between two sessions.
LISTEN_AGAIN = 10.0

#: Measuring waits so long for the next mark of any worker.
PROBE = 60.0

#: The root waits so long for a local worker to start on a slow machine.
LOCAL_START = 60.0

#: The root waits so long for a local worker to end when asked; then the worker is killed.
LOCAL_END = 5.0

#: A model's chat template may take so long to write a conversation, in a process of its own; then it is ended.
TEMPLATE = 5.0

# Beside a session -----------------------------------------------------------------------------------

#: ``dllama-worker doctor`` waits so long for an echo, or with ``--connect`` for a connection.
DOCTOR_PEER = 15.0

#: A client of ``/metrics`` and ``/healthz`` has so long in all, from its connection to the end of the answer.
METRICS_REQUEST = 10.0

#: Fetching a model in a wheel takes so long at most.
DOWNLOAD = 1800.0

#: ``dllama-proto tap`` waits so long for the node behind it to accept a connection.
TAP_DIAL = 10.0
