"""The flags of a root, their defaults, and how they become :class:`RootOptions`; nothing is decided here.

Those of ``plan`` are in :mod:`dllama_worker.root.planning.options`.
"""

from __future__ import annotations

import argparse
import time

from dllama_proto.command_line import CommandParser, at_least, between, file_path, not_negative
from dllama_proto.limits import DEFAULT_LIMITS
from dllama_proto.version import VersionAction
from dllama_worker import timeouts
from dllama_worker.arguments import EachOnce, endpoint, patience
from dllama_worker.model.open_options import WeightChoice
from dllama_worker.node_flags import add_compute_flags, add_ignored_flags, add_log_flags, add_trace_flag
from dllama_worker.root.arguments import add_split_arguments, split_of
from dllama_worker.root.options import CHAT_TEMPLATES, RootOptions
from dllama_worker.root.planning.options import add_plan_arguments
from dllama_worker.root.prompt import read_prompt
from dllama_worker.root.template_variables import merge_variables, template_variables
from dllama_worker.tls_flags import add_tls_flags, tls_files

__all__ = ["make_parser", "options_of"]

_DESCRIPTION = """\
The root node of a Distributed-Llama cluster. It reads the model, sends each worker its slice, and generates text.
Without --model it uses the small demo model that comes with this package."""

_EPILOG = """\
examples:
  dllama-root inference --prompt "ROMEO:" --steps 64 --local-workers 1
  dllama-root inference --model llama.m --tokenizer llama.t --prompt "Hello" --steps 64 --workers 10.0.0.2:9990
  dllama-root perplexity --model llama.m --tokenizer llama.t --prompt-file text.txt
  dllama-root inference --prompt "ROMEO:" --steps 64 --local-workers 2 --split 2:1:1
  dllama-root chat --model llama.m --tokenizer llama.t --workers 10.0.0.2:9990 10.0.0.3:9990

exit codes: 0 done, 2 wrong arguments or files, 3 a worker was lost or broke the protocol,
4 this machine cannot do it (out of memory, a local worker does not start), 130 Ctrl-C or SIGTERM, 1 a bug
"""


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected 0 to 1, got {value:g}")
    return value


def make_parser() -> argparse.ArgumentParser:
    """Return the parser. Of what it reads, ``parser`` is the subcommand's, for what is found wrong later."""
    parser = CommandParser(
        prog="dllama-root",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=VersionAction)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    inference = commands.add_parser("inference", help="continue a prompt", description="Continue a prompt.")
    _add_prompt(inference, "the text to continue")
    _add_steps(inference)
    _add_sampling(inference)
    inference.add_argument(
        "--cpp-prompt-end",
        action="store_true",
        help="end the prompt as the C++ program does, which decodes another token in place of the last; "
        "for comparing texts",
    )
    perplexity = commands.add_parser(
        "perplexity",
        help="measure how well the model predicts a text",
        description="Measure the perplexity of a text: how well the model predicts it. Lower is better.",
    )
    _add_prompt(perplexity, "the text to measure")
    perplexity.add_argument(
        "--stride",
        type=at_least(1),
        default=0,
        metavar="N",
        help="a text longer than the context is read in windows, each N tokens further on; a smaller one gives "
        "every token more context and takes longer (default: half the context)",
    )
    for name in ("--steps", "--temperature", "--topp", "--seed"):  # the C++ program takes and ignores them
        perplexity.add_argument(name, dest="ignored", help=argparse.SUPPRESS)
    chat = commands.add_parser("chat", help="talk with the model", description="Talk with the model.")
    _add_sampling(chat)
    chat.add_argument(
        "--chat-template",
        metavar="NAME|FILE",
        help=f"template of the conversation: {', '.join(CHAT_TEMPLATES)}, a name that the model has one by, or a "
        "file with one in Jinja (default: the model's own)",
    )
    chat.add_argument(
        "--template-vars",
        type=template_variables,
        action="append",
        default=[],
        metavar="NAME=VALUE|OBJECT",
        help="variables for the model's own template, such as enable_thinking=false; an object sets several",
    )
    chat.add_argument("--system", metavar="TEXT", help="the system prompt (default: it is asked for)")
    plan = commands.add_parser(
        "plan",
        help="estimate memory, traffic and speed of a cluster; needs no worker",
        description="Plan a cluster: the memory of each node, the bytes that nodes exchange, the speed to expect.",
    )
    add_plan_arguments(plan)
    for command in (inference, perplexity, chat, plan):
        command.set_defaults(parser=command)
    for command in (inference, perplexity, chat):
        _add_model(command)
        _add_cluster(command)
        _add_output(command, generates=command is not perplexity)
    return parser


def _add_prompt(parser: argparse.ArgumentParser, purpose: str) -> None:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--prompt", help=f"{purpose}; - reads it from standard input")
    group.add_argument(
        "--prompt-file",
        type=file_path,
        metavar="FILE",
        help="the same from a file, without a line break at its end",
    )


def _add_steps(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--steps",
        type=at_least(0),
        default=0,
        help="number of tokens, those of the prompt included (default: as many as fit into the context)",
    )


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("sampling").add_argument
    add(
        "--temperature",
        type=not_negative,
        default=0.8,
        help="randomness; 0 always takes the most likely token (default: 0.8)",
    )
    add(
        "--topp",
        type=_fraction,
        default=0.9,
        help="sample only from the most likely tokens that together have this probability (default: 0.9)",
    )
    add("--seed", type=at_least(0), help="the same seed gives the same text (default: the time)")


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("model").add_argument
    add(
        "--model",
        type=file_path,
        metavar="PATH",
        help=".m or .gguf file, or a Hugging Face folder (default: the demo model)",
    )
    add(
        "--tokenizer",
        type=file_path,
        metavar="PATH",
        help=".t file, tokenizer.json or its folder (default: the model's own; a .m file has none)",
    )
    add(
        "--cpp-tokens",
        action="store_true",
        help="read a .t file as the C++ program does, also where its model has other tokens",
    )
    add(
        "--max-seq-len",
        type=at_least(0),
        default=0,
        metavar="N",
        help="limit the context to N tokens, to save memory (default: the model's)",
    )
    add(
        "--weight-float-type",
        type=WeightChoice,
        choices=tuple(WeightChoice),
        default=WeightChoice.AUTO,
        help="what the weights of a model that is no .m file are loaded as (default: q40 where they are stored "
        "in up to 5 bits, else f32, which loses nothing)",
    )
    add(
        "--logits-float-type",
        type=WeightChoice,
        choices=tuple(WeightChoice),
        default=WeightChoice.AUTO,
        help="the same for the last matrix, which makes the logits; f32 is better and slower (default: as the "
        "weights, but f32 for a small one that is stored in more than 4 bits)",
    )
    add(
        "--buffer-float-type",
        choices=("f32", "q80"),
        help="type of the numbers that nodes exchange: q80 with q40 weights, f32 with f32 weights "
        "(default: by the weights)",
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
        help="where the workers listen",
    )
    add(
        "--local-workers",
        type=between(0, DEFAULT_LIMITS.n_sockets),
        default=0,
        metavar="N",
        help="start N workers on this machine",
    )
    add_split_arguments(add, "auto measures all nodes for some seconds and splits by their speed")
    add(
        "--weights",
        choices=("stream", "local"),
        default="stream",
        help="stream: send each worker its slice; local: each worker reads it from its own --model "
        "(default: stream)",
    )
    add(
        "--sync-timeout",
        type=patience,
        default=timeouts.SYNC,
        metavar="SECONDS",
        help="end the session when a worker sends nothing for this long during a forward; 0: no limit "
        f"(default: {timeouts.SYNC:g})",
    )
    add(
        "--wait",
        type=not_negative,
        default=timeouts.WAIT,
        metavar="SECONDS",
        help="wait so long for workers that cannot be reached yet (default: end at once)",
    )
    add(
        "--reconnect",
        type=patience,
        default=timeouts.RECONNECT,
        metavar="SECONDS",
        help="when a worker is lost, try to connect again for this long, then continue the text "
        "(default: end the session)",
    )
    add_tls_flags(parser)
    add_compute_flags(add, ", shared out among --local-workers and the root")
    add_ignored_flags(add)


def _add_output(parser: argparse.ArgumentParser, *, generates: bool) -> None:
    add = parser.add_argument_group("output").add_argument
    add("--json", action="store_true", dest="as_json", help="print one JSON object instead of text")
    if generates:
        add(
            "--raw",
            action="store_true",
            help="let generated text control the terminal; otherwise its control sequences are shown (a file or a "
            "pipe always gets the text as it is)",
        )
    add_trace_flag(add)
    add_log_flags(add)


def options_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> RootOptions:
    """Return what the arguments ask for, the prompt read; ends the program where they contradict each other.

    Raises OSError where the prompt's file cannot be read.
    """
    if arguments.model is None and arguments.tokenizer is not None:
        parser.error("--tokenizer belongs to a model: give --model, too, or neither for the demo model")
    seed = getattr(arguments, "seed", None)
    return RootOptions(
        command=arguments.command,
        model=arguments.model,
        tokenizer=arguments.tokenizer,
        prompt=read_prompt(getattr(arguments, "prompt", None), getattr(arguments, "prompt_file", None)),
        steps=getattr(arguments, "steps", 0),
        temperature=getattr(arguments, "temperature", 0.0),
        topp=getattr(arguments, "topp", 0.9),
        seed=int(time.time()) if seed is None else seed,
        buffer_float_type=arguments.buffer_float_type,
        max_seq_len=arguments.max_seq_len,
        weight_float_type=arguments.weight_float_type,
        logits_float_type=arguments.logits_float_type,
        cpp_tokens=arguments.cpp_tokens,
        n_threads=arguments.nthreads,
        workers=tuple(arguments.workers),
        local_workers=arguments.local_workers,
        split=split_of(parser, arguments),
        memory=arguments.memory,
        stream_weights=arguments.weights == "stream",
        sync_timeout=arguments.sync_timeout,
        reconnect=arguments.reconnect,
        wait=arguments.wait,
        kernels=arguments.kernels,
        chat_template=getattr(arguments, "chat_template", None),
        template_variables=merge_variables(getattr(arguments, "template_vars", [])),
        system=getattr(arguments, "system", None),
        stride=getattr(arguments, "stride", 0),
        cpp_prompt_end=getattr(arguments, "cpp_prompt_end", False),
        as_json=arguments.as_json,
        raw=getattr(arguments, "raw", False),
        trace=arguments.trace,
        tls=tls_files(arguments),
    )
