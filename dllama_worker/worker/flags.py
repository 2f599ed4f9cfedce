"""The flags of a worker, their defaults, and how they become :class:`WorkerOptions`.

``dllama-worker doctor`` takes them too, so that it checks what would be started.
"""

from __future__ import annotations

import argparse

from dllama_proto.command_line import CommandParser, file_path
from dllama_proto.version import VersionAction
from dllama_worker import timeouts
from dllama_worker.arguments import Extend, host, keepalive, network, port, seconds, size
from dllama_worker.node_flags import add_compute_flags, add_ignored_flags, add_log_flags, add_trace_flag
from dllama_worker.tls_flags import add_tls_flags, tls_files
from dllama_worker.worker.options import DEFAULT_HOST, DEFAULT_PORT, WorkerOptions

__all__ = ["make_parser", "options_of"]

_DESCRIPTION = (
    "A worker node of a Distributed-Llama cluster. It waits for a root and computes its slice of the model."
)
_EPILOG = """\
examples:
  dllama-worker                                    listen on loopback, for a root on this machine
  dllama-worker --host 0.0.0.0 --allow 10.0.0.0/8  listen on every interface, for nodes of one network
  dllama-worker --model llama.m                    check the weights against a local file, or use it instead
  dllama-worker certificates --out tls root w1 w2  certificates for a root and two workers, for --tls-cert
  dllama-worker tunnel --help                      let a C++ node take part in a cluster with TLS
  dllama-worker doctor                             check this machine, and the connection to other nodes

exit codes: 0 ended as asked, 2 wrong arguments or files, 3 another node is to blame (with --once),
4 this machine is to blame (port taken, out of memory), 1 a bug
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; the documentation's help text comes from it too."""
    parser = CommandParser(
        prog="dllama-worker",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=VersionAction)
    add = parser.add_argument
    add(
        "--config",
        type=file_path,
        metavar="FILE",
        help="TOML file of flags, for example nthreads = 4; flags override it",
    )
    add("--host", type=host, default=DEFAULT_HOST, help="address to listen on (default: %(default)s)")
    add(
        "--port",
        type=port,
        default=DEFAULT_PORT,
        help="port to listen on, 0 for any (default: %(default)s)",
    )
    add_compute_flags(add)
    add(
        "--model",
        type=file_path,
        metavar="PATH",
        help="local .m file: checks the root's weights, or replaces them",
    )
    add("--once", action="store_true", help="serve one session, then exit")
    add(
        "--end-with-stdin",
        action="store_true",
        help="exit when standard input ends: for a program that starts workers and may be killed",
    )
    add_trace_flag(add)
    _add_limits(parser)
    add_tls_flags(parser)
    add_log_flags(add)
    add(
        "--metrics-port",
        type=port,
        metavar="PORT",
        help="serve Prometheus metrics and /healthz there, 0 for any port (default: off)",
    )
    add(
        "--metrics-host",
        type=host,
        default=DEFAULT_HOST,
        metavar="HOST",
        help="address for the metrics (default: %(default)s)",
    )
    add_ignored_flags(add)
    return parser


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("limits for other nodes").add_argument
    add(
        "--allow",
        nargs="+",
        action=Extend,
        type=network,
        default=[],
        metavar="CIDR",
        help="networks or addresses of the root and the other workers; connections from elsewhere are closed "
        "(default: no limit)",
    )
    add(
        "--max-memory",
        type=size,
        metavar="BYTES",
        help="maximum that a session may take, for example 8G or 500M (default: 90%% of what is free)",
    )
    add(
        "--handshake-timeout",
        type=seconds,
        default=timeouts.HANDSHAKE,
        metavar="SECONDS",
        help=f"limit for each message of a root until the weights are loaded (default: {timeouts.HANDSHAKE:g})",
    )
    add(
        "--sync-timeout",
        type=seconds,
        default=timeouts.SYNC,
        metavar="SECONDS",
        help=f"how long another node may be silent during a forward (default: {timeouts.SYNC:g})",
    )
    add(
        "--keepalive",
        type=keepalive,
        default=timeouts.KEEPALIVE,
        metavar="SECONDS",
        help="idle time after which TCP asks whether a node is still there "
        f"(default: {timeouts.KEEPALIVE:g})",
    )


def options_of(arguments: argparse.Namespace) -> WorkerOptions:
    """Return what the arguments ask for."""
    return WorkerOptions(
        host=arguments.host,
        port=arguments.port,
        n_threads=arguments.nthreads,
        model=arguments.model,
        kernels=arguments.kernels,
        tls=tls_files(arguments),
        trace=arguments.trace,
        metrics_host=arguments.metrics_host,
        metrics_port=arguments.metrics_port,
        allow=tuple(arguments.allow),
        max_memory=arguments.max_memory,
        handshake_timeout=arguments.handshake_timeout,
        sync_timeout=arguments.sync_timeout,
        keepalive=arguments.keepalive,
    )
