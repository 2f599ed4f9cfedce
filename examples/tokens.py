"""Tokens in, tokens out: the same prompt continued with several seeds, evaluated only once where it is long."""

from dllama_worker import GenerationOptions, Root

PROMPT = "To be, or not to be: that is the question. " * 4

if __name__ == "__main__":
    with Root() as root:
        prompt = root.tokenizer.encode(PROMPT)
        for seed in range(3):
            completion = root.generate(prompt, options=GenerationOptions(max_tokens=12, seed=seed))
            tokens = list(completion.token_ids())
            timings = completion.timings
            print(
                f"seed {seed}: {tokens} {completion.text!r}, "
                f"{timings.reused_tokens} of {timings.prompt_tokens} tokens reused"
            )
