"""The dialogue kit: the other side of a conversation, for tests of whoever speaks the protocol.

A :class:`Puppet` is a root or a worker that does what a script says, a list of :class:`Send`,
:class:`SendBytes`, :class:`Expect` and :class:`Close`, and raises :class:`ScriptError` where the other side
does something else. It has no socket of its own: give it yours, or let two talk in memory
(:func:`converse`)::

    script = [Send(Greeting(1, 0, ())), Expect(Ack), SendBytes(b"nonsense"), Expect(Closed)]
    with socket.create_connection(("127.0.0.1", 9990)) as sock:
        Puppet(Role.ROOT, script).run(sock.recv, sock.sendall)

Whole sessions need no script by hand: a dialogue (who says what) comes from the messages of a session
(:func:`session_dialogue`) or from the recorded bytes of both directions (:func:`replay`), and
:func:`puppet_root` and :func:`puppet_worker` take one side of it.
"""

from __future__ import annotations

from dllama_proto.testing.dialogue import Dialogue, Said, session_dialogue
from dllama_proto.testing.puppet import Puppet, ScriptError, converse, puppet_root, puppet_worker
from dllama_proto.testing.replay import (
    Cut,
    Replay,
    bytewise,
    bytewise_but_payload,
    in_random_pieces,
    just_as_wanted,
    replay,
    replay_peers,
    whole,
)
from dllama_proto.testing.script import Close, Expect, Send, SendBytes, Step, script_of

__all__ = [
    "Close",
    "Cut",
    "Dialogue",
    "Expect",
    "Puppet",
    "Replay",
    "Said",
    "ScriptError",
    "Send",
    "SendBytes",
    "Step",
    "bytewise",
    "bytewise_but_payload",
    "converse",
    "in_random_pieces",
    "just_as_wanted",
    "puppet_root",
    "puppet_worker",
    "replay",
    "replay_peers",
    "script_of",
    "session_dialogue",
    "whole",
]
