"""The command ``dllama-ops``: arguments become a call; each subcommand imports what it needs when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

__all__ = ["main", "make_parser"]

_EPILOG = """\
examples:
  dllama-ops list                      which kernel computes what, and why
  dllama-ops list --kernels numpy      the same if only the NumPy reference may compute

exit codes: 0 done, 1 plugins contradict each other, 2 wrong arguments
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; the documentation's help text comes from it too."""
    parser = argparse.ArgumentParser(
        prog="dllama-ops",
        description="The compute kernels on this machine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
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
        metavar="PLUGIN[:VARIANT],…",
        help="use these plugins only, in this order, and the NumPy reference where none has a kernel",
    )
    listing.set_defaults(run=_list)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = make_parser().parse_args(argv)
    exit_code: int = arguments.run(arguments)
    return exit_code


def _list(arguments: argparse.Namespace) -> int:
    from dllama_ops.errors import KernelChoiceError, KernelClash
    from dllama_ops.listing import print_table
    from dllama_ops.plugins import make_plugin_manager
    from dllama_ops.table import build_kernel_table

    try:
        table = build_kernel_table(make_plugin_manager(), prefer=arguments.kernels)
    except KernelChoiceError as error:
        print(f"dllama-ops list: error: argument --kernels: {error}", file=sys.stderr)
        return 2
    except KernelClash as error:
        print(f"dllama-ops list: error: {error}", file=sys.stderr)
        return 1
    print_table(table, as_json=arguments.json)
    return 0
