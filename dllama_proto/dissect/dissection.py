"""From a capture to events: packets, segments, streams, links, in one pass and bounded memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dllama_proto.dissect.account import Account
from dllama_proto.dissect.capture import Problem, read_packets
from dllama_proto.dissect.events import HOW_TO_RECORD, Stream, WireEvent
from dllama_proto.dissect.frames import tcp_segment
from dllama_proto.dissect.link_finder import LinkFinder
from dllama_proto.dissect.session import Session
from dllama_proto.dissect.tcp import Conversation, Direction, TcpStreams
from dllama_proto.endpoint import Endpoint
from dllama_proto.formatting import counted

__all__ = ["Dissection", "Totals", "dissect_pcap"]


@dataclass(frozen=True, slots=True)
class Totals:
    """What became of everything in a capture; bytes are those of TCP payloads of sessions."""

    packets: int
    #: Packets that are not TCP, or not whole enough to tell.
    other_packets: int
    connections: int
    #: Connections of other programs.
    foreign_connections: int
    sessions: int
    explained_bytes: int
    missing_bytes: int
    unexplained_bytes: int
    retransmitted_bytes: int


class Dissection:
    """A capture being dissected: iterate over it, once; then :attr:`totals` and :attr:`streams` tell of all."""

    def __init__(self, source: str | Path | BinaryIO) -> None:
        self._source = source
        self.name = "standard input" if source == "-" else str(getattr(source, "name", source))
        self._events: list[WireEvent] = []
        self._account = Account(self._events.append)
        self._links = LinkFinder(self._account)
        self._conversations: list[Conversation] = []
        self._by_connection: dict[tuple[int, Endpoint], Stream] = {}
        self._n_packets = self._n_other = 0
        self._time = 0

    @property
    def sessions(self) -> list[Session]:
        """The sessions found so far."""
        return self._links.sessions

    @property
    def streams(self) -> list[Stream]:
        """Both directions of every connection that belongs to a session, or may."""
        return self._links.streams

    @property
    def totals(self) -> Totals:
        """What became of everything so far."""
        streams = self.streams
        ours = {stream.connection for stream in streams}
        foreign = [c for c in self._conversations if c.number not in ours]
        return Totals(
            packets=self._n_packets,
            other_packets=self._n_other,
            connections=len(self._conversations),
            foreign_connections=len(foreign),
            sessions=len(self.sessions),
            explained_bytes=sum(stream.explained for stream in streams),
            missing_bytes=sum(stream.missing for stream in streams),
            unexplained_bytes=sum(stream.unexplained for stream in streams),
            retransmitted_bytes=sum(
                direction.retransmitted_bytes
                for c in self._conversations
                if c.number in ours
                for direction in (c.dialler, c.listener)
            ),
        )

    def __iter__(self) -> Iterator[WireEvent]:
        """Yield event after event. Raises CaptureError where the file is no capture, and OSError."""
        with ExitStack() as stack:
            if self._source == "-":
                file: BinaryIO = sys.stdin.buffer
            elif isinstance(self._source, str | Path):
                file = stack.enter_context(open(self._source, "rb"))
            else:
                file = self._source
            yield from self._packets(file)

    def _packets(self, file: BinaryIO) -> Iterator[WireEvent]:
        events, advance_peer_links = self._events, self._links.advance_peer_links
        streams = TcpStreams(self._opened, self._conflict)
        add = streams.add
        is_cut = False
        for time, link_type, data, size in read_packets(file, self.name, self._problem):
            self._n_packets += 1
            segment = tcp_segment(link_type, data, size)
            if not is_cut and len(data) < size:
                is_cut = True
                self._time = time
                self._cut(len(data), size)
            if segment is None:
                self._n_other += 1
                continue
            self._time = time
            add(time, segment)
            if events:
                advance_peer_links()
                yield from events
                events.clear()
        streams.finish(self._time)
        self._links.finish()
        yield from events
        events.clear()

    def _cut(self, kept: int, size: int) -> None:
        self._notice(
            None,
            f"{self.name}: a packet of {size} bytes was cut to {kept}, perhaps others too: the snap length was "
            f"too small; {HOW_TO_RECORD}",
        )

    def _opened(self, conversation: Conversation) -> None:
        self._conversations.append(conversation)
        self._links.open(conversation)

    def _problem(self, problem: Problem) -> None:
        self._notice(None, f"{self.name}, byte {problem.offset}: {problem.text}")

    def _conflict(self, time: int, direction: Direction, offset: int, size: int) -> None:
        for known in self.streams[len(self._by_connection) :]:
            self._by_connection[known.connection, known.source] = known
        end = Endpoint(direction.source, direction.source_port)
        stream = self._by_connection.get((direction.conversation.number, end))
        if stream is not None:
            text = f"{counted(size, 'byte')} from byte {offset} on: sent twice, with different content"
            self._notice(stream, text)

    def _notice(self, stream: Stream | None, text: str) -> None:
        self._account.notice(self._time, stream, text)


def dissect_pcap(source: str | Path | BinaryIO) -> Dissection:
    """Return the dissection of a capture: a path, ``"-"`` for standard input, or an open binary file.

    Iterating over it reads the capture (pcap or pcapng, also gzipped) and yields
    :class:`~dllama_proto.dissect.events.WireEvent` after event. Iterating raises CaptureError where the file
    is no capture, and OSError where it cannot be read; what is wrong further on is reported by events.
    """
    return Dissection(source)
