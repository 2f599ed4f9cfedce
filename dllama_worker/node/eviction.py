"""Who makes room where all places are taken: one of the network that holds the most of them.

So a flood of connections from one host crowds out only itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import TypeVar

__all__ = ["first_to_go", "network_of"]

_Waiting = TypeVar("_Waiting")

#: A host on IPv6 has as many addresses as it likes, all in one network of this size (RFC 4291, section 2.5.1).
_IPV6_PREFIX = 64


def first_to_go(
    waiting: Iterable[_Waiting], host: Callable[[_Waiting], str], has_begun: Callable[[_Waiting], bool]
) -> _Waiting:
    """Return the one who goes of those that wait, the oldest first, of whom there is at least one.

    It is of the network that holds the most places: of that network one who has sent nothing yet, before those
    who have begun; of these the oldest.
    """
    waiting = tuple(waiting)
    networks = [network_of(host(one)) for one in waiting]
    places = Counter(networks)
    crowd = max(places.values())
    of_crowds = [one for one, network in zip(waiting, networks, strict=True) if places[network] == crowd]
    return next((one for one in of_crowds if not has_begun(one)), of_crowds[0])


@lru_cache(maxsize=1024)
def network_of(host: str) -> str:
    """Return what counts as one host: an IPv4 address as it is, of IPv6 the network of 64 bits."""
    if ":" not in host:
        return host
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Network((int(address), _IPV6_PREFIX), strict=False))
    return host
