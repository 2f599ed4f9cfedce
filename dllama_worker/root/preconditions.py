"""What can be told of a request before weights are read and workers dialled: that costs minutes, and this nothing.

What a split cannot be is refused by :mod:`dllama_worker.root.decide`, before any connection as well.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from dllama_proto.endpoint import Endpoint
from dllama_proto.model_header import ModelHeader
from dllama_worker.errors import UsageError
from dllama_worker.root.chat import choose_template
from dllama_worker.root.dial import addresses_of
from dllama_worker.root.options import RootOptions
from dllama_worker.tokenizer.interface import Tokenizer

__all__ = ["check_request", "check_vocabulary", "check_workers"]


def check_workers(workers: tuple[Endpoint, ...]) -> None:
    """Refuse a worker that is listed twice, also under two names of one address. Raises UsageError.

    Names that cannot be looked up are left to who dials.
    """
    known: list[tuple[Endpoint, frozenset[tuple[str, int]]]] = []
    for worker in workers:
        addresses = addresses_of(worker)
        for other, others in known:
            same = addresses & others
            # A name may stand for several hosts, of which another name is one: only then they are not the same.
            if same and (addresses == others or any(ip_address(host).is_loopback for host, _ in same)):
                where = Endpoint(*min(same))
                raise UsageError(
                    f"--workers {other} and {worker} are the same worker, {where}: list each worker once"
                )
        known.append((worker, addresses))


def check_vocabulary(
    tokenizer: Tokenizer, tokenizer_path: Path, header: ModelHeader, model_path: Path
) -> None:
    """Refuse a tokenizer with tokens that the model has no row for. Raises UsageError.

    Fewer tokens than rows are usual: many models fill their vocabulary up. That the ids of beginning and end are
    tokens, who reads the file has checked.
    """
    if tokenizer.vocab_size > header.vocab_size:
        raise UsageError(
            f"{tokenizer_path} has {tokenizer.vocab_size} tokens, more than the {header.vocab_size} of "
            f"{model_path}: it is another model's tokenizer"
        )


def check_request(options: RootOptions, tokenizer: Tokenizer, seq_len: int) -> None:
    """Refuse a conversation without a template and texts that do not fit. Raises UsageError.

    ``seq_len`` is the context's length.
    """
    if options.command == "chat":
        choose_template(tokenizer, options.chat_template, options.template_variables)
    elif options.command == "inference" and options.prompt is not None:
        last = min(options.steps or seq_len, seq_len)
        n_tokens = len(tokenizer.encode(options.prompt))
        if not n_tokens:
            raise UsageError(
                "the prompt has no tokens: this tokenizer adds none at the start, so give it some text"
            )
        if n_tokens > last:
            raise UsageError(
                f"the prompt has {n_tokens} tokens, more than the {last} of --steps or the context"
            )
    elif options.command == "perplexity" and options.prompt is not None:
        n_tokens = len(tokenizer.encode(options.prompt))
        if n_tokens < 2:
            raise UsageError(f"perplexity needs a prompt of 2 tokens or more, this one has {n_tokens}")
