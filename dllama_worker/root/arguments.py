"""Arguments that several commands of ``dllama-root`` share: who gets how much."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

from dllama_proto.command_line import not_negative
from dllama_worker.arguments import argument
from dllama_worker.sharding.split import EVEN, Split, parse_memory, parse_split

__all__ = ["add_split_arguments", "split_of"]


def add_split_arguments(add: Callable[..., argparse.Action], how_auto: str) -> None:
    """Add who gets how much; ``how_auto`` says what ``auto`` does."""
    add(
        "--split",
        type=argument(parse_split),
        default=EVEN,
        metavar="even|auto|W:W:…",
        help=f"how to split the model: evenly, or by a weight for each node, the root first; {how_auto} "
        "(default: even)",
    )
    add(
        "--root-share",
        type=not_negative,
        metavar="W",
        help="weight of the root, where each worker has 1; with 0 the root computes no layers, only its part of "
        "the logits (default: 1)",
    )
    add(
        "--memory",
        type=argument(parse_memory),
        metavar="BYTES[:…]",
        help="memory of every node, or a list for all nodes, the root first, for example 8G:4G; auto "
        "stays within it, other splits are rejected if they do not fit",
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
