"""Roots as people run them, on a terminal: Ctrl-C, errors in the middle of text, the chat's editor."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.helpers.processes import worker_process
from tests.helpers.terminals import on_terminal

pytestmark = pytest.mark.slow

ROOT = "dllama_worker.root"
ENDLESS = ("inference", "--prompt", "ROMEO:", "--temperature", "0.7", "--seed", "7")
CHAT = ("chat", "--chat-template", "llama2", "--temperature", "0.7", "--seed", "7")


def test_ctrl_c_ends_the_text_and_shows_the_summary() -> None:
    with on_terminal(ROOT, *ENDLESS, "--local-workers", "2") as root:
        root.wait_for("connected to node 2")
        root.wait_for("ROMEO:\r\n.")
        root.type("\x03")
        assert root.wait() == 130
    summary = root.said[root.said.index("Evaluation: 6 tokens") :]
    generated = re.search(r"Prediction: (\d+) tokens?", summary)
    assert generated is not None
    assert int(generated[1]) < 506  # it had room for as many
    # The nodes ended together: even local workers tell what they did.
    assert re.search(r"\n2 \(127\.0\.0\.1:\d+\) +\d\.\d\d s +\d\.\d\d s ", summary)
    assert "error" not in root.said


def test_ctrl_c_leaves_a_worker_ready_for_the_next_root() -> None:
    with worker_process() as worker:
        for _ in range(2):
            with on_terminal(ROOT, *ENDLESS, "--workers", f"127.0.0.1:{worker.port}") as root:
                root.wait_for("ROMEO:\r\n.")
                root.type("\x03")
                assert root.wait() == 130
            assert worker.wait_for("session_ended")["reason"] == "the root stopped"


def test_before_the_weights_it_says_what_is_loaded_and_who_is_there() -> None:
    with on_terminal(ROOT, "inference", "--prompt", "x", "--steps", "4", "--local-workers", "1") as root:
        root.wait_for(r"model demo-q40\.m: llama, 4 layers of 256, q40, 1\.9 MB, context 512 tokens\r\n")
        root.wait_for(r"split: even, root and 1 worker\r\n")
        root.wait_for(r"connected to node 1 \(127\.0\.0\.1:\d+\)\r\n")
        root.wait_for("weights loaded")
        assert root.wait() == 0


def test_an_error_in_the_middle_of_a_line_of_text_has_a_line_of_its_own() -> None:
    with (
        worker_process() as worker,
        on_terminal(ROOT, *ENDLESS, "--workers", f"127.0.0.1:{worker.port}") as root,
    ):
        root.wait_for("ROMEO:\r\n[A-Z]")
        os.kill(worker.process.pid, signal.SIGKILL)
        assert root.wait() == 3
    [line] = [line for line in root.said.splitlines() if "lost node 1" in line]
    assert re.match(r"\d\d:\d\d:\d\d error: lost node 1 ", line)


def test_chat_has_an_editor_a_history_and_commands(tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    with on_terminal(ROOT, *CHAT, "--system", "Be brief.", "--max-seq-len", "256") as root:
        root.wait_for("User\r+\n>")
        root.type("ho are you?\x01W\r")  # Ctrl-A goes to the beginning
        root.wait_for(r"\(\d+ tokens, \d+\.\d tokens/s\)")
        root.wait_for("User\r+\n>")
        root.type("half a line\x03")
        root.wait_for(r"\(Ctrl-D or /exit ends the chat\)")
        root.wait_for("User\r+\n>")
        root.type("\x1b[A\r")  # the arrow up
        root.wait_for(r"\(\d+ tokens?")
        root.wait_for("User\r+\n>")
        root.type(f"/save {saved}\r")
        root.wait_for(r"\(saved \d messages")
        root.wait_for("User\r+\n>")
        root.type("/exit\r")
        assert root.wait() == 0
    messages = [
        (message["role"], message["content"]) for message in json.loads(saved.read_text())["messages"]
    ]
    assert messages[0] == ("system", "Be brief.")
    assert [content for role, content in messages if role == "user"][-1] == "Who are you?"
    assert "Evaluation: " in root.said


def test_ctrl_c_in_a_chat_ends_the_reply_and_not_the_cluster() -> None:
    with on_terminal(ROOT, *CHAT, "--local-workers", "3") as root:
        root.wait_for("System prompt")
        root.type("\r")
        root.wait_for("User\r+\n>")
        root.type("Who are you?\r")
        root.wait_for("Assistant\r\n.")
        root.type("\x03")
        root.wait_for(r"\(stopped\)")
        root.wait_for("User\r+\n>")
        root.type("And who am I?\r")
        root.wait_for("Assistant\r\n.")
        root.type("\x03")
        root.wait_for(r"\(stopped\)")
        root.wait_for("User\r+\n>")
        root.type("\x03")
        root.wait_for("ends the chat")
        root.wait_for("User\r+\n>")
        root.type("\x03")
        assert root.wait() == 130
    assert "Prediction: " in root.said
    assert "error" not in root.said


def test_without_the_editor_lines_are_plain(tmp_path: Path) -> None:
    (tmp_path / "prompt_toolkit.py").write_text("raise ImportError('not here')\n")
    environment = {"PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))}
    with on_terminal(ROOT, *CHAT, "--max-seq-len", "96", environment=environment) as root:
        root.wait_for(r"System prompt \(optional\): ")
        root.type("\r")
        root.wait_for("> ")
        root.type("Who?\r")
        root.wait_for(r"\(\d+ tokens")
        root.wait_for("> ")
        root.type("\x04")
        assert root.wait() == 0
    assert "Evaluation: " in root.said
