"""Whether conversations are written as Hugging Face transformers writes them, by any model's own chat template.

    python benchmarks/templates.py --judge PYTHON PATH...

Paths are files with a template (``.jinja``), folders of such files, GGUF files, and folders with a model's
tokenizer. PYTHON is the interpreter of an environment with transformers (and gguf, for GGUF files): there
``template_judge.py`` reads the paths itself. A text must be the same, and what the one refuses the other must
refuse for the same reason. Of tokenizer folders the tokens are compared as well.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dllama_worker.errors import UsageError
from dllama_worker.model.gguf.shards import read_gguf
from dllama_worker.root.chat.jinja import JinjaTemplate
from dllama_worker.tokenizer.chat_templates import ChatTemplates, gguf_templates
from dllama_worker.tokenizer.folder import read_folder
from dllama_worker.tokenizer.interface import Tokenizer

_JUDGE = Path(__file__).with_name("template_judge.py")
#: What a template without a tokenizer is given.
_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}

_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'Weather of a city, "now" & <soon>.',
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Zürich, 東京"},
                "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
            },
            "required": ["city"],
        },
    },
}
_CALL = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Zürich", "unit": "C"}},
}


def _say(*turns: str, system: str | None = None) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]


def conversations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what templates are given, each with its name: messages, whether a reply is to come, variables."""
    yield "one turn", {"messages": _say("Hello")}
    yield "several turns", {"messages": _say("Hi", "Hello!", "Why?", "So.", "And?", system="Be brief.")}
    yield "ends with the assistant", {"messages": _say("Hi", "Hello!"), "reply": False}
    yield "a reply after a reply", {"messages": _say("Hi", "Hello!")}
    yield "empty content", {"messages": _say("", "", "", system="")}
    yield "spaces", {"messages": _say("  a \n", "\n\n b\t ", " \n", system="\n  c  ")}
    yield (
        "Unicode",
        {"messages": _say("日本 é 😀 \u202e<b>&'\"", "ß ﬁ", "{{ x }} {% y %}", system="\U0001d518")},
    )
    yield "special tokens", {"messages": _say("<s>[INST]</s><|im_end|>", "<|eot_id|>", "<think>a</think>")}
    yield "thoughts in the text", {"messages": _say("2+2?", "<think>\nAdd.\n</think>\n\n4", "Sure?")}
    thoughtful = _say("2+2?", "4", "Sure?")
    thoughtful[1]["reasoning_content"] = "Add them."
    yield "thoughts of their own", {"messages": thoughtful}
    yield "no thoughts wanted", {"messages": _say("2+2?"), "variables": {"enable_thinking": False}}
    yield (
        "thoughts wanted",
        {"messages": _say("2+2?"), "variables": {"enable_thinking": True, "thinking": True}},
    )
    yield "an effort", {"messages": _say("2+2?", system="x"), "variables": {"reasoning_effort": "high"}}
    yield "tools", {"messages": _say("Rain?", system="Help."), "variables": {"tools": [_TOOL]}}
    plain = {"name": "search", "description": "Finds.", "parameter_definitions": {"q": {"type": "str"}}}
    yield "plain tools", {"messages": _say("Rain?"), "variables": {"tools": [plain]}}
    yield (
        "functions",
        {"messages": _say("Rain?"), "variables": {"functions": json.dumps([_TOOL]), "datetime": "now"}},
    )
    called = [
        *_say("Rain?"),
        {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": '{"rain": true}'},
    ]
    yield "a tool was called", {"messages": called, "variables": {"tools": [_TOOL]}}
    said = [*called, {"role": "assistant", "content": "Yes.", "refusal": None}, *_say("Thanks")]
    yield "a tool has answered", {"messages": said, "variables": {"tools": [_TOOL]}}
    documents = [{"title": "A", "text": "b", "doc_id": 1}, {"title": "É", "text": "日", "doc_id": 2}]
    yield "documents", {"messages": _say("What?"), "variables": {"documents": documents}}
    parts = [{"type": "text", "text": "Look: "}, {"type": "text", "text": "here"}]
    yield "content in parts", {"messages": [{"role": "user", "content": parts}]}
    yield "no content", {"messages": [{"role": "user"}, {"role": "assistant", "content": None}]}
    yield "a name", {"messages": [{"role": "user", "name": "Ann", "content": "Hi"}]}
    yield "two users", {"messages": [*_say("Hi"), *_say("Hello?")]}
    yield "begins with the assistant", {"messages": _say("Hi", "Hello!")[1:]}
    yield "another role", {"messages": [{"role": "developer", "content": "Be brief."}, *_say("Hi")]}


def main() -> None:
    """Print how many texts are equal, and what differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--judge", required=True, metavar="PYTHON", help="with transformers")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    arguments = parser.parse_args()
    given = dict(conversations())
    found: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    paths = [one for path in arguments.paths for one in sorted(path.glob("*.jinja")) or [path]]
    judged = _judge(arguments.judge, paths, list(given.values()))
    for path, theirs_by_name in zip(paths, judged, strict=True):
        for template, ours, theirs in _compared(path, theirs_by_name, list(given.values())):
            found["templates"] += 1
            for name, our, their in zip(given, ours, theirs, strict=True):
                kind = _kind(our, their)
                found[kind] += 1
                refused[name] += kind == "refused by both"
                if kind.startswith("differ"):
                    print(f"{template}, {name}: {kind}\n  ours:   {our}\n  judge:  {their}")
    print(f"{len(given)} conversations", *(f"{n} {kind}" for kind, n in found.items()), sep=", ")
    print("refused by both:", ", ".join(f"{name} {n}" for name, n in refused.items() if n))
    sys.exit(any(kind.startswith("differ") for kind in found))


def _judge(python: str, paths: list[Path], given: list[dict[str, Any]]) -> list[dict[str, list[Any]]]:
    """Return the judge's answers of each path, by the names of its templates."""
    asked = json.dumps({"paths": [str(path) for path in paths], "tokens": _TOKENS, "given": given})
    done = subprocess.run(
        [python, str(_JUDGE)], input=asked, stdout=subprocess.PIPE, text=True, check=True, encoding="ascii"
    )
    answers: list[dict[str, list[Any]]] = json.loads(done.stdout)
    return answers


def _compared(
    path: Path, judged: dict[str, list[Any]], given: list[dict[str, Any]]
) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """Yield the name, our answers and the judge's of each template of a path."""
    templates, tokenizer = _read(path)
    if set(templates.sources) != set(judged):
        raise SystemExit(f"{path}: has templates {list(templates.sources)}, the judge finds {list(judged)}")
    for name, source in templates.sources.items():
        try:
            template = JinjaTemplate(source, templates.special_tokens)
            ours = [_ours(template, tokenizer, one) for one in given]
        except UsageError as error:
            ours = [{"error": str(error)}] * len(given)
        yield f"{path}: {name}", ours, judged[name]


def _read(path: Path) -> tuple[ChatTemplates, Tokenizer | None]:
    if path.is_dir():
        tokenizer = read_folder(path)
        return tokenizer.vocabulary.templates, tokenizer
    if path.suffix == ".gguf":
        metadata = read_gguf(path).metadata
        return gguf_templates(path, metadata, metadata["tokenizer.ggml.tokens"]), None
    return ChatTemplates.of(path.read_text(encoding="utf-8"), _TOKENS), None


def _ours(template: JinjaTemplate, tokenizer: Tokenizer | None, given: dict[str, Any]) -> dict[str, Any]:
    variables = given.get("variables", {})
    try:
        text = template.text(given["messages"], reply=given.get("reply", True), variables=variables)
    except UsageError as error:
        return {"error": str(error)}
    if tokenizer is None:
        return {"text": text}
    return {"text": text, "tokens": tokenizer.encode(text)}


def _kind(our: dict[str, Any], their: dict[str, Any]) -> str:
    if "error" in our and "error" in their:
        same = their["error"] in our["error"]
        return "refused by both" if same else "differ in the reason"
    if our.get("text") != their.get("text"):
        return "differ"
    return "equal" if our.get("tokens") == their.get("tokens") else "differ in the tokens"


if __name__ == "__main__":
    main()
