"""The command ``dllama-worker doctor``: takes the worker's own flags, so that it checks what would be started."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from dllama_proto.endpoint import Endpoint
from dllama_proto.exit_codes import ExitCode
from dllama_worker.arguments import EachOnce, argument
from dllama_worker.worker import flags
from dllama_worker.worker.options import DEFAULT_PORT
from dllama_worker.worker.settings_file import parse_arguments

__all__ = ["main", "make_parser"]

_DESCRIPTION = (
    "Checks whether a worker with these flags would start here and how fast this machine is: Python, kernels, "
    "cores, memory and its bandwidth, ports, and the connection to other nodes."
)
_EPILOG = """\
examples:
  dllama-worker doctor                                        this machine
  dllama-worker doctor --config worker.toml --peer 10.0.0.2   with these flags, and the round trip to a node

exit codes: 0 a worker would run, even if it could be faster, 2 wrong arguments or files,
3 a peer cannot be reached, 4 this machine lacks something (for example, the port is taken)
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the worker's parser with the doctor's flags added."""
    parser = flags.make_parser()
    parser.prog = "dllama-worker doctor"
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    add = parser.add_argument_group("doctor").add_argument
    add(
        "--peer",
        nargs="+",
        action=EachOnce,
        type=argument(_peer),
        default=[],
        metavar="HOST[:PORT]",
        help="other nodes to measure the round trip to, by ping",
    )
    add(
        "--connect",
        action="store_true",
        help="also connect to each peer's port; a C++ worker there exits when the connection is closed",
    )
    add("--json", action="store_true", help="print JSON")
    return parser


def _peer(text: str) -> Endpoint:
    return Endpoint.parse(text, default_port=DEFAULT_PORT)


def main(argv: Sequence[str]) -> int:
    """Run the command; return its exit code: that of the first failure."""
    arguments = parse_arguments(make_parser, argv)
    from dllama_worker.doctor.finding import Finding, Grade
    from dllama_worker.doctor.machine_checks import check_machine
    from dllama_worker.doctor.network_checks import check_peers, check_ports
    from dllama_worker.doctor.report import print_findings, print_findings_as_json

    def findings() -> Iterator[Finding]:
        options = flags.options_of(arguments)
        yield from check_machine(options)
        yield from check_ports(options)
        yield from check_peers(arguments.peer, connect=arguments.connect)

    found = list(findings())
    if arguments.json:
        print_findings_as_json(found)
    else:
        print_findings(found)
    failures = [finding.exit_code for finding in found if finding.grade is Grade.FAILURE]
    return failures[0] if failures else ExitCode.DONE
