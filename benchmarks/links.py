"""Checks what ``dllama-root plan`` assumes of links: real nodes in network namespaces, with delays and limits.

``python benchmarks/links.py --model M --tokenizer T`` (as root, on Linux) makes a namespace for every node. Each
token's time is measured without any delay or limit, then with, and what was added is held against what
the model of docs/scaling.md adds. Limits are tc's ``tbf`` at both ends of each node's cable to a switch.
Delays are tc's ``netem`` where the kernel has it, else a router of our own that every packet passes through
and that holds each for so long.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import heapq
import json
import multiprocessing
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dllama_worker.model.open_options import OpenOptions
from dllama_worker.model.opening import open_model
from dllama_worker.root.layout import sync_type_of
from dllama_worker.root.planning.demand import Demand, count_demand
from dllama_worker.root.planning.estimate import sync_seconds
from dllama_worker.root.planning.links import LinkSpeed
from dllama_worker.sharding.apportion import partition_evenly

_PORT = 9990
_SWITCH = "dllama-switch"
_TUNSETIFF, _IFF_TUN_NO_PI = 0x400454CA, 0x1001
_UNLIMITED = 1e15


def tool(command: str) -> None:
    """Run ip or tc."""
    subprocess.run(command.split(), check=True, capture_output=True)


def namespace(node: int) -> str:
    """Return the name of a node's namespace."""
    return f"dllama-{node}"


def address(node: int) -> str:
    """Return a node's address."""
    return f"10.77.0.{node + 1}"


@contextmanager
def namespaces(names: Sequence[str]) -> Iterator[None]:
    """Make namespaces; remove them, and all that is in them, with the context."""
    made = []
    try:
        for name in names:
            tool(f"ip netns add {name}")
            made.append(name)
            tool(f"ip -n {name} link set lo up")
        yield
    finally:
        for name in made:
            tool(f"ip netns del {name}")


def cable(node: int, qdisc: str) -> None:
    """Connect a node's namespace to the switch; both ends send through ``qdisc``, if there is one."""
    name = namespace(node)
    tool(f"ip -n {name} link add eth0 type veth peer name port{node} netns {_SWITCH}")
    tool(f"ip -n {name} addr add {address(node)}/24 dev eth0")
    tool(f"ip -n {name} link set eth0 up")
    tool(f"ip -n {_SWITCH} link set port{node} master br0 up")
    if qdisc:
        tool(f"tc -n {name} qdisc add dev eth0 root {qdisc}")
        if qdisc.startswith("tbf"):  # a delay is wanted once, a limit in both directions
            tool(f"tc -n {_SWITCH} qdisc add dev port{node} root {qdisc}")


@contextmanager
def switched(n_nodes: int, qdisc: str) -> Iterator[None]:
    """Make a switch with a namespace for each node around it."""
    with namespaces([_SWITCH, *map(namespace, range(n_nodes))]):
        tool(f"ip -n {_SWITCH} link add br0 type bridge")
        tool(f"ip -n {_SWITCH} link set br0 up")
        for node in range(n_nodes):
            cable(node, qdisc)
        yield


@contextmanager
def routed(n_nodes: int, delay: float) -> Iterator[None]:
    """Make a namespace for each node, and a router that holds every packet for ``delay`` seconds."""
    with namespaces([namespace(node) for node in range(n_nodes)]):
        tunnels = []
        for node in range(n_nodes):
            tunnel = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(tunnel, _TUNSETIFF, struct.pack("16sH22x", b"dllama%d" % node, _IFF_TUN_NO_PI))
            tool(f"ip link set dllama{node} netns {namespace(node)}")
            tool(f"ip -n {namespace(node)} addr add {address(node)}/24 dev dllama{node}")
            tool(f"ip -n {namespace(node)} link set dllama{node} up")
            tunnels.append(tunnel)
        router = multiprocessing.get_context("fork").Process(target=route, args=(tunnels, delay))
        router.start()
        try:
            yield
        finally:
            router.kill()
            router.join()
            for tunnel in tunnels:
                os.close(tunnel)


def route(tunnels: Sequence[int], delay: float) -> None:
    """Pass packets on to the node of their last address byte, each after ``delay`` seconds."""
    waiting: list[tuple[float, int, bytes]] = []
    n_packets = 0
    while True:
        patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select(tunnels, [], [], patience)
        for tunnel in readable:
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet = os.read(tunnel, 65_536)
                    n_packets += 1
                    heapq.heappush(waiting, (time.monotonic() + delay, n_packets, packet))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            packet = heapq.heappop(waiting)[2]
            if packet[0] >> 4 == 4 and 0 < packet[19] <= len(tunnels):
                os.write(tunnels[packet[19] - 1], packet)


def has_netem() -> bool:
    """Tell whether this kernel can delay packets by itself."""
    with namespaces([_SWITCH]):
        command = f"tc -n {_SWITCH} qdisc add dev lo root netem delay 1ms".split()
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def is_listening(node: int) -> bool:
    """Look whether a node's worker listens."""
    command = ["ip", "netns", "exec", namespace(node), "cat", "/proc/net/tcp"]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return any(f":{_PORT:04X} 00000000:0000 0A" in line for line in table.splitlines())


def token_seconds(options: argparse.Namespace, n_nodes: int) -> float:
    """Run a cluster in the namespaces that are there; return seconds a token of the prediction."""
    python = [sys.executable, "-m"]
    with ExitStack() as stack:
        for node in range(1, n_nodes):
            command = [
                "ip",
                "netns",
                "exec",
                namespace(node),
                *python,
                "dllama_worker",
                "--host",
                address(node),
            ]
            process = subprocess.Popen(
                [*command, "--port", str(_PORT), "--nthreads", "1"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        while not all(is_listening(node) for node in range(1, n_nodes)):
            time.sleep(0.05)
        result = subprocess.run(
            ["ip", "netns", "exec", namespace(0), *python, "dllama_worker.root", "inference", "--model",
             str(options.model), "--tokenizer", str(options.tokenizer), "--prompt", "Hello", "--steps",
             str(options.steps), "--temperature", "0", "--max-seq-len", "256", "--nthreads", "1", "--json",
             "--workers", *(f"{address(node)}:{_PORT}" for node in range(1, n_nodes))],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if result.returncode:
            raise RuntimeError(result.stderr)
        return 1 / float(json.loads(result.stdout)["prediction"]["tokens_per_second"])


def added(demand: Demand, link: LinkSpeed) -> float:
    """Return what the model says that a link's latency and speed add to a token."""
    return sum(sync_seconds(segment, link) for segment in demand.syncs)


def show(n_nodes: int, what: str, base: float, measured: float, expected: float) -> None:
    """Print a row; ``base`` is the token without delay or limit, ``expected`` what the model adds to it."""
    total = base + expected
    print(
        f"| {n_nodes} | {what} | {1000 * base:.1f} | {1000 * measured:.1f} | {1000 * total:.1f} | "
        f"{100 * (total / measured - 1):+.0f} % |",
        flush=True,
    )


def main() -> None:
    """Measure delays, then limits, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--nodes", type=int, nargs="*", default=[2, 4, 8])
    parser.add_argument("--delays", type=float, nargs="*", default=[2, 10], help="milliseconds, one way")
    parser.add_argument("--rates", type=float, nargs="*", default=[100, 20], help="Mbit/s")
    parser.add_argument("--steps", type=int, default=24)
    options = parser.parse_args()
    header = open_model(options.model, OpenOptions(256)).header
    netem = has_netem()
    print(f"{options.model.name}, delays by {'netem' if netem else 'a router of our own'}\n")
    print(
        "| nodes | link | ms/token without | ms/token measured | by the model | off |\n|---|---|---|---|---|---|"
    )
    for n_nodes in options.nodes:
        partition = partition_evenly(header, n_nodes)
        demand = count_demand(header, partition, sync_type_of(header.weight_float_type))
        with switched(n_nodes, "") if netem else routed(n_nodes, 0):
            base = token_seconds(options, n_nodes)
        for delay in options.delays:
            with switched(n_nodes, f"netem delay {delay}ms") if netem else routed(n_nodes, delay / 1000):
                measured = token_seconds(options, n_nodes)
            link = LinkSpeed("", _UNLIMITED, delay / 1000, message_seconds=0)
            show(n_nodes, f"{delay:g} ms", base, measured, added(demand, link))
        with switched(n_nodes, ""):
            base = token_seconds(options, n_nodes)
        for rate in options.rates:
            with switched(n_nodes, f"tbf rate {rate}mbit burst 1600 latency 2s"):
                measured = token_seconds(options, n_nodes)
            link = LinkSpeed("", rate * 1e6, 0.0, message_seconds=0)
            show(n_nodes, f"{rate:g} Mbit/s", base, measured, added(demand, link))


if __name__ == "__main__":
    main()
