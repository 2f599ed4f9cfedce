"""A cable between two network interfaces, in user space: packets are lost, delayed and reordered as one likes.

``tc netem`` does the same in the kernel, where the kernel has it. Here every IP packet goes from one tun device to
the other through a thread.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import select
import struct
import threading
import time
from random import Random

__all__ = ["Cable"]

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_MAX_BYTES = 65_536


def _open_device(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError:
        os.close(fd)
        raise
    return fd


class Cable:
    """Two devices of these names, connected. ``loss`` is a share; ``delay`` and ``jitter`` are seconds.

    With jitter packets overtake each other. Raises OSError where tun devices are not allowed.
    """

    def __init__(self, one: str, other: str) -> None:
        self.loss = self.delay = self.jitter = 0.0
        self.n_lost = self.n_carried = 0
        self._random = Random(1)
        self._ends = [_open_device(one), _open_device(other)]
        self._ended, self._end = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="cable", daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        under_way: list[tuple[float, int, int, bytes]] = []
        number = 0
        poll = select.poll()
        for fd in (*self._ends, self._ended):
            poll.register(fd, select.POLLIN)
        while True:
            timeout = None if not under_way else max(0.0, under_way[0][0] - time.monotonic()) * 1000
            for fd, _ in poll.poll(timeout):
                if fd == self._ended:
                    return
                packet = self._read(fd)
                if not packet:
                    continue
                if self._random.random() < self.loss:
                    self.n_lost += 1
                    continue
                number += 1
                due = time.monotonic() + self.delay + self.jitter * self._random.uniform(-1, 1)
                target = self._ends[fd == self._ends[0]]
                heapq.heappush(under_way, (due, number, target, packet))
            while under_way and under_way[0][0] <= time.monotonic():
                _, _, target, packet = heapq.heappop(under_way)
                self.n_carried += 1
                try:
                    os.write(target, packet)
                except OSError:  # the device is not up yet, or its queue is full: lost, as on any cable
                    self.n_lost += 1

    @staticmethod
    def _read(fd: int) -> bytes:
        try:
            return os.read(fd, _MAX_BYTES)
        except OSError:
            return b""

    def close(self) -> None:
        """Remove both devices."""
        os.write(self._end, b"\0")
        self._thread.join()
        for fd in (*self._ends, self._ended, self._end):
            os.close(fd)
