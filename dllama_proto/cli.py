"""The command ``dllama-proto``: arguments become calls; each subcommand imports what it needs when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import entry_points

from dllama_proto.command_line import CommandParser, at_least, file_name, file_path, not_negative
from dllama_proto.exit_codes import CommandError, ExitCode, run_command
from dllama_proto.terminal import print_line
from dllama_proto.version import VersionAction

__all__ = ["main", "make_parser"]

_NAME = "dllama-proto"

_EPILOG = """\
examples:
  dllama-proto dissect session.pcap               every message and slice, a line each
  tcpdump -w - port 9990 | dllama-proto dissect - the same while it happens
  dllama-proto dissect --summary session.pcap     bytes, times of syncs, who waited for whom
  dllama-proto dissect -v --kind node_config session.pcap
                                                  what a node computes, op by op
  dllama-proto diff good.pcap bad.pcap            the first difference of two sessions, in numbers
  dllama-proto inspect llama.m --nodes 4          tensors, and what each of 4 nodes holds
  dllama-proto report session.pcap -o report.html a page with everything, to look at or to send
  dllama-proto tap --listen 0.0.0.0:9991 --to 10.0.0.2:9990 --record session.pcapng
                                                  show and record what passes
  dllama-proto timeline session.pcap -o trace.json
                                                  a picture for ui.perfetto.dev

exit codes: 0 done, 1 a capture has a problem, or two differ, 2 wrong arguments or files,
4 this machine cannot do it (a port is taken, the disk is full), 130 Ctrl-C
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = CommandParser(
        prog=_NAME,
        description="Shows what the nodes of a Distributed-Llama cluster send, and what its files hold.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=VersionAction)
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    _add_dissect(commands)
    _add_diff(commands)
    _add_inspect(commands)
    _add_timeline(commands)
    report = commands.add_parser(
        "report",
        help="write a page with everything about a session",
        description="Writes one page (no network needed): nodes and the bytes between them, a timeline, syncs, "
        "configuration, search.",
    )
    report.add_argument("file", type=file_name, metavar="FILE", help="a capture")
    report.add_argument("-o", "--output", type=file_path, required=True, metavar="REPORT.html")
    report.set_defaults(run=_report)
    wireshark = commands.add_parser(
        "wireshark",
        help="print a Wireshark dissector in Lua",
        description="Prints a dissector for Wireshark and tshark: "
        "dllama-proto wireshark > dllama.lua; tshark -X lua_script:dllama.lua -r session.pcap",
    )
    wireshark.set_defaults(run=_wireshark)
    _add_from_elsewhere(commands)
    return parser


def _add_dissect(commands: argparse._SubParsersAction[CommandParser]) -> None:
    parser = commands.add_parser(
        "dissect",
        help="show what a capture holds",
        description="Shows every message, weight and slice of a capture (pcap or pcapng, also gzipped), "
        "and accounts for every byte.",
    )
    parser.add_argument(
        "files", nargs="+", type=file_name, metavar="FILE", help="captures; - is standard input"
    )
    parser.add_argument("-v", "--fields", action="store_true", help="show the fields of messages as a tree")
    parser.add_argument("-x", "--hex", action="store_true", help="show the bytes beside their fields")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each event")
    parser.add_argument("--summary", action="store_true", help="print tables instead of events")
    parser.add_argument("--values", action="store_true", help="decode slices to numbers")
    parser.add_argument("--tokenizer", type=file_path, metavar="FILE.t", help="name the tokens of logits")
    parser.add_argument("--title", metavar="TEXT", help="what to call standard input")
    _add_filters(parser)
    parser.set_defaults(run=_dissect)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    from dllama_proto.dissect.events import Kind
    from dllama_proto.show.filters import parse_ranges

    def numbers(text: str) -> object:
        try:
            return parse_ranges(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    def kinds(text: str) -> tuple[Kind, ...]:
        try:
            return tuple(Kind(name.strip()) for name in text.split(","))
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(Kind)}") from None

    group = parser.add_argument_group("filters", "numbers may be ranges and lists: 0-3,7")
    group.add_argument(
        "--node", type=numbers, default=(), metavar="N", help="what these nodes send or receive"
    )
    group.add_argument("--kind", type=kinds, default=(), metavar="KIND,…", help=", ".join(Kind))
    group.add_argument(
        "--layer", type=numbers, default=(), metavar="N", help="slices and weights of layers"
    )
    group.add_argument("--position", type=numbers, default=(), metavar="N", help="rows of these positions")


def _add_diff(commands: argparse._SubParsersAction[CommandParser]) -> None:
    parser = commands.add_parser(
        "diff",
        help="compare two captures",
        description="Compares two sessions of the same model: the first message that differs, then how much "
        "the slices differ, layer by layer and node by node.",
    )
    parser.add_argument("one", type=file_name, metavar="A", help="a capture")
    parser.add_argument("other", type=file_name, metavar="B", help="another")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--tolerance",
        type=not_negative,
        default=0.0,
        metavar="X",
        help="ignore differences up to this fraction of a row's largest magnitude (default: %(default)s)",
    )
    parser.add_argument(
        "--only-differing", action="store_true", help="leave out the syncs whose slices are all the same"
    )
    parser.set_defaults(run=_diff)


def _add_inspect(commands: argparse._SubParsersAction[CommandParser]) -> None:
    parser = commands.add_parser(
        "inspect",
        help="show what a .m or .t file holds",
        description="Shows the header and tensors of a model file and what each of N nodes holds after an even "
        "split (dllama-root plan shows other splits), or the facts of a tokenizer file.",
    )
    parser.add_argument("files", nargs="+", type=file_path, metavar="FILE", help="a .m or .t file")
    parser.add_argument(
        "--nodes", type=at_least(1), metavar="N", help="show what each of N nodes holds after an even split"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_inspect)


def _add_timeline(commands: argparse._SubParsersAction[CommandParser]) -> None:
    parser = commands.add_parser(
        "timeline",
        help="write a trace that ui.perfetto.dev opens",
        description="Writes a capture as a trace for ui.perfetto.dev or chrome://tracing: a track for each node, "
        "a slice for each segment and sync, arrows from sender to receiver, counters of bytes.",
    )
    parser.add_argument(
        "files", nargs="+", type=file_name, metavar="FILE", help="a capture; with --merge, several traces"
    )
    parser.add_argument(
        "-o", "--output", type=file_path, required=True, metavar="TRACE.json", help="where to write"
    )
    parser.add_argument(
        "--merge",
        action="store_true",
        help="combine traces, of this command and of --trace of dllama-worker and dllama-root",
    )
    parser.set_defaults(run=_timeline)


def _add_from_elsewhere(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add what needs sockets: this package opens none, so those commands come in by entry points."""
    for entry in sorted(entry_points(group="dllama_proto.commands"), key=lambda entry: entry.name):
        entry.load()(commands)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_NAME, lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    parser = make_parser()
    arguments, more = parser.parse_known_args(argv)
    if more and not getattr(arguments, "takes_more", False):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    arguments.more = more
    return run_command(f"{_NAME} {arguments.command}", lambda: arguments.run(arguments))


def _dissect(arguments: argparse.Namespace) -> int:
    from dllama_proto.show.commands import DissectOptions, run_dissect
    from dllama_proto.show.filters import Filter

    return run_dissect(
        arguments.files,
        DissectOptions(
            wanted=Filter(arguments.node, arguments.kind, arguments.layer, arguments.position),
            fields=arguments.fields,
            raw=arguments.hex,
            as_json=arguments.json,
            summary=arguments.summary,
            values=arguments.values or arguments.tokenizer is not None,
            tokenizer=arguments.tokenizer,
            title=arguments.title,
        ),
    )


def _diff(arguments: argparse.Namespace) -> int:
    from dllama_proto.show.diff import run_diff

    return run_diff(
        arguments.one,
        arguments.other,
        arguments.tolerance,
        as_json=arguments.json,
        only_differing=arguments.only_differing,
    )


def _inspect(arguments: argparse.Namespace) -> int:
    from dllama_proto.show.inspect_files import run_inspect

    return run_inspect(arguments.files, arguments.nodes, as_json=arguments.json)


def _report(arguments: argparse.Namespace) -> int:
    from dllama_proto.show.report import run_report

    return run_report(arguments.file, arguments.output)


def _wireshark(arguments: argparse.Namespace) -> int:
    from dllama_proto.show.wireshark import make_dissector

    for line in make_dissector().splitlines():
        print_line(line)
    return ExitCode.DONE


def _timeline(arguments: argparse.Namespace) -> int:
    from dllama_proto.show.timeline import run_merge, run_timeline

    if arguments.merge:
        return run_merge(arguments.files, arguments.output)
    if len(arguments.files) > 1:
        raise CommandError("expected one capture, got several; --merge combines traces")
    return run_timeline(arguments.files[0], arguments.output)
