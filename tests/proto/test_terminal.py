"""Tables on terminals of any width: nothing is cut off."""

from __future__ import annotations

import io
import re

from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.terminal import Styled, Table, Terminal

_CELLS = st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=30)


def _shown(table: Table, width: int) -> str:
    out = io.StringIO()
    Terminal(out, width=width).table(table)
    return out.getvalue()


def _table(*rows: tuple[str | Styled, ...]) -> Table:
    table = Table("node", "memory", "what it does", title="Nodes", right={"memory"})
    for row in rows:
        table.add(*row)
    return table


def test_a_table_that_fits_is_one() -> None:
    shown = _shown(_table(("root", "3.9 MB", "asks"), ("1", "28.1 MB", "answers")), 60)
    assert [line.rstrip() for line in shown.splitlines()] == [
        "Nodes",
        "node   memory  what it does",
        "root   3.9 MB  asks",
        "1     28.1 MB  answers",
    ]


def test_a_table_that_is_too_wide_becomes_records() -> None:
    table = _table(
        ("root", Styled("3.9 MB", "red"), "asks, and reads all answers of the others"), ("1", "", "")
    )
    assert [line.rstrip() for line in _shown(table, 40).splitlines()] == [
        "Nodes",
        "root",
        "  memory 3.9 MB, what it does asks, and",
        "  reads all answers of the others",
        "1",
    ]


@given(st.lists(st.tuples(_CELLS, _CELLS, _CELLS), min_size=1, max_size=5), st.integers(20, 120))
def test_no_cell_is_cut_off(rows: list[tuple[str, str, str]], width: int) -> None:
    letters = re.sub(r"\s", "", _shown(_table(*rows), width))
    for row in rows:
        assert all(cell in letters for cell in row)
