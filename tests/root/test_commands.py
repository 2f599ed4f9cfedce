"""What the commands print: text alone on standard output, one JSON object, and what is refused."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dllama_worker.errors import UsageError
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.report import Report
from dllama_worker.root.commands import run_chat, run_inference, run_perplexity
from dllama_worker.root.commands.output import Output
from dllama_worker.root.options import RootOptions
from dllama_worker.root.session import RootSession, open_session


@pytest.fixture(scope="module")
def shared_session() -> Iterator[RootSession]:
    """A root alone, with the demo model."""
    with open_session(RootOptions("inference", max_seq_len=96), Report()) as session:
        yield session


@pytest.fixture
def session(shared_session: RootSession) -> RootSession:
    shared_session.inference.position = 0
    return shared_session


def test_generated_text_goes_to_standard_output_alone(
    session: RootSession, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    run_inference(session, RootOptions("inference", prompt="ROMEO:", steps=16, temperature=0))
    out, err = capfdbinary.readouterr()
    assert out.startswith(b"ROMEO:")
    assert out.endswith(b"\n")
    assert b"tokens/s" not in out
    assert b"Evaluation: 6 tokens" in err
    assert b"Prediction: 10 tokens" in err


def test_json_is_one_object_and_nothing_else(
    session: RootSession, capsys: pytest.CaptureFixture[str]
) -> None:
    options = RootOptions("inference", prompt="ROMEO:", steps=16, temperature=0, as_json=True)
    run_inference(session, options)
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == ""
    assert list(document) == [
        "command", "prompt", "prompt_tokens", "tokens", "text", "load_seconds", "evaluation", "prediction",
        "nodes",
    ]  # fmt: skip
    assert document["evaluation"]["tokens"] == len(document["prompt_tokens"])
    assert document["nodes"][0]["tokens"] == (
        document["evaluation"]["tokens"] + document["prediction"]["tokens"]
    )


def test_perplexity_generates_nothing(session: RootSession, capsys: pytest.CaptureFixture[str]) -> None:
    run_perplexity(session, RootOptions("perplexity", prompt="ROMEO: hello", as_json=True))
    document = json.loads(capsys.readouterr().out)
    assert "prediction" not in document
    assert document["evaluation"]["tokens"] == len(document["prompt_tokens"]) - 1
    assert document["perplexity"] > 1


@pytest.mark.parametrize(
    ("prompt", "steps", "complaint"),
    [("ROMEO:", 3, "more than the 3 of --steps or the context"), ("a" * 300, 0, "more than the 96 of")],
)
def test_a_prompt_that_does_not_fit_is_refused(
    session: RootSession, prompt: str, steps: int, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        run_inference(session, RootOptions("inference", prompt=prompt, steps=steps))


def test_perplexity_needs_two_tokens(session: RootSession) -> None:
    with pytest.raises(UsageError, match="needs a text of 2 tokens or more, this one has 1"):
        run_perplexity(session, RootOptions("perplexity", prompt=""))


def test_perplexity_of_a_text_longer_than_the_context(
    session: RootSession, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "ROMEO:\nBut, soft! what light through yonder window breaks?\n" * 8
    n_tokens = len(session.tokenizer.encode(text))
    assert n_tokens > 96
    run_perplexity(session, RootOptions("perplexity", prompt=text, stride=40, as_json=True))
    document = json.loads(capsys.readouterr().out)
    assert document["counted_tokens"] == n_tokens - 1
    assert document["counted_bytes"] == len(text)
    assert (document["context"], document["stride"]) == (96, 40)
    assert document["windows"] == 1 + -(-(n_tokens - 96) // 40)
    nats = document["counted_tokens"] * math.log(document["perplexity"])
    assert document["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(text))
    run_perplexity(session, RootOptions("perplexity", prompt=text))
    assert f"({n_tokens} tokens, in " in (out := capsys.readouterr().out)
    assert "windows of 96, stride 48, lower is better)\nbits per byte: " in out


def test_chat_asks_on_standard_error_and_ends_with_the_input(
    session: RootSession, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Be brief.\n\nWho?\n"))
    run_chat(session, RootOptions("chat", chat_template="llama2", temperature=0))
    out, err = capfd.readouterr()
    assert "\nAssistant\n" in out
    assert "User" not in out
    assert err.startswith("System prompt (optional): \nUser\n> \nUser\n> ")
    assert "Evaluation: " in err


def test_chat_tells_which_variables_its_template_does_not_look_at(
    session: RootSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text("{{ 1 // divisor }}{% for message in messages %}{{ message.content }}{% endfor %}")
    monkeypatch.setattr("sys.stdin", io.StringIO("\nWho?\n"))
    options = RootOptions(
        "chat", chat_template=str(template), template_variables={"divisor": 1, "divisr": 0}
    )
    run_chat(session, options)
    assert (
        "(the chat template does not look at divisr, only at divisor, messages)\n" in capfd.readouterr().err
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("\nWho?\n"))
    with pytest.raises(UsageError, match=r"mine\.jinja fails on this conversation: .*by zero"):
        run_chat(session, replace(options, template_variables={"divisor": 0}))


def test_chat_as_json_has_the_turns(
    session: RootSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\nWho?\n"))
    run_chat(session, RootOptions("chat", chat_template="llama2", temperature=0, as_json=True))
    document = json.loads(capsys.readouterr().out)
    assert (document["command"], document["template"]) == ("chat", "llama2")
    assert [turn["user"] for turn in document["turns"]] == ["Who?"]


def test_nothing_is_printed_before_json_is_finished(
    session: RootSession, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Output(as_json=True)
    output.say("prompt")
    output.write(b"text")
    assert capsys.readouterr() == ("", "")
    output.finish(session, {"command": "x"}, ForwardTimes(2, 1, 1.0, 0.0))
    assert json.loads(capsys.readouterr().out)["evaluation"]["tokens_per_second"] == 2.0
