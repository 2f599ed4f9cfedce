"""The command ``dllama-ops``: arguments become a call; each subcommand imports what it needs when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dllama_proto.command_line import CommandParser, between, file_path
from dllama_proto.exit_codes import AMISS, CommandError, ExitCode, run_command
from dllama_proto.version import VersionAction

if TYPE_CHECKING:
    from dllama_ops.table import KernelTable

__all__ = ["main", "make_parser"]

_NAME = "dllama-ops"

_EPILOG = """\
examples:
  dllama-ops list                      which kernel computes what, and why
  dllama-ops list --kernels numpy      the same if the NumPy reference comes first
  dllama-ops check my-kernels          whether the kernels of a plugin compute what they should
  dllama-ops bench --model qwen3-0.6b  how fast the kernels are on this machine

exit codes: 0 done, 1 a kernel is wrong (check), 2 wrong arguments or files, plugins in conflict,
4 this machine cannot do it (out of memory, the disk is full), 130 Ctrl-C
"""


#: Beyond any use, and within what NumPy counts in: rows of a batch, positions that float32 holds exactly.
_MAX_ROWS, _MAX_POSITION = 65_536, (1 << 24) - 1
_MAX_THREADS = 4096
_MAX_CASES, _MAX_SEED = 1_000_000, (1 << 63) - 1


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; the documentation's help text comes from it too."""
    parser = CommandParser(
        prog=_NAME,
        description="Lists, checks and measures the compute kernels on this machine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=VersionAction)
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser(
        "list",
        help="show the kernel for each op and quant key, and why it was chosen",
        description="Shows the kernel for each op and quant key, its plugin, and why it was chosen; "
        "then the plugins that may take whole segments, and those that are broken.",
    )
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.add_argument(
        "--kernels",
        default="",
        metavar="[only:]PLUGIN[:VARIANT],…",
        help="plugins whose kernels come first, in this order; with only: no others compute, but for the NumPy "
        "reference where none has a kernel",
    )
    listing.set_defaults(run=_list)
    check = commands.add_parser(
        "check",
        help="run the conformance kit on an installed plugin",
        description="Runs the conformance kit on every kernel of a plugin: recordings of the C++ kernels, random "
        "cases beside the NumPy reference, several batches in a row among other kernels (chained), indexes out "
        "of range that must be refused; and on its segment compiler, if it has one. "
        "Exit code: 0 if all pass, 1 if something is wrong, 2 if no plugin has that name.",
    )
    check.add_argument(
        "plugin",
        nargs="?",
        type=_plugin,
        metavar="PLUGIN[:VARIANT]",
        help="what to check (default: every plugin)",
    )
    check.add_argument(
        "--cases",
        type=between(1, _MAX_CASES),
        default=20,
        metavar="N",
        help="random cases for each kernel (default: %(default)s)",
    )
    check.add_argument(
        "--seed",
        type=between(0, _MAX_SEED),
        default=0,
        help="seed of the first random case (default: %(default)s)",
    )
    check.add_argument(
        "--op",
        action="append",
        default=[],
        metavar="CODE",
        help="check only kernels for this op, for example MATMUL, and no segments; can be repeated",
    )
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(run=_check)
    bench = commands.add_parser(
        "bench",
        help="measure kernels on the shapes of a model",
        description="Measures the chosen kernel of each op on the shapes of a model with q40 weights: time, "
        "multiplications and bytes per second, and the share of the memory bandwidth.",
    )
    bench.add_argument("--model", default="llama-3.2-1b", help="name of the shapes (default: %(default)s)")
    bench.add_argument(
        "--kernels",
        default="",
        metavar="[only:]PLUGIN[:VARIANT],…",
        help="the same as of dllama-ops list",
    )
    bench.add_argument("--all", action="store_true", help="measure every kernel, not only the chosen ones")
    bench.add_argument(
        "--rows", type=between(1, _MAX_ROWS), nargs="+", default=[1, 32], help="batch sizes (default: 1 32)"
    )
    bench.add_argument(
        "--position",
        type=between(0, _MAX_POSITION),
        default=511,
        help="position of the rows in the context (default: 511)",
    )
    bench.add_argument(
        "--nthreads", type=between(1, _MAX_THREADS), default=1, help="threads to compute with (default: 1)"
    )
    bench.add_argument("--json", action="store_true", help="print JSON")
    bench.add_argument(
        "--plot", type=file_path, metavar="FILE.png", help="draw a roofline (needs matplotlib)"
    )
    bench.set_defaults(run=_bench)
    return parser


def _plugin(text: str) -> str:
    """Read a plugin's name: an empty one, of a shell's variable that is not set, does not stand for all."""
    if not text.strip():
        raise argparse.ArgumentTypeError(
            "expected the name of a plugin, got none: leave it out for every plugin"
        )
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_NAME, lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    arguments = make_parser().parse_args(argv)
    return run_command(f"{_NAME} {arguments.command}", lambda: arguments.run(arguments))


def _list(arguments: argparse.Namespace) -> int:
    from dllama_ops.listing import print_table

    print_table(_table(arguments), as_json=arguments.json)
    return ExitCode.DONE


def _table(arguments: argparse.Namespace) -> KernelTable:
    from dllama_ops.errors import KernelChoiceError
    from dllama_ops.plugins import make_plugin_manager
    from dllama_ops.table import build_kernel_table

    try:
        return build_kernel_table(make_plugin_manager(), prefer=arguments.kernels)
    except KernelChoiceError as error:
        raise CommandError(f"argument --kernels: {error}") from error


def _check(arguments: argparse.Namespace) -> int:
    from dllama_ops.check import run_suite, select
    from dllama_ops.check.report import print_report, progress_line, report_as_json
    from dllama_ops.plugins import make_plugin_manager
    from dllama_ops.reference.specs import OPS

    codes = {spec.code.name: spec.code for spec in OPS}
    unknown = [name for name in arguments.op if name.upper() not in codes]
    if unknown:
        raise CommandError(f"argument --op: expected one of {', '.join(codes)}, got {unknown[0]!r}")
    selection = select(
        make_plugin_manager(), arguments.plugin or "", {codes[name.upper()] for name in arguments.op}
    )
    with progress_line() as progress:
        report = run_suite(selection, arguments.cases, arguments.seed, progress)
    if arguments.json:
        print(report_as_json(report))
    else:
        print_report(report)
    return ExitCode.DONE if report.passed else AMISS


def _bench(arguments: argparse.Namespace) -> int:
    from dllama_ops.bench import measure, memory_bandwidth, model_shape, workloads
    from dllama_ops.bench.report import as_json, as_text, check_plot, save_roofline

    try:
        shape = model_shape(arguments.model)
    except ValueError as error:
        raise CommandError(f"argument --model: {error}") from error
    if arguments.plot:
        check_plot(arguments.plot)
    table = _table(arguments)
    bandwidth = memory_bandwidth()
    measurements = [
        measure(workload, entry, arguments.nthreads)
        for rows in arguments.rows
        for workload in workloads(shape, rows, arguments.position)
        for entry in table.entries
        if entry.key == workload.key and (arguments.all or entry is table.get(workload.key))
    ]
    facts = {"model": arguments.model, "n_threads": arguments.nthreads, "position": arguments.position}
    print(as_json(measurements, bandwidth, **facts) if arguments.json else as_text(measurements, bandwidth))
    if arguments.plot:
        save_roofline(arguments.plot, measurements, bandwidth)
    return ExitCode.DONE
