"""The command ``dllama-model``: flags are read, then a subcommand is run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dllama_proto.command_line import CommandParser, at_least, file_path
from dllama_proto.exit_codes import run_command
from dllama_proto.version import VersionAction
from dllama_worker.model.open_options import OpenOptions, WeightChoice

__all__ = ["main", "make_parser"]

_NAME = "dllama-model"
_MODEL_HELP = ".m or .gguf file, Hugging Face folder, hf:ORG/REPO[:FILE], or a known name"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; the documentation's help text comes from it too."""
    parser = CommandParser(
        prog=_NAME, description="Look at models of any format, fetch, convert and compare them."
    )
    parser.add_argument("--version", action=VersionAction)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    inspect = commands.add_parser(
        "inspect",
        help="what a model is: shape, tensors, tokens, memory per node",
        description="Show what a model is.",
    )
    inspect.add_argument("model", type=file_path, metavar="MODEL", help=_MODEL_HELP)
    inspect.add_argument(
        "--json", action="store_true", dest="as_json", help="print one JSON object instead of text"
    )
    convert = commands.add_parser(
        "convert",
        help="write a .m file, which the C++ root can run",
        description="Write a model as a .m file, and its tokenizer as a .t file.",
    )
    convert.add_argument("model", type=file_path, metavar="MODEL", help=_MODEL_HELP)
    convert.add_argument("target", type=file_path, metavar="TARGET.m", help="the file to write")
    convert.add_argument(
        "--tokenizer", type=file_path, metavar="TARGET.t", help="write the model's tokenizer, too"
    )
    pull = commands.add_parser(
        "pull",
        help="fetch a model into the cache, and print its path",
        description="Fetch a model into the cache, unless it is there, and print its path.",
    )
    pull.add_argument("model", type=file_path, metavar="MODEL", help="hf:ORG/REPO[:FILE], or a known name")
    verify = commands.add_parser(
        "verify",
        help="how far two models are from each other, tensor by tensor and in their logits",
        description="Compare two models of one shape: tensor by tensor, and in the logits of some tokens.",
    )
    for name in ("first", "second"):
        verify.add_argument(name, type=file_path, metavar=name.upper(), help=_MODEL_HELP)
    verify.add_argument(
        "--tokens",
        type=at_least(1),
        default=64,
        metavar="N",
        help="how many tokens are evaluated (default: 64)",
    )
    for command in (inspect, convert, verify):
        command.add_argument(
            "--weights",
            type=WeightChoice,
            choices=tuple(WeightChoice),
            default=WeightChoice.AUTO,
            help="what the weights of a model that is no .m file become (default: by how they are stored)",
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_NAME, lambda: _run(make_parser().parse_args(argv)))


def _run(arguments: argparse.Namespace) -> int:
    # Only now: NumPy is heavy, and --help should answer at once.
    from dllama_worker.model_cli.convert import convert_model
    from dllama_worker.model_cli.inspect import inspect_model
    from dllama_worker.model_cli.pull import pull_model
    from dllama_worker.model_cli.verify import verify_models

    if arguments.command == "pull":
        return pull_model(arguments.model)
    options = OpenOptions(weights=arguments.weights)
    if arguments.command == "inspect":
        return inspect_model(arguments.model, options, as_json=arguments.as_json)
    if arguments.command == "convert":
        return convert_model(arguments.model, arguments.target, arguments.tokenizer, arguments.weights)
    return verify_models(arguments.first, arguments.second, options, arguments.tokens)
