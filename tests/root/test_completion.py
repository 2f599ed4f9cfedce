"""Texts as they come: what is returned when, where they end and why, and that reuse changes no number."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_worker.errors import BadLogits, UsageError
from dllama_worker.report import Report
from dllama_worker.root.completion import Completion, StopReason
from dllama_worker.root.inference import Inference
from dllama_worker.root.options import ClusterOptions, GenerationOptions
from dllama_worker.root.prompt_cache import PromptCache
from dllama_worker.root.sampler import Sampler
from dllama_worker.root.session import RootSession, open_session
from dllama_worker.root.stop_strings import StopStrings
from tests.helpers.serving import serving

PROMPT = "ROMEO:\nWhat light"


@pytest.fixture(scope="module")
def session() -> Iterator[RootSession]:
    """A root alone, with the demo model."""
    with open_session(ClusterOptions(max_seq_len=256), Report()) as session:
        yield session


def complete(session: RootSession, prompt: Any = PROMPT, **options: Any) -> Completion:
    options = {"temperature": 0.0, **options}
    return Completion(session.inference, session.tokenizer, prompt, GenerationOptions(**options))


class Written(Sampler):
    """Writes what a test says, whatever the logits are."""

    tokens: list[int]

    def __init__(self, temperature: float, topp: float, seed: int, vocab_size: int | None = None) -> None:
        super().__init__(temperature, topp, seed, vocab_size)
        self._left = iter(self.tokens)

    def sample(self, logits: Any) -> int:
        return next(self._left)


@pytest.fixture
def written(session: RootSession, monkeypatch: pytest.MonkeyPatch) -> type[Written]:
    """The sampler that writes; ``tokens`` say what."""
    monkeypatch.setattr("dllama_worker.root.completion.Sampler", Written)
    return Written


def pieces_of(session: RootSession, text: str) -> list[int]:
    """The tokens of single bytes, so that strings are spread over as many tokens as can be."""
    by_byte = {
        piece: token for token, piece in reversed(list(enumerate(session.tokenizer.vocabulary.pieces)))
    }
    return [by_byte[bytes([byte])] for byte in text.encode()]


# What comes when ------------------------------------------------------------------------------------


def test_pieces_make_the_text_and_nothing_is_computed_unasked(session: RootSession) -> None:
    completion = complete(session, max_tokens=12)
    assert (completion.tokens, completion.text, completion.timings.evaluation.rows) == ([], "", 0)
    first = next(completion)
    assert first == completion.text != ""
    n_evaluated = completion.timings.prediction.rows
    assert n_evaluated == len(completion.tokens) - 1
    rest = list(completion)
    assert "".join([first, *rest]) == completion.text
    assert "" not in rest
    assert len(completion.tokens) == 12
    assert (completion.stop_reason, completion.stopped_by) == (StopReason.MAX_TOKENS, None)


def test_tokens_may_be_iterated_instead_and_given_instead_of_text(session: RootSession) -> None:
    by_text = complete(session, max_tokens=8)
    text = by_text.finish()
    by_tokens = complete(session, session.tokenizer.encode(PROMPT), max_tokens=8)
    assert list(by_tokens.token_ids()) == by_tokens.tokens == by_text.tokens
    assert by_tokens.text == text


def test_text_and_tokens_may_take_turns(session: RootSession) -> None:
    whole = complete(session, max_tokens=10)
    whole.finish()
    completion = complete(session, max_tokens=10)
    tokens = list(islice(completion.token_ids(), 3))
    next(completion)
    assert [*tokens, *completion.tokens[3:], *completion.token_ids()][:4] == whole.tokens[:4]
    completion.finish()
    assert completion.text == whole.text


def test_timings_say_what_was_evaluated(session: RootSession) -> None:
    completion = complete(session, max_tokens=5)
    completion.finish()
    timings = completion.timings
    n_prompt = len(session.tokenizer.encode(PROMPT))
    assert (timings.prompt_tokens, timings.reused_tokens, timings.generated_tokens) == (n_prompt, 0, 5)
    assert (timings.evaluation.rows, timings.prediction.rows) == (n_prompt, 4)
    assert timings.prompt_seconds == timings.evaluation.seconds > 0
    assert timings.prompt_tokens_per_second == pytest.approx(n_prompt / timings.prompt_seconds)
    assert timings.generated_tokens_per_second == pytest.approx(4 / timings.generation_seconds)
    assert timings.first_token_seconds >= timings.prompt_seconds


def test_a_token_may_end_inside_a_character(session: RootSession, written: type[Written]) -> None:
    tokens = pieces_of(session, "aä€b")
    assert len(tokens) > len("aä€b")
    written.tokens = tokens
    completion = complete(session, max_tokens=len(tokens))
    assert [*completion] == ["a", "ä", "€", "b"]


# Where it ends --------------------------------------------------------------------------------------


def test_an_end_token_ends_the_text_unless_it_is_ignored(
    session: RootSession, written: type[Written]
) -> None:
    end = session.tokenizer.vocabulary.eos_ids[0]
    a, b = pieces_of(session, "ab")
    written.tokens = [a, end, b]
    completion = complete(session, max_tokens=3)
    assert completion.finish() == "a"
    assert (completion.tokens, completion.stop_reason, completion.stopped_by) == (
        [a, end], StopReason.END, end,
    )  # fmt: skip
    completion = complete(session, max_tokens=3, ignore_eos=True)
    assert completion.finish() == "ab"
    assert completion.tokens == [a, end, b]


def test_a_stop_token_ends_the_text(session: RootSession, written: type[Written]) -> None:
    a, b, c = written.tokens = pieces_of(session, "abc")
    completion = complete(session, stop_tokens=(c, b))
    assert completion.finish() == "a"
    assert (completion.tokens, completion.stop_reason, completion.stopped_by) == (
        [a, b], StopReason.STOP_TOKEN, b,
    )  # fmt: skip


def test_a_stop_string_may_be_spread_over_tokens(session: RootSession, written: type[Written]) -> None:
    written.tokens = pieces_of(session, "one two\nthree")
    completion = complete(session, stop=("\nthr", "unheard"))
    assert "".join(completion) == "one two"
    assert (completion.stop_reason, completion.stopped_by) == (StopReason.STOP_STRING, "\nthr")
    assert len(completion.tokens) == len("one two\nthr")


def test_the_beginning_of_a_stop_string_is_kept_back_until_it_is_none(
    session: RootSession, written: type[Written]
) -> None:
    written.tokens = pieces_of(session, "a<b<")
    completion = complete(session, max_tokens=4, stop=("<|end|>",))
    assert [*completion] == ["a", "<b", "<"]


def test_an_end_token_shows_what_was_kept_back(session: RootSession, written: type[Written]) -> None:
    written.tokens = [*pieces_of(session, "a<"), session.tokenizer.vocabulary.eos_ids[0]]
    assert [*complete(session, stop=("<|end|>",))] == ["a", "<"]


def test_the_context_ends_the_text(session: RootSession) -> None:
    prompt = session.tokenizer.encode(PROMPT * 30)[: session.inference.seq_len - 3]
    completion = complete(session, prompt, ignore_eos=True)
    completion.finish()
    assert len(completion.tokens) == 4  # the last of them needs no position
    assert completion.stop_reason is StopReason.CONTEXT
    full = complete(session, prompt + prompt[:3], max_tokens=9)
    full.finish()
    assert (len(full.tokens), full.stop_reason) == (1, StopReason.CONTEXT)


def test_cancelling_ends_it_quietly_or_with_a_reason(session: RootSession) -> None:
    completion = complete(session, max_tokens=50)
    shown = next(completion)
    completion.cancel()
    assert [*completion, *completion.token_ids()] == []
    assert (completion.text, completion.stop_reason) == (shown, StopReason.CANCELLED)
    other = complete(session, max_tokens=50)
    other.cancel("for a reason")
    with pytest.raises(UsageError, match="for a reason"):
        next(other)


def test_whoever_is_asked_between_forwards_may_cancel(session: RootSession) -> None:
    asked: list[int] = []

    def stopped() -> bool:
        asked.append(len(completion.tokens))
        return len(completion.tokens) == 3

    options = GenerationOptions(max_tokens=9, temperature=0)
    completion = Completion(session.inference, session.tokenizer, PROMPT, options, stopped=stopped)
    text = "".join(completion)
    assert (sorted(set(asked)), completion.tokens[3:], completion.text) == ([0, 1, 2, 3], [], text)
    assert completion.stop_reason is StopReason.CANCELLED


def test_cancelling_what_has_ended_changes_nothing(session: RootSession) -> None:
    completion = complete(session, max_tokens=2)
    completion.finish()
    completion.cancel("too late")
    assert (completion.stop_reason, [*completion]) == (StopReason.MAX_TOKENS, [])


def test_what_ends_the_session_is_kept(session: RootSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Inference, position: int, tokens: Any) -> None:
        self._logits[:] = np.nan

    monkeypatch.setattr(Inference, "_evaluate", fail)
    completion = complete(session)
    with pytest.raises(BadLogits) as caught:
        next(completion)
    assert completion.failure is caught.value
    assert completion.stop_reason is None


# What cannot be -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ([], "the prompt has no tokens"),
        ([1, 512], "the prompt: expected tokens from 0 to 511, which this model has, got 512"),
        ([-1], "got -1"),
        ("a" * 999, "more than the 256 of the context"),
    ],
)
def test_a_prompt_that_cannot_be_is_refused(session: RootSession, prompt: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        complete(session, prompt)


def test_a_stop_token_must_exist(session: RootSession) -> None:
    with pytest.raises(UsageError, match="stop_tokens: expected tokens from 0 to 511"):
        complete(session, stop_tokens=(7, 700))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_tokens": 0}, "max_tokens: expected 1 or more"),
        ({"temperature": -0.5}, "temperature: expected 0 or more, got -0.5"),
        ({"temperature": float("nan")}, "temperature: expected 0 or more, got nan"),
        ({"topp": 1.5}, "topp: expected 0 to 1, got 1.5"),
        ({"seed": -1}, "seed: expected 0 or more"),
        ({"stop": ("a", "")}, "stop: expected texts to end before, got an empty one"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        GenerationOptions(**options)


# Seeds ----------------------------------------------------------------------------------------------


def test_a_seed_by_chance_is_told_and_gives_the_same_text_again(session: RootSession) -> None:
    one, other = (complete(session, max_tokens=30, temperature=1.0) for _ in range(2))
    assert one.seed != other.seed
    text = one.finish()
    assert other.finish() != text
    assert complete(session, max_tokens=30, temperature=1.0, seed=one.seed).finish() == text


# Reuse ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "prompt", "n_reused"),
    [
        ([], [1, 2, 3, 4, 5], 0),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], 4),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4], 2),
        ([1, 2, 3, 4, 5], [1, 2, 3, 9, 5], 2),
        ([1, 2, 3], [1, 2, 3, 4, 5], 2),
        ([1, 2, 3, 4], [1, 2, 3, 4, 5], 4),
        ([1, 2], [9, 2], 0),
    ],
)
def test_whole_batches_of_two_tokens_are_reused(
    before: list[int], prompt: list[int], n_reused: int
) -> None:
    cache = PromptCache()
    cache.begin(before, 2)
    cache.evaluated(before)
    assert cache.begin(prompt, 2) == n_reused
    # What was not evaluated since, is not there any more.
    assert cache.begin([*prompt, 7], 2) == n_reused


def _logits(
    session: RootSession, cache: PromptCache, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Any], int]:
    """Complete one prompt after another; return all logits of the last, and how much of it was reused."""
    for prompt in prompts:
        seen: list[Any] = []

        def note(sampler: Sampler, logits: Any, *, seen: list[Any] = seen) -> int:
            seen.append(logits.copy())
            return int(np.argmax(logits))

        monkeypatch.setattr(Sampler, "sample", note)
        options = GenerationOptions(max_tokens=8, ignore_eos=True)
        completion = Completion(session.inference, session.tokenizer, prompt, options, cache=cache)
        completion.finish()
    return seen, completion.timings.reused_tokens


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [0, 1])
def test_reuse_gives_the_same_logits_to_the_bit(n_workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(n_workers) as addresses:
        options = ClusterOptions(workers=tuple(addresses))
        with open_session(options, Report()) as session:
            tokens = session.tokenizer.encode("To be, or not to be: that is the question. " * 6)
            prompt = tokens[:105]
            anew, nothing = _logits(session, PromptCache(), [tokens[40:80], prompt], monkeypatch)
            again, n_reused = _logits(
                session, PromptCache(), [[*tokens[:100], 5, 6, 7], prompt], monkeypatch
            )
            session.inference.finish()
    assert (nothing, n_reused) == (0, 96)
    assert len(anew) == 8
    for ours, theirs in zip(again, anew, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# Stop strings ---------------------------------------------------------------------------------------


def _run(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    watch = StopStrings(stops)
    shown = ""
    for piece in pieces:
        text, stop = watch.feed(piece)
        shown += text
        if stop is not None:
            return shown, stop
    return shown + watch.rest(), None


def test_the_string_that_is_complete_first_ends_the_text() -> None:
    assert _run(["abc", "b"], ["xabc"]) == ("xa", "b")
    assert _run(["bc", "abc"], ["xabc"]) == ("x", "abc")


@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=4),
    text=st.text("abc", max_size=30),
    data=st.data(),
)
def test_how_a_text_is_cut_does_not_matter(stops: list[str], text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    shown, stop = _run(stops, pieces)
    assert (shown, stop) == _run(stops, [text])
    if stop is None:
        assert shown == text
        assert not any(each in text for each in stops)
    else:
        assert text.startswith(shown + stop)
        assert not any(each in (shown + stop)[:-1] for each in stops)
