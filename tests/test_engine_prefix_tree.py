"""The radix tree against a plain list of prompts, its bounds, and its key."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whis_box.engine.prefix_tree import CacheKey, PrefixTree, State, Tokens, common_length
from whis_box.errors import EngineError

KEY = CacheKey("base", "", 1.0)
prompts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=20)


def tokens(values: list[int]) -> Tokens:
    return np.array(values, dtype=np.int32)


def state(values: list[int]) -> State:
    return np.array(values, dtype=np.uint8)


@given(prompts)
def test_insert_tells_the_longest_prefix_any_earlier_prompt_had(given_prompts: list[list[int]]) -> None:
    tree = PrefixTree(KEY, max_tokens=10_000, max_bytes=10_000)
    earlier: list[Tokens] = []
    for values in given_prompts:
        prompt = tokens(values)
        best = max((common_length(one, prompt) for one in earlier), default=0)
        assert tree.insert(prompt) == best
        earlier.append(prompt)


@given(prompts, st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_find_gives_the_state_that_covers_most(saved: list[list[int]], asked: list[int]) -> None:
    tree = PrefixTree(KEY, max_tokens=10_000, max_bytes=10_000)
    for values in saved:
        tree.put(KEY, tokens(values), state(values))
    length, found = tree.find(KEY, tokens(asked))
    assert length == max(common_length(tokens(values), tokens(asked)) for values in saved)
    if length:
        assert found is not None and list(found[:length]) == asked[:length]


@given(prompts, st.integers(5, 40))
def test_the_tree_stays_within_its_bounds_and_never_lies(given_prompts: list[list[int]], bound: int) -> None:
    tree = PrefixTree(KEY, max_tokens=bound, max_bytes=bound)
    for values in given_prompts:
        tree.insert(tokens(values))
        tree.put(KEY, tokens(values), state(values))
        assert tree.n_bytes <= bound and tree.n_tokens <= bound
        length, found = tree.find(KEY, tokens(values))
        assert length == 0 or (found is not None and list(found[:length]) == values[:length])


def test_a_prompt_that_leaves_an_edge_in_its_middle_shares_what_it_has_in_common() -> None:
    tree = PrefixTree(KEY, max_tokens=1000, max_bytes=1000)
    tree.put(KEY, tokens(list(range(100))), state([7]))
    assert tree.insert(tokens([*range(80), 5, 5])) == 80
    assert tree.find(KEY, tokens([*range(80), 9]))[0] == 80


def test_the_least_recently_used_state_goes_first_and_a_pinned_one_stays() -> None:
    tree = PrefixTree(KEY, max_tokens=1000, max_bytes=30)
    tree.insert(tokens([1, 1]), pinned=True)
    for first in (1, 2, 3):
        tree.put(KEY, tokens([first, first]), state([0] * 10))
    tree.find(KEY, tokens([2, 2]))
    tree.put(KEY, tokens([4, 4]), state([0] * 10))
    assert [tree.find(KEY, tokens([n, n]))[0] for n in (1, 2, 3, 4)] == [2, 2, 0, 2]


@pytest.mark.parametrize(
    "other",
    [CacheKey("other", "", 1.0), CacheKey("base", "a", 1.0), CacheKey("base", "", 0.5)],
    ids=["base", "adapter", "scale"],
)
def test_another_key_can_neither_read_nor_write(other: CacheKey) -> None:
    tree = PrefixTree(KEY, max_tokens=1000, max_bytes=1000)
    tree.put(KEY, tokens([1, 2]), state([1]))
    with pytest.raises(EngineError, match="defect"):
        tree.find(other, tokens([1, 2]))
    with pytest.raises(EngineError, match="defect"):
        tree.put(other, tokens([1, 2]), state([1]))
