"""Rows between nodes: everything a sync sends and receives goes out and comes in at the same time.

C++ nodes write all, then read all, which works while socket buffers hold a batch. Here whatever cannot be
sent at once is sent while reading, so two nodes never wait for each other. Rows are gathered from and
scattered into the pipe in place; the rows of a batch travel in one system call.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from time import perf_counter

from dllama_worker.errors import PeerLost
from dllama_worker.node.transport import Link, lost

__all__ = ["Exchange", "Lane"]

#: Buffers a system call takes at most (POSIX guarantees 16, Linux and macOS take 1024).
_IOV_MAX = 1024


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


class _Transfer:
    """How far one lane has come in one exchange."""

    def __init__(self, lane: Lane, batch_size: int) -> None:
        self.link = lane.link
        self.buffers = lane.buffers(batch_size)
        self.left = lane.size * batch_size

    def send_some(self) -> None:
        """Send what the socket takes now. Raises PeerLost."""
        try:
            n = self.link.sock.sendmsg(self.buffers[:_IOV_MAX], (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            raise lost(self.link.name, error) from error
        self.link.sent_bytes += n
        self._advance(n)

    def receive_some(self, flags: int) -> None:
        """Receive what there is; with MSG_WAITALL, everything. Raises PeerLost, also where a peer stalls."""
        try:
            n = self.link.sock.recvmsg_into(self.buffers[:_IOV_MAX], 0, flags)[0]
        except BlockingIOError:
            if flags & socket.MSG_DONTWAIT:
                return
            raise _stalled(self) from None
        except OSError as error:
            raise lost(self.link.name, error) from error
        if n == 0:
            raise PeerLost(self.link.name, f"closed the connection with {self.left} bytes still to come")
        self.link.received_bytes += n
        self._advance(n)

    def _advance(self, n: int) -> None:
        self.left -= n
        done = 0
        while done < len(self.buffers) and n >= len(self.buffers[done]):
            n -= len(self.buffers[done])
            done += 1
        self.buffers = self.buffers[done:]
        if n:
            self.buffers[0] = self.buffers[0][n:]


def _stalled(transfer: _Transfer) -> PeerLost:
    link = transfer.link
    return PeerLost(
        link.name, f"stalled for {link.stall_timeout:g} s with {transfer.left} bytes of a sync to go"
    )


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
            transfer = _Transfer(lane, batch_size)
            transfer.send_some()
            if transfer.left:
                outgoing.append(transfer)
        incoming = [_Transfer(lane, batch_size) for lane in self._receives]
        if outgoing:
            _both_ways(outgoing, incoming)
        # Everything of ours is out: nobody can be waiting for us, so each may be waited for in turn.
        if not incoming:
            return
        deadline = perf_counter() + self._spin_seconds
        slept = False
        for transfer in incoming:
            while transfer.left and perf_counter() < deadline:
                transfer.receive_some(socket.MSG_DONTWAIT)
            while transfer.left:
                slept = True
                transfer.receive_some(socket.MSG_WAITALL)
        self._spin_seconds = max(self._spin_seconds / 2, _MIN_SPIN_SECONDS) if slept else _SPIN_SECONDS


def _both_ways(outgoing: list[_Transfer], incoming: list[_Transfer]) -> None:
    """Send and receive as sockets allow until everything is sent."""
    senders = {transfer.link.sock.fileno(): transfer for transfer in outgoing}
    receivers = {transfer.link.sock.fileno(): transfer for transfer in incoming}
    poller = select.poll()
    for fd in senders.keys() | receivers.keys():
        poller.register(fd, _interest(fd in senders, fd in receivers))
    patience = outgoing[0].link.stall_timeout
    while senders:
        ready = poller.poll(None if patience is None else patience * 1000)
        if not ready:
            raise _stalled(next(iter(senders.values())))
        for fd, events in ready:
            if fd in receivers and events & ~select.POLLOUT:
                receivers[fd].receive_some(socket.MSG_DONTWAIT)
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
