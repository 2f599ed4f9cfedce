"""How the words of a command line become values; what is wrong with one is told in its own words."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from dllama_proto.endpoint import Endpoint, parse_host, repeated

__all__ = [
    "EachOnce",
    "argument",
    "at_least",
    "endpoint",
    "host",
    "network",
    "not_negative",
    "parse_size",
    "port",
    "seconds",
    "size",
]

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)([KMGT]?)B?")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a reader of arguments whose ValueError is shown in its own words."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


class EachOnce(argparse.Action):
    """Stores endpoints, and refuses one that is there twice, in whatever way it is written."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store them. Raises ArgumentError."""
        twice = repeated(values)
        if twice is not None:
            raise argparse.ArgumentError(self, f"{twice} is there twice: name each once")
        setattr(namespace, self.dest, values)


def at_least(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from ``least`` on."""

    def parse(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected {least} or more, got {value}")
        return value

    parse.__name__ = "whole number"
    return parse


def not_negative(text: str) -> float:
    """Read a finite number of 0 or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {value:g}")
    return value


def seconds(text: str) -> float:
    """Read how long to wait: more than nothing, less than eleven days."""
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0, got {text}")
    return value


def port(text: str) -> int:
    """Read a port, 0 for any."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, got {value}")
    return value


def network(text: str) -> IPv4Network | IPv6Network:
    """Read an address or a network in CIDR notation."""
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
