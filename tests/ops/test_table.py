"""Which kernel is chosen, why, and what happens where plugins contradict each other or are broken."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from dllama_ops import (
    KernelChoiceError,
    KernelClash,
    KernelNotFound,
    RegisterKernel,
    build_kernel_table,
    hookimpl,
    make_plugin_manager,
    native,
)
from dllama_ops.preference import Preference, Preferences, parse_preferences
from dllama_proto.enums import OpCode
from tests.ops.plugins import F32, MUL, SILU, Fails, Idle, Offers, Plugin, manager, reference


def _chosen(table: Any, key: Any = MUL) -> tuple[str, str]:
    choice = table.choices[key]
    return choice.entry.source, choice.reason


def test_the_highest_priority_wins() -> None:
    table = build_kernel_table(manager(numpy=reference(), fast=Plugin((MUL, 10, ""))))
    assert _chosen(table) == ("fast", "highest priority: 10 before numpy -100")
    assert _chosen(table, SILU) == ("numpy", "the only one")
    assert table.get(MUL).factory is Idle
    assert table.plugins == ("fast", "numpy")


def test_of_one_plugins_variants_the_highest_priority_wins() -> None:
    plugin = Plugin((MUL, 5, "avx2"), (MUL, 9, "avx512"), (MUL, 9, "other"))
    assert _chosen(build_kernel_table(manager(fast=plugin)))[0] == "fast:avx512"


def test_two_plugins_with_the_same_priority_clash_by_name() -> None:
    plugins = manager(numpy=reference(), one=Plugin((MUL, 3, "")), two=Plugin((MUL, 3, "avx2")))
    with pytest.raises(
        KernelClash, match="plugins 'one' and 'two' both offer a kernel for MUL F32_F32_F32 with "
    ):
        build_kernel_table(plugins)
    assert _chosen(build_kernel_table(plugins, prefer="two")) == ("two:avx2", "asked for with two")


def test_a_clash_that_something_better_decides_is_none() -> None:
    table = build_kernel_table(
        manager(one=Plugin((MUL, 3, "")), two=Plugin((MUL, 3, "")), best=Plugin((MUL, 4, "")))
    )
    assert _chosen(table)[0] == "best"


def test_a_preference_decides_before_priority() -> None:
    plugins = manager(
        numpy=reference(),
        slow=Plugin((MUL, 1, "")),
        fast=Plugin((MUL, 9, "a"), (MUL, 8, "b"), (SILU, 9, "a")),
    )
    assert _chosen(build_kernel_table(plugins, "slow, fast")) == ("slow", "asked for with slow")
    assert _chosen(build_kernel_table(plugins, "fast:b")) == ("fast:b", "asked for with fast:b")
    assert _chosen(build_kernel_table(plugins, "fast:b,fast"), SILU) == ("fast:a", "asked for with fast")
    assert _chosen(build_kernel_table(plugins, "numpy"))[0] == "numpy"


def test_where_what_is_preferred_has_no_kernel_the_usual_order_stands() -> None:
    plugins = manager(
        numpy=reference(), slow=Plugin((MUL, 1, "")), fast=Plugin((SILU, 9, "a"), (SILU, 8, "b"))
    )
    table = build_kernel_table(plugins, "slow")
    assert _chosen(table, MUL) == ("slow", "asked for with slow")
    assert _chosen(table, SILU) == ("fast:a", "highest priority: 9 before fast:b 8, numpy -100")


def test_only_shuts_the_others_out_but_for_the_reference() -> None:
    plugins = manager(numpy=reference(), slow=Plugin((MUL, 1, "")), fast=Plugin((SILU, 9, "")))
    table = build_kernel_table(plugins, "only:slow")
    assert _chosen(table, MUL) == ("slow", "asked for with slow")
    assert _chosen(table, SILU) == ("numpy", "last resort: nothing asked for has it")
    assert _chosen(build_kernel_table(plugins, "only:slow,fast"), SILU)[0] == "fast"


def test_without_a_reference_what_was_shut_out_is_named() -> None:
    table = build_kernel_table(manager(slow=Plugin((MUL, 1, "")), fast=Plugin((SILU, 9, ""))), "only:slow")
    with pytest.raises(KernelNotFound, match="with --kernels only:slow; without it there is fast"):
        table.get(SILU)


def test_a_clash_says_what_to_write_and_that_works() -> None:
    both = [(MUL, 0, ""), (SILU, 0, "")]
    plugins = manager(
        numpy=reference(), one=Plugin(*both), two=Plugin(*both), third=Plugin((MUL, -50, "x"))
    )
    with pytest.raises(KernelClash, match=r"with --kernels one or --kernels two \(other kernels stay"):
        build_kernel_table(plugins)
    assert _chosen(build_kernel_table(plugins, "one"), SILU)[0] == "one"
    with pytest.raises(KernelClash, match="with --kernels third,one or --kernels third,two "):
        build_kernel_table(plugins, "third")
    table = build_kernel_table(plugins, "third,one")
    assert (_chosen(table, MUL)[0], _chosen(table, SILU)[0]) == ("third:x", "one")


@pytest.mark.skipif(native.unavailable is not None, reason="needs the native kernels")
def test_a_plugin_at_the_default_priority_comes_before_all_that_is_bundled() -> None:
    plugins = make_plugin_manager()
    plugins.add("theirs", lambda: Offers(OpCode.SILU, F32, Idle))
    table = build_kernel_table(plugins)
    assert table.get(SILU).source == "theirs"
    others = {choice.entry.plugin for key, choice in table.choices.items() if key != SILU}
    assert others == {"native"}
    assert min(entry.priority for entry in table.entries if entry.plugin == "native") > -100


@pytest.mark.skipif(native.unavailable is not None, reason="needs the native kernels")
@pytest.mark.parametrize("kernels", ["numpy", "only:numpy", "native", "native:baseline", "only:native"])
def test_what_is_bundled_can_be_chosen_whole(kernels: str) -> None:
    source = kernels.removeprefix("only:")
    table = build_kernel_table(make_plugin_manager(), kernels)
    chosen = {choice.entry.source for choice in table.choices.values()}
    assert {one for one in chosen if one.startswith(source)} == chosen


@pytest.mark.parametrize("name", ["only", "a:b", "a,b", "a b"])
def test_a_plugin_whose_name_cannot_be_asked_for_is_on_record(name: str) -> None:
    plugins = manager(numpy=reference())
    plugins.add(name, lambda: Plugin((MUL, 1, "")))
    table = build_kernel_table(plugins)
    assert _chosen(table)[0] == "numpy"
    assert "expected a name without commas, colons and spaces, and not 'only'" in table.failures[0].reason


@pytest.mark.parametrize(
    ("text", "got"), [("cuda", "'cuda'"), ("fast:avx", "'fast:avx'"), ("slow,x:y", "'x:y'")]
)
def test_an_unknown_preference_lists_what_there_is(text: str, got: str) -> None:
    plugins = manager(
        numpy=reference(), slow=Plugin((MUL, 1, "")), fast=Plugin((MUL, 9, "a"), (MUL, 8, "b"))
    )
    with pytest.raises(KernelChoiceError) as caught:
        build_kernel_table(plugins, text)
    assert str(caught.value) == f"expected kernels of one of fast, fast:a, fast:b, numpy, slow, got {got}"


def test_a_preference_for_a_broken_plugin_says_how_it_is_broken() -> None:
    with pytest.raises(
        KernelChoiceError, match="got 'gpu'; plugin 'gpu' failed to load: ImportError: no driver"
    ):
        build_kernel_table(_with_unloadable(), "gpu")


def _with_unloadable() -> Any:
    def load() -> Any:
        raise ImportError("no driver")

    plugins = manager(numpy=reference())
    plugins.add("gpu", load)
    return plugins


@pytest.mark.parametrize("text", [":avx2", "fast:", "fast,,slow", ",", " , ", "only:", "only:,fast"])
def test_a_preference_that_cannot_be_read(text: str) -> None:
    with pytest.raises(KernelChoiceError, match=r"expected \[only:\]PLUGIN\[:VARIANT\]"):
        parse_preferences(text)


def test_only_stands_once_at_the_beginning() -> None:
    for text in ("fast,only:slow", "only:fast,only:slow", "only:only:fast"):
        with pytest.raises(KernelChoiceError, match="expected only: once, before the first plugin, got "):
            parse_preferences(text)


def test_preferences_are_read_in_order() -> None:
    assert parse_preferences("") == parse_preferences("  ") == Preferences()
    assert parse_preferences(" a:b, c ") == Preferences((Preference("a", "b"), Preference("c")))
    assert parse_preferences("only: a:b,c") == Preferences(
        (Preference("a", "b"), Preference("c")), only=True
    )


@pytest.mark.parametrize("text", ["", "a", "a:b,c", "only:a", "only:a:b,c"])
def test_preferences_are_written_as_they_are_read(text: str) -> None:
    assert str(parse_preferences(text)) == text


def test_a_missing_kernel_names_the_key_and_where_was_looked() -> None:
    plugins = _with_unloadable()
    plugins.add("fails", Fails)
    table = build_kernel_table(plugins)
    with pytest.raises(KernelNotFound) as caught:
        table.get(type(MUL)(OpCode.ROPE, F32))
    assert str(caught.value) == (
        "expected a kernel for ROPE F32_F32_F32, found none in the plugins fails, numpy; broken: "
        "plugin 'gpu' failed to load: ImportError: no driver; "
        "plugin 'fails' failed to register its kernels: RuntimeError: no such processor"
    )


def test_a_plugin_that_raises_contributes_nothing_and_is_on_record() -> None:
    table = build_kernel_table(manager(numpy=reference(), fails=Fails()))
    assert _chosen(table)[0] == "numpy"
    assert [entry.plugin for entry in table.entries] == ["numpy", "numpy"]
    (failure,) = table.failures
    assert (failure.plugin, failure.stage) == ("fails", "register its kernels")
    assert "RuntimeError: no such processor" in str(failure)


@pytest.mark.parametrize("swallow", [False, True])
@pytest.mark.parametrize(
    ("offer", "message"),
    [
        (Offers(9, F32, Idle), "expected an OpCode and an OpQuantType, got 9 and"),
        (Offers(OpCode.MUL, "f32", Idle), "expected an OpCode and an OpQuantType, got"),
        (Offers(OpCode.MUL, F32, "kernel"), "expected a callable that makes the kernel of MUL F32_F32_F32"),
        (Offers(OpCode.MUL, F32, Idle, priority=0.5), "expected a whole number as the priority"),
        (Offers(OpCode.MUL, F32, Idle, variant="a:b"), "expected a name without commas, colons and spaces"),
        (Offers(OpCode.MUL, F32, Idle, variant=7), "expected a name without commas, colons and spaces"),
    ],
)
def test_a_plugin_that_offers_nonsense_is_on_record(offer: Offers, message: str, swallow: bool) -> None:
    offer._swallow = swallow
    table = build_kernel_table(manager(numpy=reference(), odd=offer))
    assert _chosen(table)[0] == "numpy"
    assert message in table.failures[0].reason


def test_a_plugin_that_offers_a_key_twice_is_on_record() -> None:
    table = build_kernel_table(manager(numpy=reference(), twice=Plugin((MUL, 1, "a"), (MUL, 2, "a"))))
    assert "MUL F32_F32_F32 is registered twice with the variant 'a'" in table.failures[0].reason
    assert _chosen(table)[0] == "numpy"


def test_the_table_is_final() -> None:
    kept: list[RegisterKernel] = []

    class Keeps:
        @hookimpl
        def dllama_register_kernels(self, register: RegisterKernel) -> None:
            kept.append(register)

    table = build_kernel_table(manager(numpy=reference(), keeps=Keeps()))
    with pytest.raises(ValueError, match="one after it returned"):
        kept[0](OpCode.MUL, F32, Idle, priority=99)
    with pytest.raises(FrozenInstanceError):
        table.entries = ()  # type: ignore[misc]
    with pytest.raises(TypeError):
        table.choices[MUL] = table.choices[SILU]  # type: ignore[index]
    assert _chosen(table)[0] == "numpy"


def test_every_choice_has_a_reason() -> None:
    table = build_kernel_table(manager(numpy=reference(), fast=Plugin((MUL, 10, ""))))
    assert all(choice.reason for choice in table.choices.values())
