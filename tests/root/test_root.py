"""Root for programs: the command's text, one text after another, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dllama_worker
from dllama_proto.endpoint import Endpoint
from dllama_worker import ClusterOptions, GenerationOptions, Root, StopReason, Worker
from dllama_worker.demo import MODEL_PATH, TOKENIZER_PATH
from dllama_worker.errors import MachineError, PeerLost, UsageError
from dllama_worker.root.local_workers import LocalWorkers
from dllama_worker.sharding.split import Split
from tests.faults.endurance import Holdings
from tests.helpers.serving import serving

REPOSITORY = Path(__file__).parents[2]
PROMPT = "ROMEO:\nWhat light"


@pytest.fixture(scope="module")
def root() -> Iterator[Root]:
    """A root alone, with the demo model."""
    with Root() as root:
        yield root


def command(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "dllama_worker.root", "inference", "--json", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


# The command's text ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [0, 2])
def test_text_and_tokens_are_those_of_the_command(n_workers: int) -> None:
    with Root(local_workers=n_workers) as root:
        for temperature, seed in [(0.0, 0), (0.8, 7), (1.2, 8), (0.8, 7)]:
            found = command(
                "--prompt", PROMPT, "--steps", "80", "--temperature", f"{temperature}", "--seed", f"{seed}",
                "--local-workers", f"{n_workers}",
            )  # fmt: skip
            n_prompt = len(root.tokenizer.encode(PROMPT))
            completion = root.generate(
                PROMPT, max_tokens=81 - n_prompt, temperature=temperature, seed=seed, ignore_eos=True
            )
            assert "".join(completion) == found["text"]
            assert completion.tokens == found["tokens"]
            assert completion.prompt_tokens == found["prompt_tokens"]


# One text after another -----------------------------------------------------------------------------


def test_every_text_begins_anew(root: Root) -> None:
    texts = [root.generate(PROMPT, max_tokens=20, seed=3).finish() for _ in range(2)]
    root.generate("JULIET: something else", max_tokens=30, seed=4).finish()
    texts.append(root.generate(PROMPT, max_tokens=20, seed=3).finish())
    assert len(set(texts)) == 1


def test_a_text_that_is_left_in_the_middle_is_cancelled_by_the_next(root: Root) -> None:
    whole = root.generate(PROMPT, max_tokens=20, seed=3).finish()
    left = root.generate("JULIET:", max_tokens=50)
    for _ in left:
        break
    assert root.generate(PROMPT, max_tokens=20, seed=3).finish() == whole
    assert left.stop_reason is StopReason.CANCELLED
    with pytest.raises(UsageError, match="another text was begun on this root"):
        next(left)


def test_a_prompt_that_cannot_be_cancels_nothing(root: Root) -> None:
    completion = root.generate(PROMPT, max_tokens=3)
    with pytest.raises(UsageError, match="no tokens"):
        root.generate([])
    assert completion.finish()


def test_a_long_common_beginning_is_not_evaluated_again(root: Root) -> None:
    tokens = root.tokenizer.encode("To be, or not to be: that is the question. " * 6)
    first = root.generate(tokens[:100], max_tokens=2)
    first.finish()
    second = root.generate(tokens[:90], max_tokens=2)
    second.finish()
    assert (first.timings.reused_tokens, second.timings.reused_tokens) == (0, 64)
    assert second.timings.evaluation.rows == 26


def test_generation_options_hold_everything(root: Root) -> None:
    options = GenerationOptions(max_tokens=4, temperature=0, stop=("x",))
    completion = root.generate(PROMPT, options=options)
    completion.finish()
    assert len(completion.tokens) == 4
    with pytest.raises(UsageError, match="options hold everything"):
        root.generate(PROMPT, max_tokens=3, options=options)
    assert root.generate(PROMPT, stop="\n", temperature=0).finish().count("\n") == 0


def test_two_threads_cannot_generate_at_once(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    completion = root.generate(PROMPT, max_tokens=5)
    is_computing, go_on = threading.Event(), threading.Event()
    inference = completion._generation.inference
    evaluate = inference._evaluate

    def wait(position: int, tokens: Any) -> None:
        is_computing.set()
        assert go_on.wait(30)
        evaluate(position, tokens)

    monkeypatch.setattr(inference, "_evaluate", wait)
    thread = threading.Thread(target=completion.finish)
    thread.start()
    assert is_computing.wait(30)
    try:
        with pytest.raises(UsageError, match="another thread is generating"):
            next(completion)
        with pytest.raises(UsageError, match="another thread is generating"):
            root.generate(PROMPT)
    finally:
        go_on.set()
        thread.join(30)
    assert len(completion.tokens) == 5


@pytest.mark.parametrize("closes", [False, True])
def test_another_thread_may_cancel_or_close(closes: bool) -> None:
    root = Root().open()
    completion = root.generate(PROMPT, ignore_eos=True)
    complaints: list[str] = []

    def write() -> None:
        try:
            completion.finish()
        except UsageError as error:
            complaints.append(str(error))

    thread = threading.Thread(target=write)
    thread.start()
    while len(completion.tokens) < 3:
        time.sleep(0.001)
    if closes:
        root.close()
    else:
        completion.cancel("enough")
    thread.join(30)
    root.close()
    assert (completion.stop_reason, completion.failure) == (StopReason.CANCELLED, None)
    assert complaints == ["the root was closed" if closes else "enough"]


def test_facts_of_an_open_root(root: Root) -> None:
    assert root.header.seq_len == 512
    assert root.tokenizer.vocab_size == root.header.vocab_size
    assert root.load_seconds > 0


# Open and closed ------------------------------------------------------------------------------------


def test_a_root_opens_and_closes_as_often_as_one_likes() -> None:
    root = Root()
    for _ in range(2):
        assert root.open() is root
        session = root._session
        assert root.open()._session is session
        assert root.generate(PROMPT, max_tokens=2, temperature=0).finish()
        root.close()
        root.close()


def test_what_needs_an_open_root_says_so() -> None:
    root = Root()
    for use in (lambda: root.generate("x"), lambda: root.tokenizer, lambda: root.header):
        with pytest.raises(UsageError, match="the root is not open"):
            use()
    root.close()


def test_closing_ends_a_text() -> None:
    with Root() as root:
        completion = root.generate(PROMPT)
        next(completion)
    with pytest.raises(UsageError, match="the root was closed"):
        next(completion)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"tokenizer": "x.t"}, "tokenizer belongs to a model"),
        ({"workers": ["10.0.0.1"]}, "workers: .*add the port"),
        ({"workers": ["10.0.0.1:9990", Endpoint("10.0.0.1", 9990)]}, "is there twice"),
        ({"split": "most"}, "split: expected even, auto"),
        ({"local_workers": -1}, "local_workers: expected 0 or more"),
        ({"n_threads": 0}, "n_threads: expected 1 or more"),
        ({"n_threads": 2, "options": ClusterOptions()}, "options hold everything"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_anything_is_opened(
    arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        Root(**arguments)


def test_the_usual_arguments_are_options() -> None:
    root = Root(MODEL_PATH, str(TOKENIZER_PATH), ["a:1"], split="3:1", n_threads=2, max_seq_len=64)
    assert root.options == ClusterOptions(
        model=MODEL_PATH,
        tokenizer=TOKENIZER_PATH,
        workers=(Endpoint("a", 1),),
        split=Split((3.0, 1.0)),
        n_threads=2,
        max_seq_len=64,
    )


# What is left behind --------------------------------------------------------------------------------


def _children() -> set[str]:
    return {
        child for path in Path("/proc/self/task").glob("*/children") for child in path.read_text().split()
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
@pytest.mark.parametrize("is_left", [False, True])
def test_a_closed_root_leaves_no_thread_process_or_descriptor(is_left: bool) -> None:
    """Also where a text was left in the middle; after a first round, which loads what stays for good."""

    def use() -> None:
        with serving(1) as addresses:
            options = {"workers": addresses, "local_workers": 1, "n_threads": 2}
            with Root(**options) as root:  # type: ignore[arg-type] # a test's shortcut
                completion = root.generate(PROMPT, max_tokens=6)
                next(completion)
                if not is_left:
                    completion.finish()
                assert _children() > before_children

    before_children = _children()
    use()
    before, threads = Holdings.of(os.getpid()), threading.active_count()
    use()
    after = Holdings.of(os.getpid())
    assert after.descriptors == before.descriptors
    assert after.threads == before.threads
    assert threading.active_count() == threads
    assert _children() == before_children


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
def test_a_root_that_cannot_open_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before, children = Holdings.of(os.getpid()), _children()
    root = Root(workers=["127.0.0.1:9"], local_workers=1)
    with pytest.raises(PeerLost, match=r"node 1 \(127\.0\.0\.1:9\)"):
        root.open()
    assert _children() == children
    assert Holdings.of(os.getpid()).descriptors == before.descriptors
    with pytest.raises(UsageError, match="not open"):
        root.generate("x")

    def fail(self: LocalWorkers) -> LocalWorkers:
        raise MachineError("no process")

    monkeypatch.setattr(LocalWorkers, "__enter__", fail)
    with pytest.raises(MachineError, match="no process"):
        root.open()


# A worker is lost -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_lost_worker_ends_the_text_and_the_root_until_it_is_opened_again() -> None:
    with Worker(port=0) as lasting:
        lasting.start()
        with Worker(port=0) as passing:
            passing.start()
            root = Root(workers=[lasting.address, passing.address])
            with root:
                completion = root.generate(PROMPT, temperature=0)
                next(completion)
                passing.stop()
                with pytest.raises(PeerLost, match="node 2"):
                    completion.finish()
                assert isinstance(completion.failure, PeerLost)
                assert completion.text
                with pytest.raises(UsageError, match=r"the session has ended \(PeerLost"):
                    root.generate(PROMPT)
        with Root(workers=[lasting.address]) as root:
            assert root.generate(PROMPT, max_tokens=3).finish()


@pytest.mark.slow
def test_with_reconnect_a_text_goes_on() -> None:
    with Root() as alone:
        expected = alone.generate(PROMPT, max_tokens=30, temperature=0).finish()
    with Worker(port=0) as first:
        first.start()
        address = first.address
        options = ClusterOptions(workers=(address,), reconnect=30.0)
        with Root(options=options) as root:
            completion = root.generate(PROMPT, max_tokens=30, temperature=0)
            text = "".join(next(completion) for _ in range(4))
            first.stop()
            first.close()
            with Worker(port=address.port) as second:
                second.start()
                text += "".join(completion)
    assert len(completion.tokens) == 30
    assert text[:20] == expected[:20]


# Ctrl-C ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_interrupt_in_the_middle_of_a_forward_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(1) as addresses, Root(workers=addresses) as root:
        completion = root.generate(PROMPT)
        next(completion)
        inference = completion._generation.inference

        def interrupted(position: int, batch_size: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(inference._node, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            completion.finish()
        with pytest.raises(UsageError, match="KeyboardInterrupt"):
            root.generate(PROMPT)
        started = time.monotonic()
    assert time.monotonic() - started < 10


# Imports --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("use", "is_loaded"),
    [("", False), ("dllama_worker.Root", True), ("dllama_worker.ClusterOptions", False)],
)
def test_importing_the_package_loads_the_root_only_when_it_is_used(use: str, is_loaded: bool) -> None:
    program = (
        f"import dllama_worker, sys; {use or None}; print({{'numpy', 'construct'}} & set(sys.modules))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    assert (done.stdout.strip() != "set()") is is_loaded


def test_the_public_names_are_lazy_and_there() -> None:
    assert {name for name in dllama_worker.__all__ if hasattr(dllama_worker, name)} == set(
        dllama_worker.__all__
    )
    with pytest.raises(AttributeError, match="no attribute 'Roots'"):
        dllama_worker.Roots  # noqa: B018
