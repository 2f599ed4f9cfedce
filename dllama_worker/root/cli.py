"""The root's command line: arguments become :class:`RootOptions`; nothing is decided here."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dllama_worker import timeouts
from dllama_worker.arguments import EachOnce, at_least, endpoint, not_negative
from dllama_worker.logs import LOG_FORMATS, LOG_LEVELS, set_up_logging
from dllama_worker.node.library_threads import limit_library_threads
from dllama_worker.root.arguments import add_split_arguments, split_of
from dllama_worker.root.options import CHAT_TEMPLATES, RootOptions
from dllama_worker.root.planning.options import add_plan_arguments, plan_options

__all__ = ["main", "make_parser"]

_DESCRIPTION = """\
The root node of a Distributed-Llama cluster: reads the model, hands out slices, generates text.
Without --model it uses the small demo model that comes with this package."""

_EPILOG = """\
examples:
  dllama-root inference --prompt "ROMEO:" --steps 64 --local-workers 1
  dllama-root inference --model llama.m --tokenizer llama.t --prompt "Hello" --steps 64 --workers 10.0.0.2:9990
  dllama-root perplexity --model llama.m --tokenizer llama.t --prompt "$(cat text.txt)"
  dllama-root inference --prompt "ROMEO:" --steps 64 --local-workers 2 --split 2:1:1
  dllama-root chat --model llama.m --tokenizer llama.t --workers 10.0.0.2:9990 10.0.0.3:9990

exit codes: 0 done, 2 wrong arguments or files, 3 a worker went away or misbehaved, 4 this machine's fault
(out of memory, a local worker that does not start), 1 a bug
"""


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected 0 to 1, got {value:g}")
    return value


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; the documentation's help text comes from it too."""
    parser = argparse.ArgumentParser(
        prog="dllama-root",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    inference = commands.add_parser("inference", help="continue a prompt", description="Continue a prompt.")
    _add_prompt(inference)
    _add_steps(inference)
    _add_sampling(inference)
    inference.add_argument(
        "--cpp-prompt-end",
        action="store_true",
        help="after the prompt, evaluate what the C++ program does (one past its end), to compare texts",
    )
    perplexity = commands.add_parser(
        "perplexity", help="how well the model foresees a text", description="Measure perplexity of a text."
    )
    _add_prompt(perplexity)
    for name in ("--steps", "--temperature", "--topp", "--seed"):  # the C++ program takes and ignores them
        perplexity.add_argument(name, dest="ignored", help=argparse.SUPPRESS)
    chat = commands.add_parser("chat", help="talk with the model", description="Talk with the model.")
    _add_sampling(chat)
    chat.add_argument(
        "--chat-template", choices=CHAT_TEMPLATES, help="form of the conversation (default: the model's)"
    )
    plan = commands.add_parser(
        "plan",
        help="what a split would take and how fast it would be, without any worker",
        description="Plan a cluster: what each node holds and exchanges, and the speed to expect.",
    )
    add_plan_arguments(plan)
    for command in (inference, perplexity, chat):
        _add_model(command)
        _add_cluster(command)
        _add_output(command)
    return parser


def _add_prompt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", required=True, help="the text to start from")


def _add_steps(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--steps",
        type=at_least(0),
        default=0,
        help="tokens in all, the prompt's included (default: as many as the context holds)",
    )


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("sampling").add_argument
    add("--temperature", type=not_negative, default=0.8, help="0 takes the likeliest token (default: 0.8)")
    add(
        "--topp",
        type=_fraction,
        default=0.9,
        help="sample among the likeliest with this share (default: 0.9)",
    )
    add("--seed", type=at_least(0), help="same seed, same text (default: the time)")


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("model").add_argument
    add("--model", type=Path, metavar="PATH", help=".m file (default: the demo model)")
    add("--tokenizer", type=Path, metavar="PATH", help=".t file")
    add("--max-seq-len", type=at_least(0), default=0, metavar="N", help="cut the context, to save memory")
    add(
        "--buffer-float-type",
        choices=("f32", "q80"),
        help="what nodes exchange: q80 for q40 weights, f32 for f32 weights (default: what fits the weights)",
    )


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("cluster").add_argument
    add(
        "--workers",
        nargs="+",
        action=EachOnce,
        type=endpoint,
        default=[],
        metavar="HOST:PORT",
        help="workers that listen",
    )
    add("--local-workers", type=at_least(0), default=0, metavar="N", help="start N workers on this machine")
    add_split_arguments(add, "auto measures all nodes for some seconds and goes by their speed")
    add(
        "--weights",
        choices=("stream", "local"),
        default="stream",
        help="local: workers have the model themselves",
    )
    add(
        "--sync-timeout",
        type=not_negative,
        default=timeouts.SYNC,
        metavar="SECONDS",
        help=f"how long a worker may be silent during a forward, 0 for ever (default: {timeouts.SYNC:g})",
    )
    add(
        "--reconnect",
        type=not_negative,
        default=timeouts.RECONNECT,
        metavar="SECONDS",
        help="look for a lost worker for so long, then go on where it was lost (default: end)",
    )
    add("--nthreads", type=at_least(1), default=1, metavar="N", help="threads to compute with (default: 1)")
    add(
        "--kernels",
        default="",
        metavar="PLUGIN[:VARIANT],…",
        help="kernels to prefer (see dllama-ops list)",
    )
    add(
        "--net-turbo",
        choices=("0", "1"),
        default="1",
        help="accepted for the C++ program's sake; no effect",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("output").add_argument
    add("--json", action="store_true", dest="as_json", help="print one JSON object instead of text")
    add(
        "--trace",
        type=Path,
        metavar="FILE.json",
        help="write when each op and sync ran (see dllama-proto timeline)",
    )
    add("--log-level", choices=LOG_LEVELS, default="info", help="least level to log (default: info)")
    add("--log-format", choices=LOG_FORMATS, default="text", help="how to log (default: text)")


def _plan(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    options = plan_options(parser, arguments)
    from dllama_worker.root.planning.command import run_plan

    return run_plan(options)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.command == "plan":
        return _plan(parser, arguments)
    if (arguments.model is None) != (arguments.tokenizer is None):
        parser.error("--model and --tokenizer belong together: give both, or neither for the demo model")
    seed = getattr(arguments, "seed", None)
    options = RootOptions(
        command=arguments.command,
        model=arguments.model,
        tokenizer=arguments.tokenizer,
        prompt=getattr(arguments, "prompt", None),
        steps=getattr(arguments, "steps", 0),
        temperature=getattr(arguments, "temperature", 0.0),
        topp=getattr(arguments, "topp", 0.9),
        seed=int(time.time()) if seed is None else seed,
        buffer_float_type=arguments.buffer_float_type,
        max_seq_len=arguments.max_seq_len,
        n_threads=arguments.nthreads,
        workers=tuple(arguments.workers),
        local_workers=arguments.local_workers,
        split=split_of(parser, arguments),
        memory=arguments.memory,
        stream_weights=arguments.weights == "stream",
        sync_timeout=arguments.sync_timeout,
        reconnect=arguments.reconnect,
        kernels=arguments.kernels,
        chat_template=getattr(arguments, "chat_template", None),
        cpp_prompt_end=getattr(arguments, "cpp_prompt_end", False),
        as_json=arguments.as_json,
        trace=arguments.trace,
    )
    set_up_logging(arguments.log_level, arguments.log_format)
    limit_library_threads(options.n_threads)
    # Only now: NumPy is heavy, and --help should answer at once.
    from dllama_worker.root.run import run_root

    return run_root(options)


if __name__ == "__main__":
    sys.exit(main())
