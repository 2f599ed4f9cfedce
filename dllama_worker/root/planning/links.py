"""How fast links are: named kinds, or numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

__all__ = ["LINKS", "LinkSpeed", "parse_link"]


@dataclass(frozen=True, slots=True)
class LinkSpeed:
    """What links of a cluster do.

    ``bits_per_second`` each way for every node at a switch; with ``is_shared`` all nodes together have that
    much, as on one radio channel. ``latency`` is seconds from a node's send to the other's receive, for a
    small message; ``message_seconds`` what a node's own processor spends on sending or receiving one.
    """

    name: str
    bits_per_second: float
    latency: float
    is_shared: bool = False
    message_seconds: float = 10e-6

    def with_latency(self, latency: float | None) -> LinkSpeed:
        """Return the same link with another latency, if one is given."""
        return self if latency is None else replace(self, latency=latency)


#: Effective rates of TCP, and latencies between processes of two machines. On Wi-Fi a message from one
#: station to another goes through the air twice, so a channel of 600 Mbit/s delivers 300.
LINKS: Mapping[str, LinkSpeed] = MappingProxyType(
    {
        link.name: link
        for link in (
            LinkSpeed("1gbe", 0.94e9, 100e-6),
            LinkSpeed("2.5gbe", 2.35e9, 100e-6),
            LinkSpeed("10gbe", 9.4e9, 50e-6),
            LinkSpeed("wifi", 0.3e9, 1500e-6, is_shared=True),
        )
    }
)


def parse_link(text: str) -> LinkSpeed:
    """Read a name or a number of Mbit/s. Raises ValueError saying what is wrong."""
    if text in LINKS:
        return LINKS[text]
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise ValueError(f"expected {', '.join(LINKS)} or a number of Mbit/s, got {text!r}")
    return LinkSpeed(f"{rate:g} Mbit/s", rate * 1e6, LINKS["1gbe"].latency)
