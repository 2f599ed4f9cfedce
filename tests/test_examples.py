"""The example programs, and those of the page about Python, run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dllama_worker import Root
from dllama_worker.demo import MODEL_PATH, TOKENIZER_PATH

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGE = ROOT / "docs/python.md"

#: A line that each prints.
PRINTED = {
    "generate.py": r"ended by (max_tokens|stop_string), seed \d+: \d+ tokens, [\d.]+ tokens/s",
    "embedded_cluster.py": r"4 nodes: ['\"].+['\"]",
    "tokens.py": r"seed 2: \[\d+(, \d+){11}\] ['\"].+['\"], (32|64|96) of \d+ tokens reused",
    "pretend_worker.py": r"16 tokens, \d+ tokens/s",
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


def test_every_example_is_described() -> None:
    names = [path.name for path in EXAMPLES]
    assert sorted(PRINTED) == names
    readme = (ROOT / "examples/README.md").read_text()
    assert sorted(re.findall(r"^\| \[(\w+\.py)\]\(\1\)", readme, re.M)) == names


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(path: Path) -> None:
    done = run(str(path))
    assert done.returncode == 0, done.stderr
    assert re.search(PRINTED[path.name], done.stdout + done.stderr), done


@pytest.mark.slow
def test_the_example_of_a_cluster_takes_a_real_one_and_says_what_is_wrong() -> None:
    files = ["--model", str(MODEL_PATH), "--tokenizer", str(TOKENIZER_PATH)]
    done = run("examples/generate.py", *files, "--prompt", "JULIET:", "--max-tokens", "5", "--seed", "1")
    with Root() as root:
        text = root.generate("JULIET:", max_tokens=5, seed=1, stop="\n\n").finish()
    assert done.stdout == f"{text}\n"
    done = run("examples/generate.py", *files, "--workers", "127.0.0.1:9")
    assert done.returncode == 3
    assert re.fullmatch(r"generate\.py: node 1 \(127\.0\.0\.1:9\).*\n", done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(blocks())))
def test_a_program_of_the_page_runs(number: int, tmp_path: Path) -> None:
    block = blocks()[number]
    program = tmp_path / "program.py"
    program.write_text(block)
    done = run(str(program))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr  # a worker may log how a session ended
    assert done.stdout.strip()
    for line in re.findall(r"print\(\w+\)  # (.+)", block):
        assert line in done.stdout


def test_the_page_has_every_argument_and_attribute() -> None:
    text = PAGE.read_text()
    for method, heading in (
        (Root.__init__, "argument of `Root`"),
        (Root.generate, "argument of `generate`"),
    ):
        table = text[text.index(heading) :].partition("\n\n")[0]
        rows = re.findall(r"^\| (`[^|]+`) \|", table, re.M)
        named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
        taken = [name for name in method.__annotations__ if name not in ("return", "report")]
        assert sorted(named) == sorted(taken)
