"""Where a node listens or dials from: a host and a port, read and written in one way everywhere.

IPv6 addresses stand in brackets, ``[fe80::1]:9990``, as in URLs (RFC 3986, section 3.2.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any

from dllama_proto.printable import printable

__all__ = ["Endpoint", "parse_host", "repeated"]

_MAX_PORT = 65_535

#: What stands for a port that somebody left out, in advice: that of the C++ program.
_USUAL_PORT = 9990

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)

#: What follows host and port in a URL.
_PATH = re.compile(r"[/?#].*")

#: No host has them; some stand between two hosts, the others around one.
_NOT_IN_HOSTS = re.compile(r"[\s,;/@?#\[\]\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a connection, or where somebody listens.

    Nothing is checked here: a port that came over the wire may be any number. :meth:`parse` checks.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        default_host: str | None = None,
        default_port: int | None = None,
        any_port: bool = False,
    ) -> Endpoint:
        """Read ``HOST:PORT``, an IPv6 address in brackets; what is left out is taken from the defaults.

        ``any_port`` allows port 0, which a listener may have. Raises ValueError, which says what to write instead.
        """
        _check_form(text)
        host, port = _split(text)
        if port is None:
            if default_port is None:
                raise _wrong(text, f"add the port, as {cls(host or 'HOST', _USUAL_PORT)}")
            number = default_port
        else:
            number = _port(text, port, 0 if any_port else 1)
        if not host:
            if default_host is None:
                raise _wrong(text, f"add the host, as 127.0.0.1:{number}")
            host = default_host
        return cls(host, number)

    @classmethod
    def of_socket(cls, address: Any) -> Endpoint:
        """Return what ``getsockname``, ``getpeername`` or ``accept`` said, without the zone of an IPv6 address."""
        return cls(str(address[0]).partition("%")[0], int(address[1]))

    @property
    def key(self) -> tuple[str, int]:
        """The same for two ways to write one endpoint: ``Node.lan`` and ``node.lan.``, ``::1`` and ``0:0::1``."""
        try:
            return str(ip_address(self.host)), self.port
        except ValueError:
            return self.host.casefold().removesuffix("."), self.port


def repeated(endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """Return the first endpoint that was there before, written in whatever way; None where all differ."""
    seen = set()
    for endpoint in endpoints:
        if endpoint.key in seen:
            return endpoint
        seen.add(endpoint.key)
    return None


def parse_host(text: str) -> str:
    """Read a host alone, an IPv6 address with brackets or without. Raises ValueError."""
    if "," in text:
        raise ValueError(
            f"expected one host, got {text!r}: 0.0.0.0 stands for all addresses of this machine"
        )
    scheme = _SCHEME.match(text)
    if scheme:
        bare = _PATH.sub("", text[scheme.end() :])
        raise ValueError(f"expected a host, got {text!r}: leave out {scheme[0]}: {printable(bare)}")
    host = _without_brackets(text)
    if _is_ipv6(host):
        return host
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit():
        advice = f"write {printable(_without_brackets(host))}, and {port} with the flag of the port"
        raise ValueError(f"expected a host without a port, got {text!r}: {advice}")
    if not _is_name(text):
        raise ValueError(f"expected a host, got {text!r}")
    return text


def _without_brackets(host: str) -> str:
    return host.removeprefix("[").removesuffix("]")


def _check_form(text: str) -> None:
    """Tell apart what people write instead of an endpoint: lists, URLs."""
    if "," in text or len(text.split()) > 1:
        words = re.findall(r"[^\s,]+", text)
        advice = printable(" ".join(words))
        raise ValueError(f"expected one HOST:PORT, got {text!r}: separate workers by spaces: {advice}")
    scheme = _SCHEME.match(text)
    address = text[scheme.end() :] if scheme else text
    path = _PATH.search(address)
    if scheme or path:
        extra = " and ".join(found[0] for found in (scheme, path) if found)
        bare = _PATH.sub("", address)
        try:
            bare = str(Endpoint.parse(bare, default_host="HOST", default_port=_USUAL_PORT))
        except ValueError:
            raise _wrong(text, f"leave out {extra}") from None
        raise _wrong(text, f"leave out {extra}: {bare}")


def _split(text: str) -> tuple[str, str | None]:
    """Return host and port, either of which may be missing."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _wrong(text, f"an IPv6 address stands in brackets, as [::1]:{_USUAL_PORT}")
        if not _is_ipv6(host):
            advice = (
                f"leave out the brackets: {host}{rest}"
                if _is_name(host)
                else f"{host!r} is no IPv6 address"
            )
            raise _wrong(text, advice)
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        head, _, tail = text.rpartition(":")
        if _is_ipv6(head) and tail.isdecimal():
            raise _wrong(text, f"put the IPv6 address in brackets: [{head}]:{tail}")
        if _is_ipv6(text):
            raise _wrong(text, f"put the IPv6 address in brackets: [{text}]:{_USUAL_PORT}")
        raise _wrong(text, "it has more than one colon")
    host, colon, port = text.partition(":")
    if host and not _is_name(host):
        raise _wrong(text, f"{host!r} is no host")
    return host, port if colon else None


def _port(text: str, port: str, min_port: int) -> int:
    if port.isascii() and port.isdigit() and len(port) <= len(str(_MAX_PORT)):
        number = int(port)
        if min_port <= number <= _MAX_PORT:
            return number
    raise _wrong(text, f"the port is a number from {min_port} to {_MAX_PORT}")


def _wrong(text: str, advice: str) -> ValueError:
    return ValueError(f"expected HOST:PORT, got {text!r}: {printable(advice)}")


def _is_ipv6(text: str) -> bool:
    try:
        return isinstance(ip_address(text), IPv6Address)
    except ValueError:
        return False


def _is_name(text: str) -> bool:
    """Tell whether sockets take it for the name of a host, or an IPv4 address; there may be none of that name."""
    if ":" in text or not text.isprintable() or _NOT_IN_HOSTS.search(text):
        return False
    try:
        return bool(text.encode("idna"))
    except UnicodeError:
        return False
