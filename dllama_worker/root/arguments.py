"""How arguments are read that several commands of ``dllama-root`` share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dllama_worker.root.split import EVEN, Split, parse_memory, parse_split

__all__ = ["add_split_arguments", "argument", "at_least", "not_negative", "split_of"]


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a reader of arguments whose ValueError is shown in its own words."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


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


def add_split_arguments(add: Callable[..., argparse.Action], how_auto: str) -> None:
    """Add who gets how much; ``how_auto`` says what ``auto`` does."""
    add(
        "--split",
        type=argument(parse_split),
        default=EVEN,
        metavar="even|auto|W:W:…",
        help=f"who gets how much of the model: a weight for each node, the root first; {how_auto} (default: even)",
    )
    add(
        "--root-share",
        type=not_negative,
        metavar="W",
        help="weight of the root beside 1 for each worker; with 0 it only embeds, takes its part of the logits "
        "and samples (default: 1)",
    )
    add(
        "--memory",
        type=argument(parse_memory),
        metavar="BYTES[:…]",
        help="memory of all nodes, or of each, the root first, as 8G:4G; auto heeds it, other splits are checked "
        "against it",
    )


def split_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Split:
    """Return the split that was asked for; ends the program where its arguments contradict each other."""
    split: Split = arguments.split
    if arguments.root_share is None:
        return split
    if split.weights is not None:
        parser.error(
            "--root-share goes with an even or auto split: in W:W:… the first weight is the root's"
        )
    return replace(split, root_share=arguments.root_share)
