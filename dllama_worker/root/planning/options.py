"""Everything ``dllama-root plan`` can be told, and its arguments."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from dllama_proto.command_line import at_least, between, not_negative
from dllama_proto.limits import DEFAULT_LIMITS
from dllama_worker.arguments import argument
from dllama_worker.errors import UsageError
from dllama_worker.root.arguments import add_split_arguments, split_of
from dllama_worker.root.planning.links import LINKS, LinkSpeed, parse_link
from dllama_worker.sharding.split import Split, for_each_node, parse_numbers

__all__ = ["PlanOptions", "add_plan_arguments", "plan_options"]

#: 10^9 bytes of weights a second: a PC with two channels of memory does a few times that, a small board less.
_DEFAULT_SPEED = 10.0
#: GB/s, of any machine there was or will be: between them every time is a number that can be printed.
_MIN_SPEED, _MAX_SPEED = 1e-6, 1e9


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What to plan.

    ``model`` is a file or a preset's name (with ``weights``, f32 or q40). ``speeds`` are bytes of weights a
    second, ``memory`` bytes; both one for each node, or one for all.
    """

    model: str
    weights: str
    n_nodes: int
    split: Split
    link: LinkSpeed
    speeds: tuple[float, ...]
    memory: tuple[int, ...] | None = None
    max_seq_len: int = 0
    as_json: bool = False


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``plan``."""
    add = parser.add_argument
    add(
        "--model",
        required=True,
        metavar="PATH|PRESET",
        help=".m or .gguf file, Hugging Face folder, or the name of a known shape (any other name lists them)",
    )
    add(
        "--weight-float-type",
        choices=("f32", "q40"),
        default="q40",
        help="type of the weights of a known model (default: q40)",
    )
    add(
        "--nodes",
        type=between(1, DEFAULT_LIMITS.n_sockets + 1),
        metavar="N",
        help="number of nodes, the root included (default: those of --split)",
    )
    add_split_arguments(add, "auto splits by --speed and --memory")
    add(
        "--speed",
        type=argument(_parse_speeds),
        default=(_DEFAULT_SPEED,),
        metavar="GB/S[:…]",
        help="GB of weights that a node reads in a second, one number for all or one for each "
        f"(default: {_DEFAULT_SPEED:g}); dllama-ops bench measures it",
    )
    add(
        "--link",
        type=argument(parse_link),
        default=LINKS["1gbe"],
        metavar="NAME|MBIT/S",
        help=f"speed of the network: {', '.join(LINKS)} or Mbit/s (default: 1gbe)",
    )
    add(
        "--latency",
        type=not_negative,
        metavar="MS",
        help="milliseconds from sending to receiving, half of what ping shows (default: that of the link)",
    )
    add(
        "--max-seq-len",
        type=at_least(0),
        default=0,
        metavar="N",
        help="limit the context to N tokens (default: the model's)",
    )
    add("--json", action="store_true", dest="as_json", help="print one JSON object instead of tables")


def _parse_speeds(text: str) -> tuple[float, ...]:
    """Read how fast nodes are. Raises ValueError: what reads nothing takes for ever."""
    speeds = parse_numbers(text)
    if not all(_MIN_SPEED <= speed <= _MAX_SPEED for speed in speeds):
        raise ValueError(f"expected GB/s from {_MIN_SPEED:g} to {_MAX_SPEED:g} for each node, got {text!r}")
    return speeds


def plan_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> PlanOptions:
    """Turn the arguments into options; ends the program where they contradict each other."""
    split = split_of(parser, arguments)
    n_nodes = arguments.nodes or len(split.weights or ())
    if n_nodes < 1:
        parser.error("--nodes N says how many nodes there are; --split W:W:… does as well")
    link = arguments.link.with_latency(None if arguments.latency is None else arguments.latency / 1000)
    memory: tuple[int, ...] | None = arguments.memory
    try:
        speeds = for_each_node("--speed", arguments.speed, n_nodes)
        memory = None if memory is None else for_each_node("--memory", memory, n_nodes)
    except UsageError as error:
        parser.error(str(error))
    return PlanOptions(
        model=arguments.model,
        weights=arguments.weight_float_type,
        n_nodes=n_nodes,
        split=split,
        link=link,
        speeds=tuple(1e9 * speed for speed in speeds),
        memory=memory,
        max_seq_len=arguments.max_seq_len,
        as_json=arguments.as_json,
    )
