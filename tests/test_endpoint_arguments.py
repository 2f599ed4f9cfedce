"""Hosts and ports on real command lines: what people write instead ends with 2, and a line says what to write."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dllama_proto.endpoint import Endpoint
from dllama_proto.exit_codes import ExitCode
from dllama_worker.root.flags import make_parser, options_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PROGRAMS = {
    "dllama-proto": "dllama_proto",
    "dllama-worker": "dllama_worker",
    "dllama-root": "dllama_worker.root",
}
WORKERS = "dllama-root inference --prompt x --workers"
WORKER = "dllama-worker"
DOCTOR = "dllama-worker doctor --peer"
TAP = "dllama-proto tap"
IPV6 = socket.has_ipv6


def run(line: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = line.split(" ")
    return subprocess.run(
        [sys.executable, "-m", PROGRAMS[program], *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        # A comma list.
        (f"{WORKERS} A:1,B:2", "argument --workers: expected one HOST:PORT, got 'A:1,B:2': "
            "separate workers by spaces: A:1 B:2"),
        (f"{WORKERS} A:1, B:2", "separate workers by spaces: A:1"),
        (f"{DOCTOR} A:1,B:2", "argument --peer: expected one HOST:PORT, got 'A:1,B:2': "
            "separate workers by spaces: A:1 B:2"),
        (f"{TAP} --listen :1,:2 --to A:1", "argument --listen: expected one HOST:PORT, got ':1,:2': "
            "give the flag again for each"),
        (f"{TAP} --listen :1 --to A:1,B:2", "argument --to: expected one HOST:PORT, got 'A:1,B:2': "
            "give the flag again for each"),
        (f"{WORKER} --host 10.0.0.2,10.0.0.3", "argument --host: expected one host, got '10.0.0.2,10.0.0.3': "
            "0.0.0.0 stands for all addresses of this machine"),
        (f"{WORKER} --allow 10.0.0.0/8,192.168.0.0/16", "argument --allow: expected one network, got "
            "'10.0.0.0/8,192.168.0.0/16': separate them by spaces: 10.0.0.0/8 192.168.0.0/16"),
        # A URL.
        (f"{WORKERS} http://10.0.0.2:9990/", "leave out http:// and /: 10.0.0.2:9990"),
        (f"{DOCTOR} tcp://node", "leave out tcp://: node:9990"),
        (f"{TAP} --listen :1 --to http://[::1]:9990", "argument --to: expected HOST:PORT, got "
            "'http://[::1]:9990': leave out http://: [::1]:9990"),
        (f"{WORKER} --host http://10.0.0.2/", "argument --host: expected a host, got 'http://10.0.0.2/': "
            "leave out http://: 10.0.0.2"),
        # The same twice.
        (f"{WORKERS} 10.0.0.2:1 10.0.0.2:1", "argument --workers: 10.0.0.2:1 is there twice: name each once"),
        (f"{WORKERS} node:1 --workers NODE.:1", "argument --workers: NODE.:1 is there twice: name each once"),
        (f"{WORKERS} [::1]:1 [0:0::1]:1", "argument --workers: [0:0::1]:1 is there twice: name each once"),
        (f"{DOCTOR} node node:9990", "argument --peer: node:9990 is there twice: name each once"),
        (f"{TAP} --listen :1 --listen 127.0.0.1:1 --to A:1 --to B:1", "error: argument --listen: "
            "127.0.0.1:1 is there twice: give each its own port"),
        (f"{TAP} --listen :1 --listen :2 --to A:1 --to a:1", "error: argument --to: a:1 is there twice: "
            "name each worker once"),
        # A port too few, too many, or of another flag.
        (f"{WORKERS} 10.0.0.2", "add the port, as 10.0.0.2:9990"),
        (f"{WORKERS} 10.0.0.2:port", "the port is a number from 1 to 65535"),
        (f"{WORKER} --host 10.0.0.2:9990", "argument --host: expected a host without a port, got "
            "'10.0.0.2:9990': write 10.0.0.2, and 9990 with the flag of the port"),
        (f"{WORKER} --host [::1]:9990", "write ::1, and 9990 with the flag of the port"),
        (f"{WORKER} --metrics-host 10.0.0.2:80", "argument --metrics-host: expected a host without a port"),
        (f"{WORKER} --port 10.0.0.2:9990", "argument --port: expected 0 to 65535, got 10.0.0.2:9990: "
            "the host has a flag of its own"),
        (f"{WORKER} --port 99999", "argument --port: expected 0 to 65535, got 99999"),
        # IPv6 without brackets, and brackets round something else.
        (f"{WORKERS} fe80::2:9990", "put the IPv6 address in brackets: [fe80::2]:9990"),
        (f"{WORKERS} fe80::2", "put the IPv6 address in brackets: [fe80::2]:9990"),
        (f"{DOCTOR} ::1", "put the IPv6 address in brackets: [::1]:9990"),
        (f"{TAP} --listen ::1:9990 --to A:1", "put the IPv6 address in brackets: [::1]:9990"),
        (f"{WORKERS} [10.0.0.2]:9990", "leave out the brackets: 10.0.0.2:9990"),
        # What only a tap has.
        (f"{TAP} --listen :1 --to :1", "error: 127.0.0.1:1 would forward to itself"),
        (f"{TAP} --listen :1 --listen :2 --to A:1", "error: every --listen needs its --to"),
        (f"{TAP} --listen :0 --to A:1 --peers A:1", "argument --peers: expected HOST:PORT=HOST:PORT, got 'A:1': "
            "first the address that the root sends, then the one to send instead"),
    ],
)  # fmt: skip
def test_what_people_write_instead_ends_with_2_and_says_what_to_write(line: str, advice: str) -> None:
    done = run(line)
    assert (done.returncode, done.stdout) == (ExitCode.CALLER, "")
    [told] = [said for said in done.stderr.splitlines() if "error: " in said]
    assert advice in told
    assert told == done.stderr.splitlines()[-1]


def test_the_flag_given_again_adds_workers() -> None:
    parser = make_parser()
    arguments = parser.parse_args(
        ["inference", "--prompt", "x", "--workers", "A:1", "B:2", "--workers", "[::1]:3"]
    )
    workers = options_of(parser, arguments).workers
    assert workers == (Endpoint("A", 1), Endpoint("B", 2), Endpoint("::1", 3))
    assert parser.parse_args(["chat"]).workers == []


@pytest.mark.skipif(not IPV6, reason="needs IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_a_worker_listens_on_ipv6_with_brackets_and_without(host: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "dllama_worker", "--host", host, "--port", "0"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stderr is not None
        said = worker.stderr.readline()
        worker.terminate()
    if "Cannot assign requested address" in said:
        pytest.skip("this machine has no address ::1")
    assert re.search(r"listening on \[::1\]:\d+ ", said)
    assert worker.returncode == ExitCode.DONE


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (f"{WORKERS} [::1]:9", "lost node 1 ([::1]:9) cannot be reached"),
        (f"{WORKERS} 127.0.0.1:9", "lost node 1 (127.0.0.1:9) cannot be reached"),
    ],
)
def test_a_node_is_named_as_it_was_written(line: str, named: str) -> None:
    done = run(line)
    assert done.returncode == ExitCode.PEER
    assert named in done.stderr
