"""A root for programs: a model on a cluster, opened once, that continues one prompt after another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from dllama_proto.endpoint import Endpoint, repeated
from dllama_proto.model_header import ModelHeader
from dllama_worker.errors import UsageError
from dllama_worker.report import Report
from dllama_worker.root.completion import BUSY, Completion
from dllama_worker.root.options import ClusterOptions, GenerationOptions
from dllama_worker.root.prompt_cache import PromptCache
from dllama_worker.root.session import RootSession, open_session
from dllama_worker.sharding.split import EVEN, Split, parse_split
from dllama_worker.tokenizer.interface import Tokenizer

__all__ = ["Root"]


class Root:
    """A model on a cluster, a context manager: the workers are connected and have their weights inside it.

    ::

        with Root(model="llama.m", tokenizer="llama.t", workers=["192.168.1.20:9990"]) as root:
            for piece in root.generate("Once upon a time", max_tokens=64):
                print(piece, end="", flush=True)

    It is for one thread at a time, and writes one text at a time: a new one ends the one before. Every text begins
    anew, whatever was generated before. What a prompt has in common with the prompt before it is not evaluated
    again, in whole batches (``n_batches`` tokens), which gives the same numbers to the bit.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        tokenizer: str | Path | None = None,
        workers: Iterable[str | Endpoint] = (),
        *,
        local_workers: int = 0,
        n_threads: int | None = None,
        split: str | Split = EVEN,
        max_seq_len: int = 0,
        kernels: str = "",
        options: ClusterOptions | None = None,
        report: Report | None = None,
    ) -> None:
        """Take the usual arguments, or ``options`` with everything; nothing is opened before :meth:`open`.

        Without ``model`` and ``tokenizer`` it is the small demo model of this package. ``workers`` are
        ``"HOST:PORT"``; ``local_workers`` are started on this machine and ended with the root. ``split`` is as
        ``dllama-root --split`` has it.

        Raises UsageError where the arguments cannot be, or contradict each other.
        """
        usual = ClusterOptions(
            model=None if model is None else Path(model),
            tokenizer=None if tokenizer is None else Path(tokenizer),
            workers=tuple(_endpoint(worker) for worker in workers),
            local_workers=local_workers,
            split=_split(split),
            max_seq_len=max_seq_len,
            kernels=kernels,
        )
        if n_threads is not None:
            if n_threads < 1:
                raise UsageError(f"n_threads: expected 1 or more, got {n_threads}")
            usual = replace(usual, n_threads=n_threads)
        if options is not None and (n_threads is not None or usual != ClusterOptions()):
            raise UsageError(
                "options hold everything: give them alone, or the usual arguments without them"
            )
        self.options = _checked(options or usual)
        self._report = report or Report()
        self._stack = ExitStack()
        self._session: RootSession | None = None
        self._cache = PromptCache()
        self._current: Completion | None = None

    def __enter__(self) -> Root:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> Root:
        """Read the files, connect the cluster and load its weights; return this root. Open already, do nothing.

        A closed root can be opened again. Raises UsageError (files, arguments), PeerLost (a worker that cannot be
        reached or goes away), RemoteProtocolError (something else than a worker answers), ConfigRejected, and
        MachineError (memory, a local worker that does not start). What was opened until then is closed.
        """
        if self._session is None:
            with ExitStack() as stack:
                self._session = stack.enter_context(open_session(self.options, self._report))
                self._stack = stack.pop_all()
        return self

    def close(self) -> None:
        """Tell every worker that the session is over, and end what was opened; closed already, do nothing.

        A text that another thread generates ends with the forward that runs.
        """
        session, self._session = self._session, None
        if session is None:
            return
        current, self._current = self._current, None
        self._cache = PromptCache()
        with self._stack:
            if current is not None:
                current.cancel("the root was closed")
                current.wait_idle()
                if current.failure is not None:
                    return  # in the middle of a forward nothing can be said
            session.inference.finish()

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = None,
        stop: str | Iterable[str] = (),
        stop_tokens: Iterable[int] = (),
        ignore_eos: bool = False,
        temperature: float = 0.8,
        topp: float = 0.9,
        seed: int | None = None,
        options: GenerationOptions | None = None,
    ) -> Completion:
        """Continue a prompt, text or tokens; return what yields the text piece by piece.

        Take the usual arguments, or ``options`` with all of them: :class:`GenerationOptions` says what they mean.
        Nothing is computed before the first piece is asked for. With the same seed the text is the one that
        ``dllama-root inference`` writes, which goes on behind end tokens, as ``ignore_eos`` does.

        Raises UsageError where the prompt or the arguments cannot be, where the root is not open, and where an
        earlier text has ended the session. The text before this one, if it has not ended, is cancelled.
        """
        usual = GenerationOptions(
            max_tokens=max_tokens,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            stop_tokens=tuple(stop_tokens),
            ignore_eos=ignore_eos,
            temperature=temperature,
            topp=topp,
            seed=seed,
        )
        if options is not None and usual != GenerationOptions():
            raise UsageError(
                "options hold everything: give them alone, or the usual arguments without them"
            )
        session = self._opened()
        completion = Completion(
            session.inference, session.tokenizer, prompt, options or usual, cache=self._cache
        )
        if self._current is not None:
            if self._current.is_computing:
                raise UsageError(BUSY)
            self._current.cancel("another text was begun on this root, which writes one at a time")
        self._current = completion
        return completion

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns text into tokens and back. Raises UsageError where the root is not open."""
        return self._opened().tokenizer

    @property
    def header(self) -> ModelHeader:
        """The model's dimensions; ``header.seq_len`` is the size of the context. Raises UsageError as above."""
        return self._opened().model.header

    @property
    def load_seconds(self) -> float:
        """How long it took to open, connecting included. Raises UsageError where the root is not open."""
        return self._opened().load_seconds

    def _opened(self) -> RootSession:
        if self._session is None:
            raise UsageError("the root is not open: use it in a with statement, or call open first")
        if self._current is not None and (failure := self._current.failure) is not None:
            raise UsageError(
                f"the session has ended ({type(failure).__name__}: {failure}): close the root, and open it again"
            ) from failure
        return self._session


def _endpoint(worker: str | Endpoint) -> Endpoint:
    if isinstance(worker, Endpoint):
        return worker
    try:
        return Endpoint.parse(worker)
    except ValueError as error:
        raise UsageError(f"workers: {error}") from None


def _split(split: str | Split) -> Split:
    if isinstance(split, Split):
        return split
    try:
        return parse_split(split)
    except ValueError as error:
        raise UsageError(f"split: {error}") from None


def _checked(options: ClusterOptions) -> ClusterOptions:
    if options.model is None and options.tokenizer is not None:
        raise UsageError("tokenizer belongs to a model: give model, too, or neither for the demo model")
    if (twice := repeated(options.workers)) is not None:
        raise UsageError(f"workers: {twice} is there twice: name each once")
    for name, least in (("local_workers", 0), ("max_seq_len", 0)):
        if (value := getattr(options, name)) < least:
            raise UsageError(f"{name}: expected {least} or more, got {value}")
    return options
