"""Why a session ends, told to its root where an ack would come next; nobody waits for it.

A root that reads nothing costs one thread for a few seconds, and the worker serves the next root meanwhile.
"""

from __future__ import annotations

import threading
import time

from dllama_proto.bounded_text import shortened
from dllama_proto.exit_codes import error_text
from dllama_proto.messages import Refusal
from dllama_proto.printable import printable
from dllama_worker import timeouts
from dllama_worker.errors import PeerLost
from dllama_worker.node.channel import Channel

__all__ = ["Farewells", "refusal"]

#: More roots than these are not told at the same time.
_MAX_THREADS = 4

#: Letters of a reason: a person reads it, and no root must hold more than its limit.
_MAX_LENGTH = 1000


def refusal(text: str) -> Refusal:
    """Return a refusal with this reason, in one line of bounded length."""
    return Refusal(shortened(printable(shortened(text, _MAX_LENGTH)), _MAX_LENGTH))


class Farewells:
    """Sends reasons to roots, each in a thread of its own."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def say(self, channel: Channel, error: BaseException) -> bool:
        """Tell a root why its session ends and close the link; return whether that is taken over.

        It is not where no ack comes next, where too many are told already, and where another node hung up: that
        one knows why.
        """
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if not channel.connection.may_refuse or len(self._threads) >= _MAX_THREADS:
            return False
        if isinstance(error, PeerLost) and error.hung_up:
            return False
        data = bytes(channel.connection.send(refusal(error_text(error))))
        arguments = (data, timeouts.FAREWELL, timeouts.FAREWELL_DRAIN)
        thread = threading.Thread(
            target=channel.link.close_after, args=arguments, name="farewell", daemon=True
        )
        thread.start()
        self._threads.append(thread)
        return True

    def close(self) -> None:
        """Wait for those that are still being said: the process is about to end."""
        deadline = time.monotonic() + timeouts.FAREWELL + timeouts.FAREWELL_DRAIN
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
