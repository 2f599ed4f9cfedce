"""How fast stored weights become numbers, and numbers Q40 blocks: native code and NumPy, one thread.

python benchmarks/quantization.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from dllama_ops.native.blocks import can_decode_natively, decode_natively
from dllama_ops.quantization.reference import DECODERS
from dllama_ops.quantization.requantize import quantize_by_numpy, quantize_like_converter


def _best(action: Callable[[], object], n_values: int, rounds: int) -> float:
    """Return million values a second of the best of some rounds."""
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begin)
    return n_values / min(seconds) / 1e6


def main() -> None:
    """Print million values a second of each type."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--values", type=int, default=1 << 22, help="values of a round (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    n = options.values // 256 * 256
    out = np.empty(n, np.float32)
    print(f"{'type':8} {'native':>8} {'NumPy':>8}  million values a second")
    for ggml_type, decoder in DECODERS.items():
        n_blocks = n // ggml_type.block_values
        blocks = np.random.default_rng(1).integers(0, 60, n_blocks * ggml_type.block_bytes, dtype=np.uint8)
        native = 0.0
        if can_decode_natively(ggml_type):
            native = _best(lambda: decode_natively(ggml_type, blocks, out), n, options.rounds)  # noqa: B023
        stored = blocks[: 1 << 16].reshape(-1)
        part = stored[: stored.size // ggml_type.block_bytes * ggml_type.block_bytes]
        rows = part.reshape(-1, ggml_type.block_bytes)
        n_part = len(rows) * ggml_type.block_values
        plain = _best(lambda: decoder(rows), n_part, options.rounds)  # noqa: B023
        print(f"{ggml_type.name:8} {native:8,.0f} {plain:8,.0f}")
    values = np.random.default_rng(1).standard_normal(n).astype(np.float32)
    native = _best(lambda: quantize_like_converter(values), n, options.rounds)
    plain = _best(lambda: quantize_by_numpy(values), n, options.rounds)
    print(f"{'to Q40':8} {native:8,.0f} {plain:8,.0f}")


if __name__ == "__main__":
    main()
