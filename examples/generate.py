"""Continue a prompt on a cluster, and say how long it took.

python examples/generate.py
python examples/generate.py --model llama.m --tokenizer llama.t --workers 192.168.1.20:9990 --prompt "Hello"
"""

import argparse
import sys

from dllama_worker import Root
from dllama_worker.errors import NodeError


def main() -> int:
    """Run the example; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--tokenizer")
    parser.add_argument("--workers", nargs="*", default=[], metavar="HOST:PORT")
    parser.add_argument("--prompt", default="ROMEO:")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    try:
        with Root(arguments.model, arguments.tokenizer, arguments.workers) as root:
            completion = root.generate(
                arguments.prompt, max_tokens=arguments.max_tokens, seed=arguments.seed, stop="\n\n"
            )
            for piece in completion:
                print(piece, end="", flush=True)
            print()
    except NodeError as error:
        print(f"generate.py: {error}", file=sys.stderr)
        return error.exit_code
    timings = completion.timings
    print(
        f"ended by {completion.stop_reason}, seed {completion.seed}: {timings.generated_tokens} tokens, "
        f"{timings.generated_tokens_per_second:.1f} tokens/s, first after {timings.first_token_seconds:.3f} s",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
