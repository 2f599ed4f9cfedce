"""Names on the wire that mean something to more than their node: pipes, and ops that have a weight.

As ``buildLlmNet`` and ``loadLlmNetWeight`` (``llm.cpp``) give them; a node goes by numbers and may be sent any.
A weight has the name of its op, and so has the tensor of the .m file. Needs no parser.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["LAYER_PREFIX", "MARK_PIPE", "Pipe", "WeightName", "is_of_layer"]


class Pipe(IntEnum):
    """Index of each pipe; the member's name is the one on the wire."""

    #: Position of each row.
    POS = 0
    #: Token of each row; only the root's matters.
    TOK = 1
    #: Embedded rows.
    X = 2
    #: Logits, a slice from each node.
    LG = 3
    #: Partial sums of all nodes side by side, in the sync type.
    ZQ = 4
    #: Zeros, which nobody writes: a row number for weights of one row. Only of models with biases.
    ZERO = 5


#: A pipe of this name says that a session measures nodes and evaluates no tokens (``dllama-root --split auto``).
MARK_PIPE = "MARK"

#: What the names of a layer's ops begin with; others come before the first layer or after the last.
LAYER_PREFIX = "block_"


def is_of_layer(name: str) -> bool:
    """Tell whether an op, or a weight, of this name belongs to a layer: the one that its index says."""
    return name.startswith(LAYER_PREFIX)


class WeightName:
    """Names of weights: strings, not an enum, because a reader of the wire sees only text."""

    EMBEDDING = "embedding"
    Q = f"{LAYER_PREFIX}matmul_q"
    K = f"{LAYER_PREFIX}matmul_k"
    V = f"{LAYER_PREFIX}matmul_v"
    #: Biases of the three: weights of one row.
    BIAS_Q = f"{LAYER_PREFIX}bias_q"
    BIAS_K = f"{LAYER_PREFIX}bias_k"
    BIAS_V = f"{LAYER_PREFIX}bias_v"
    #: From the heads' results back to rows of the model's width.
    WO = f"{LAYER_PREFIX}matmul_wo"
    #: Which experts a row goes to.
    MOE_GATE = f"{LAYER_PREFIX}moe_gate"
    #: The gate, down and up projections of the feed-forward network, or of one expert's.
    W1 = f"{LAYER_PREFIX}matmul_w1"
    W2 = f"{LAYER_PREFIX}matmul_w2"
    W3 = f"{LAYER_PREFIX}matmul_w3"
    #: Norms of each query and key head.
    NORM_Q = f"{LAYER_PREFIX}norm_q"
    NORM_K = f"{LAYER_PREFIX}norm_k"
    #: Norms before attention and before the feed-forward network.
    NORM_0 = f"{LAYER_PREFIX}norm_0"
    NORM_1 = f"{LAYER_PREFIX}norm_1"
    FINAL_NORM = "final_norm"
    LOGITS = "final_matmul_logits"
