"""Rows between nodes: everything a sync sends and receives goes out and comes in at the same time.

C++ nodes write all, then read all, which works while socket buffers hold a batch. Here whatever cannot be
sent at once is sent while reading, so two nodes never wait for each other. Rows are gathered from and
scattered into the pipe in place; the rows of a batch travel in one system call. What moves when is planned here;
the link moves it.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from time import perf_counter

from dllama_worker.node.transport import Link

__all__ = ["Exchange", "Lane"]

#: How long a sync looks for what is to come before it sleeps, because waking up costs a good part of that. A peer
#: that keeps this node waiting for longer is not worth a core: each sleep halves the time, each catch restores it.
_SPIN_SECONDS = 0.0003
_MIN_SPIN_SECONDS = 0.00002


class Lane:
    """The same columns of each row of a pipe, on their way over one link.

    ``pipe`` is the pipe's memory; row i's bytes are ``[i * row_bytes + start : … + size]``.
    """

    def __init__(self, link: Link, pipe: memoryview, row_bytes: int, start: int, size: int) -> None:
        self.link = link
        self.size = size
        self._whole = pipe if size == row_bytes else None
        self._rows = [
            pipe[row + start : row + start + size] for row in range(0, len(pipe) - row_bytes + 1, row_bytes)
        ]

    def buffers(self, batch_size: int) -> list[memoryview]:
        """Return the memory of the first ``batch_size`` rows, in as few pieces as possible."""
        if self._whole is not None:
            return [self._whole[: batch_size * self.size]]
        return self._rows[:batch_size]


class _LaneProgress:
    """How far one lane has come in one exchange: ``left`` bytes have yet to go or come, and where they lie."""

    def __init__(self, lane: Lane, batch_size: int) -> None:
        self.link = lane.link
        self.left = lane.size * batch_size
        self._buffers = lane.buffers(batch_size)

    def send_some(self) -> None:
        """Send what the socket takes now. Raises PeerLost."""
        self._advance(self.link.send_some(self._buffers))

    def receive_some(self, *, wait: bool) -> None:
        """Receive what is there, or wait for what is left. Raises PeerLost, also where the peer stalls."""
        self._advance(self.link.receive_some(self._buffers, wait=wait))

    def _advance(self, n: int) -> None:
        self.left -= n
        if not self.left:
            return
        done = 0
        while n and n >= len(self._buffers[done]):
            n -= len(self._buffers[done])
            done += 1
        if done:
            self._buffers = self._buffers[done:]
        if n:
            self._buffers[0] = self._buffers[0][n:]


class Exchange:
    """One sync: what goes out and what comes in, by lane."""

    def __init__(self, sends: Sequence[Lane], receives: Sequence[Lane]) -> None:
        self._sends = sends
        self._receives = receives
        self._spin_seconds = _SPIN_SECONDS

    def run(self, batch_size: int) -> None:
        """Exchange the first ``batch_size`` rows. Raises PeerLost."""
        outgoing = []
        for lane in self._sends:
            progress = _LaneProgress(lane, batch_size)
            progress.send_some()
            if progress.left:
                outgoing.append(progress)
        incoming = [_LaneProgress(lane, batch_size) for lane in self._receives]
        if outgoing:
            _both_ways(outgoing, incoming)
        # Everything of ours is out: nobody can be waiting for us, so each may be waited for in turn.
        if not incoming:
            return
        deadline = perf_counter() + self._spin_seconds
        slept = False
        for progress in incoming:
            while progress.left and perf_counter() < deadline:
                progress.receive_some(wait=False)
            while progress.left:
                slept = True
                progress.receive_some(wait=True)
        self._spin_seconds = max(self._spin_seconds / 2, _MIN_SPIN_SECONDS) if slept else _SPIN_SECONDS


def _both_ways(outgoing: list[_LaneProgress], incoming: list[_LaneProgress]) -> None:
    """Send and receive as sockets allow until everything is sent."""
    senders = {progress.link.fileno(): progress for progress in outgoing}
    receivers = {progress.link.fileno(): progress for progress in incoming}
    poller = select.poll()
    for fd in senders.keys() | receivers.keys():
        poller.register(fd, _interest(fd in senders, fd in receivers))
    timeout = outgoing[0].link.stall_timeout
    while senders:
        ready = poller.poll(None if timeout is None else timeout * 1000)
        if not ready:
            late = next(iter(senders.values()))
            raise late.link.stalled(late.left)
        for fd, events in ready:
            if fd in receivers and events & ~select.POLLOUT:
                receivers[fd].receive_some(wait=False)
                if not receivers[fd].left:
                    del receivers[fd]
            # An error or hang-up is reported by the send itself, in words.
            if fd in senders and (events & ~select.POLLIN or fd not in receivers):
                senders[fd].send_some()
                if not senders[fd].left:
                    del senders[fd]
            if fd in senders or fd in receivers:
                poller.modify(fd, _interest(fd in senders, fd in receivers))
            else:
                poller.unregister(fd)


def _interest(sending: bool, receiving: bool) -> int:
    return (select.POLLOUT if sending else 0) | (select.POLLIN if receiving else 0)
