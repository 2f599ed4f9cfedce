"""Texts from others are cut and counted."""

from __future__ import annotations

from dllama_proto.bounded_text import NAME_LENGTH, FirstFew, first_few, quoted, shortened


def test_a_short_text_stays_as_it_is() -> None:
    assert shortened("four", 4) == "four"
    assert shortened("fives", 4) == "fiv…"


def test_names_are_quoted_as_python_does_and_cut() -> None:
    assert quoted("block_q") == "'block_q'"
    assert quoted("a\nb") == r"'a\nb'"
    assert quoted("x" * 1_000) == f"'{'x' * (NAME_LENGTH - 1)}…'"
    assert len(quoted("\x1b" * 1_000)) == 2 * NAME_LENGTH


def test_the_first_few_are_told_and_the_others_counted() -> None:
    assert first_few(()) == ""
    assert first_few("ab") == "a, b"
    assert first_few("abcdef", "; ") == "a; b; c; d; e; and 1 more"
    assert first_few(("x" * 10_000 for _ in range(10_000)), n_shown=1) == f"{'x' * 399}…, and 9,999 more"


def test_texts_beyond_the_first_are_not_kept() -> None:
    found = FirstFew(str(number) for number in range(100_000))
    assert len(found) == 100_000
    assert found.shown == ("0", "1", "2", "3", "4")
