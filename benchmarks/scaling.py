"""Prints the tables of docs/scaling.md: what ``dllama-root plan`` says of large models on 2 to 64 nodes."""

from __future__ import annotations

import argparse

from dllama_worker.errors import UsageError
from dllama_worker.root.planning.links import LINKS
from dllama_worker.root.planning.options import PlanOptions
from dllama_worker.root.planning.plan import Plan, make_plan
from dllama_worker.sharding.split import EVEN

MODELS = ("llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b", "qwen3-30b-a3b")
NODES = (2, 3, 4, 8, 16, 24, 32, 64)
LINK_NAMES = ("1gbe", "2.5gbe", "wifi")


def plan(model: str, n_nodes: int, link: str, speed: float, context: int) -> Plan | None:
    """Plan an even split, or return None where there is none."""
    try:
        return make_plan(
            PlanOptions(model, "q40", n_nodes, EVEN, LINKS[link], (speed,) * n_nodes, max_seq_len=context)
        )
    except UsageError:
        return None


def main() -> None:
    """Print one table a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed", type=float, default=10.0, help="GB of weights a second")
    parser.add_argument("--context", type=int, default=4096)
    options = parser.parse_args()
    for model in MODELS:
        print(f"\n{model}\n\n| nodes | GB, root | GB, worker | computing | {' | '.join(LINK_NAMES)} |")
        print("|---|---|---|---|" + "---|" * len(LINK_NAMES))
        for n_nodes in NODES:
            plans = [
                plan(model, n_nodes, link, 1e9 * options.speed, options.context) for link in LINK_NAMES
            ]
            found = [plan for plan in plans if plan is not None]
            if not found:
                print(f"| {n_nodes} | not possible |" + " |" * (2 + len(LINK_NAMES)))
                continue
            needs = [need.memory / 1e9 for need in found[0].demand.nodes]
            rates = " | ".join(
                f"{plan.first.tokens_per_second:.2f} ({100 * plan.first.sync / plan.first.seconds:.0f} %)"
                for plan in found
            )
            compute = f"{1000 * found[0].first.compute:.0f} ms"
            print(f"| {n_nodes} | {needs[0]:.1f} | {max(needs[1:]):.1f} | {compute} | {rates} |")


if __name__ == "__main__":
    main()
