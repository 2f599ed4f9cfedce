"""How the words of a command line become values; each says itself what is wrong with it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from dllama_proto.endpoint import Endpoint, parse_host, repeated

__all__ = [
    "EachOnce",
    "Extend",
    "argument",
    "endpoint",
    "host",
    "keepalive",
    "network",
    "parse_size",
    "patience",
    "port",
    "seconds",
    "size",
]

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)([KMGT]?)B?")
#: Of any wait: what every clock and socket of a system can be told.
_MAX_SECONDS = 1e6
#: MAX_TCP_KEEPIDLE of Linux (include/net/tcp.h).
_MAX_IDLE_SECONDS = 32767
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a reader of arguments whose ValueError is shown in its own words."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


class Extend(argparse.Action):
    """Stores a list. Given again, the flag adds to it; a default, or what a file of settings has, is replaced."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store the values. Raises ArgumentError where a subclass does."""
        stored = getattr(namespace, self.dest)
        setattr(namespace, self.dest, self.joined([] if stored is self.default else stored, values))

    def joined(self, stored: list[Any], values: list[Any]) -> list[Any]:
        """Return what is stored from now on."""
        return [*stored, *values]


class EachOnce(Extend):
    """Stores endpoints, and refuses one that is there twice, in whatever way it is written."""

    def joined(self, stored: list[Any], values: list[Any]) -> list[Any]:
        """Return all of them. Raises ArgumentError."""
        endpoints = super().joined(stored, values)
        twice = repeated(endpoints)
        if twice is not None:
            raise argparse.ArgumentError(self, f"{twice} is there twice: name each once")
        return endpoints


def patience(text: str) -> float:
    """Read how long to wait: less than eleven days, where 0 has a meaning of its own."""
    value = float(text)
    if not 0 <= value < _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"expected seconds, 0 to less than {_MAX_SECONDS:g}, got {text}")
    return value


def keepalive(text: str) -> float:
    """Read after how many idle seconds TCP asks: what Linux takes for TCP_KEEPIDLE."""
    value = float(text)
    if not 0 < value <= _MAX_IDLE_SECONDS:
        raise argparse.ArgumentTypeError(
            f"expected seconds, more than 0, at most {_MAX_IDLE_SECONDS}, got {text}"
        )
    return value


def seconds(text: str) -> float:
    """Read how long to wait: more than nothing, less than eleven days."""
    value = float(text)
    if not 0 < value < _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0, got {text}")
    return value


def port(text: str) -> int:
    """Read a port, 0 for any."""
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= len("65535") else -1
    if not 0 <= value <= 65535:
        hint = ": the host has a flag of its own" if ":" in text else ""
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, got {text}{hint}")
    return value


def network(text: str) -> IPv4Network | IPv6Network:
    """Read an address or a network in CIDR notation."""
    if "," in text:
        words = " ".join(re.findall(r"[^\s,]+", text))
        raise argparse.ArgumentTypeError(
            f"expected one network, got {text!r}: separate them by spaces: {words}"
        )
    try:
        return ip_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected an address or network like 192.168.1.0/24: {error}"
        ) from None


def parse_size(text: str) -> int:
    """Read bytes as ``8G``, ``1.5GB`` or ``500000000`` (decimal units). Raises ValueError."""
    match = _SIZE.fullmatch(text.strip().upper())
    value = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if value < 1:
        raise ValueError(f"expected a number of bytes like 8G or 500M, got {text!r}")
    return value


endpoint = argument(Endpoint.parse)
host = argument(parse_host)
size = argument(parse_size)
