"""A text as it is generated: the command line shows it, programs iterate over it."""

from __future__ import annotations

import threading
import time
from codecs import getincrementaldecoder
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from secrets import randbits

from dllama_worker.errors import UsageError
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.root.generation import Generation
from dllama_worker.root.inference import Inference
from dllama_worker.root.options import GenerationOptions
from dllama_worker.root.prompt_cache import PromptCache
from dllama_worker.root.sampler import Sampler
from dllama_worker.root.stop_strings import StopStrings
from dllama_worker.tokenizer.interface import Tokenizer

__all__ = ["BUSY", "Completion", "StopReason", "Timings"]

#: What whoever comes second is told.
BUSY = "another thread is generating: a root writes one text at a time"


class StopReason(StrEnum):
    """Why a text ended."""

    #: The model said so: an end token.
    END = "end"
    #: One of the tokens that were asked for.
    STOP_TOKEN = "stop_token"  # noqa: S105 # no password
    #: One of the strings that were asked for.
    STOP_STRING = "stop_string"
    #: As many tokens as were asked for.
    MAX_TOKENS = "max_tokens"
    #: The context is full.
    CONTEXT = "context"
    #: It was cancelled.
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Timings:
    """What a text took so far.

    Of ``prompt_tokens``, ``reused_tokens`` were in the caches already. ``evaluation`` is the evaluation of the
    rest, ``prediction`` that of generated tokens: one less than ``generated_tokens``, since the first comes with
    the prompt. ``first_token_seconds`` passed from the first call for text to the first token, 0 until then.
    """

    prompt_tokens: int
    reused_tokens: int
    generated_tokens: int
    evaluation: ForwardTimes
    prediction: ForwardTimes
    first_token_seconds: float

    @property
    def prompt_seconds(self) -> float:
        """How long the prompt took, waiting for other nodes included."""
        return self.evaluation.seconds

    @property
    def generation_seconds(self) -> float:
        """How long the generated tokens took, waiting for other nodes included."""
        return self.prediction.seconds

    @property
    def prompt_tokens_per_second(self) -> float:
        """Evaluated tokens of the prompt for each second; 0 before there are any."""
        return self.evaluation.rows_per_second

    @property
    def generated_tokens_per_second(self) -> float:
        """Generated tokens, but for the first, for each second; 0 before there are two."""
        return self.prediction.rows_per_second


class Completion:
    """An iterator over the text that follows a prompt, in pieces of whole characters.

    Each token is evaluated only when it is asked for, so whoever stops iterating stops the computing. Meanwhile
    ``tokens`` (the generated ones, an end token included), ``text`` and :attr:`timings` grow; at the end
    ``stop_reason`` says why it ended and ``stopped_by`` is the string or token. ``seed`` is the one that was used.

    Raises UsageError, when made, where the prompt is empty, does not fit the context, or has tokens that the
    vocabulary lacks. Iterating raises what ends a session: PeerLost, BadLogits, and KernelDataError.
    """

    def __init__(
        self,
        inference: Inference,
        tokenizer: Tokenizer,
        prompt: str | Sequence[int],
        options: GenerationOptions,
        *,
        cache: PromptCache | None = None,
        last_token: int | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take everything, and compute nothing yet.

        ``cache`` is what the session knows of the last prompt. ``last_token`` is evaluated in place of the
        prompt's last (see ``Tokenizer.encode_with_leftover``). ``stopped`` is asked between two forwards whether
        to cancel.
        """
        self.prompt_tokens = _encode(prompt, tokenizer)
        self._limit = _room(len(self.prompt_tokens), inference.seq_len)
        self._max_tokens = options.max_tokens
        _check_tokens("stop_tokens", options.stop_tokens, tokenizer)
        self._last_token = last_token
        self.seed = randbits(63) if options.seed is None else options.seed
        self.tokens: list[int] = []
        self.stop_reason: StopReason | None = None
        self.stopped_by: str | int | None = None
        #: What ended the session, where something did.
        self.failure: BaseException | None = None
        sampler = Sampler(options.temperature, options.topp, self.seed, tokenizer.vocab_size)
        self._generation = Generation(inference, sampler, self._is_stopped)
        self._cache = cache or PromptCache()
        self._decoder = tokenizer.decoder()
        self._characters = getincrementaldecoder("utf-8")("replace")
        self._stop_strings = StopStrings(options.stop)
        self._stop_tokens = frozenset(options.stop_tokens)
        self._end_tokens = frozenset() if options.ignore_eos else frozenset(tokenizer.vocabulary.eos_ids)
        self._shown: list[str] = []
        self._n_reused = 0
        self._first_token_seconds = 0.0
        self._stopped = stopped
        self._is_cancelled = False
        self._refusal = ""
        #: Held while something is computed.
        self._computing = threading.Lock()
        self._steps = self._run()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Return the next piece of the text, never an empty one."""
        for _, text in self._advance():
            if text:
                return text
        raise StopIteration

    def token_ids(self) -> Iterator[int]:
        """Iterate over the tokens instead; the text is there as well, in ``text``."""
        return (token for token, _ in self._advance() if token is not None)

    def finish(self) -> str:
        """Generate to the end, and return the whole text."""
        for _ in self._advance():
            pass
        return self.text

    def cancel(self, reason: str = "") -> None:
        """End the text here, unless it has ended. Iterating stops; with a ``reason`` it raises UsageError instead.

        From any thread, and from a signal handler: a forward that runs is computed to its end.
        """
        if self.stop_reason is not None or self.failure is not None:
            return
        self._refusal = reason
        self._is_cancelled = True
        if self._computing.acquire(blocking=False):
            try:
                self._end_cancelled()
            finally:
                self._computing.release()

    @property
    def is_computing(self) -> bool:
        """Whether some thread computes just now."""
        return self._computing.locked()

    def wait_idle(self) -> None:
        """Wait until no thread computes: a forward at most, once cancelled. Not for signal handlers."""
        with self._computing:
            pass

    @property
    def text(self) -> str:
        """What has been generated, as far as it has been returned."""
        return "".join(self._shown)

    @property
    def timings(self) -> Timings:
        """What it took so far."""
        return Timings(
            prompt_tokens=len(self.prompt_tokens),
            reused_tokens=self._n_reused,
            generated_tokens=len(self.tokens),
            evaluation=ForwardTimes.total(self._generation.evaluation),
            prediction=ForwardTimes.total(self._generation.prediction),
            first_token_seconds=self._first_token_seconds,
        )

    def _advance(self) -> Iterator[tuple[int | None, str]]:
        """Yield what is left of the steps; other iterators may have taken some, or take some meanwhile."""
        while True:
            if not self._computing.acquire(blocking=False):
                raise UsageError(BUSY)
            try:
                if self._is_cancelled:
                    self._end_cancelled()
                step = next(self._steps, None)
            finally:
                self._computing.release()
            if step is None:
                if self._refusal:
                    raise UsageError(self._refusal)
                return
            yield step

    def _run(self) -> Generator[tuple[int | None, str], None, None]:
        """Yield each token with the text that is clear now, at the end the rest of the text without a token."""
        try:
            yield from self._generate()
        except GeneratorExit:
            raise
        except BaseException as error:
            self.failure = error
            raise

    def _generate(self) -> Iterator[tuple[int | None, str]]:
        started = time.perf_counter()
        limit = min(self._max_tokens or self._limit, self._limit)
        for token in self._predict(limit):
            if self._is_stopped():
                self._stop(StopReason.CANCELLED, None)
                return
            self.tokens.append(token)
            if len(self.tokens) == 1:
                self._first_token_seconds = time.perf_counter() - started
            if token in self._end_tokens or token in self._stop_tokens:
                is_end = token in self._end_tokens
                self._stop(StopReason.END if is_end else StopReason.STOP_TOKEN, token)
                yield token, ""
                break
            characters = self._characters.decode(self._decoder.decode(token) or b"")
            text, stop = self._stop_strings.feed(characters)
            self._shown.append(text)
            if stop is not None:
                self._stop(StopReason.STOP_STRING, stop)
                yield token, text
                return
            yield token, text
        else:
            self._stop(self._reason_to_end(), None)
        rest = self._characters.decode(b"", final=True)
        rest = self._stop_strings.feed(rest)[0] + self._stop_strings.rest()
        self._shown.append(rest)
        yield None, rest

    def _reason_to_end(self) -> StopReason:
        """Return why no token follows, where none of them ended the text."""
        if len(self.tokens) == self._max_tokens:
            return StopReason.MAX_TOKENS
        return StopReason.CONTEXT if len(self.tokens) == self._limit else StopReason.CANCELLED

    def _is_stopped(self) -> bool:
        return self._is_cancelled or self._stopped()

    def _end_cancelled(self) -> None:
        self._steps.close()
        if self.stop_reason is None:
            self._stop(StopReason.CANCELLED, None)

    def _stop(self, reason: StopReason, by: str | int | None) -> None:
        self.stop_reason, self.stopped_by = reason, by

    def _predict(self, limit: int) -> Iterator[int]:
        generation, inference = self._generation, self._generation.inference
        prompt = self.prompt_tokens if self._last_token is None else self.prompt_tokens[:-1]
        n_reused = self._n_reused = self._cache.begin(prompt, inference.n_batches)
        inference.position = n_reused
        logits = generation.evaluate(prompt[n_reused:])
        if logits is None:  # stopped before
            return iter(())
        self._cache.evaluated(prompt)
        if self._last_token is None:
            return generation.predict(logits, limit)
        return generation.predict_after(self._last_token, limit)


def _encode(prompt: str | Sequence[int], tokenizer: Tokenizer) -> list[int]:
    if not isinstance(prompt, str):
        _check_tokens("the prompt", prompt, tokenizer)
    tokens = tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    if not tokens:
        raise UsageError(
            "the prompt has no tokens: this tokenizer adds none at the start, so give it some text"
        )
    return tokens


def _room(n_prompt: int, seq_len: int) -> int:
    """Return how many tokens may follow a prompt: all but the last of them get a position."""
    if n_prompt > seq_len:
        raise UsageError(f"the prompt has {n_prompt} tokens, more than the {seq_len} of the context")
    return seq_len - n_prompt + 1


def _check_tokens(what: str, tokens: Sequence[int], tokenizer: Tokenizer) -> None:
    wrong = next((token for token in tokens if not 0 <= token < tokenizer.vocab_size), None)
    if wrong is not None:
        raise UsageError(
            f"{what}: expected tokens from 0 to {tokenizer.vocab_size - 1}, which this model has, got {wrong}"
        )
