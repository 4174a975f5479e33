"""A radix tree of earlier prompts, and the KV states of the beginnings that several of them share.

Invariant: a tree belongs to one `CacheKey`; a state goes in and out only with that key, so no token of one
adapter's cache can reach another's (llama.cpp issue 26207 is what happens otherwise).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from whis_box.errors import EngineError

Tokens = NDArray[np.int32]
State = NDArray[np.uint8]


class CacheKey(NamedTuple):
    """What a KV state depends on besides its tokens."""

    base_sha256: str
    adapter_sha256: str
    adapter_scale: float
    kv_type: str = "f16"


class _Node:
    def __init__(self, edge: Tokens, parent: _Node | None) -> None:
        self.edge = edge
        self.parent = parent
        self.children: dict[int, _Node] = {}
        self.state: State | None = None
        self.pinned = False
        self.used_at = 0


class PrefixTree:
    """Prompts by their tokens; bounded in tokens and in bytes of states, least recently used first out."""

    def __init__(self, key: CacheKey, max_tokens: int, max_bytes: int) -> None:
        self.key = key
        self.n_tokens = 0
        self.n_bytes = 0
        self._max_tokens, self._max_bytes = max_tokens, max_bytes
        self._root = _Node(np.empty(0, dtype=np.int32), None)
        self._clock = 0

    def insert(self, tokens: Tokens, pinned: bool = False) -> int:
        """Remember a prompt; how many of its first tokens an earlier prompt also had."""
        shared, node = self._walk(tokens)
        self._node_at(tokens, node).pinned |= pinned
        self._evict()
        return shared

    def put(self, key: CacheKey, tokens: Tokens, state: State) -> None:
        """Keep the KV state after `tokens`."""
        self._check(key)
        if state.size > self._max_bytes:
            return
        node = self._node_at(tokens, self._walk(tokens)[1])
        if node.state is None:
            node.state = state
            self.n_bytes += state.size
        self._evict()

    def find(self, key: CacheKey, tokens: Tokens) -> tuple[int, State | None]:
        """The state that covers most of `tokens`, and how many of its first tokens may be used."""
        self._check(key)
        matched, node = self._walk(tokens)
        if matched == 0:
            return 0, None
        below = next((one for one in _subtree(node) if one.state is not None), None)
        if below is not None:
            return matched, below.state
        above, depth = node.parent, self._depth(node.parent)
        while above is not None:
            if above.state is not None:
                return depth, above.state
            depth -= len(above.edge)
            above = above.parent
        return 0, None

    def _check(self, key: CacheKey) -> None:
        if key != self.key:
            raise EngineError(f"{key} used the prefix cache of {self.key}; this is a defect")

    def _walk(self, tokens: Tokens) -> tuple[int, _Node]:
        """How far `tokens` are known, and the node whose edge holds or ends that match."""
        self._clock += 1
        node, depth = self._root, 0
        while depth < len(tokens):
            child = node.children.get(int(tokens[depth]))
            if child is None:
                break
            node = child
            node.used_at = self._clock
            common = common_length(child.edge, tokens[depth:])
            depth += common
            if common < len(child.edge):
                break
        return depth, node

    def _depth(self, node: _Node | None) -> int:
        depth = 0
        while node is not None:
            depth += len(node.edge)
            node = node.parent
        return depth

    def _node_at(self, tokens: Tokens, node: _Node) -> _Node:
        """The node that ends exactly after `tokens`; `node` is where `_walk` ended."""
        above = self._depth(node.parent)
        common = common_length(node.edge, tokens[above:])
        if common < len(node.edge):
            node = self._split(node, common)
        rest = tokens[above + common :]
        if len(rest) == 0:
            return node
        leaf = _Node(np.array(rest, dtype=np.int32), node)
        leaf.used_at = self._clock
        node.children[int(rest[0])] = leaf
        self.n_tokens += len(rest)
        return leaf

    def _split(self, node: _Node, at: int) -> _Node:
        """Put a node in the middle of `node`'s edge."""
        assert node.parent is not None
        middle = _Node(node.edge[:at], node.parent)
        middle.used_at = node.used_at
        node.parent.children[int(node.edge[0])] = middle
        node.edge, node.parent = node.edge[at:], middle
        middle.children[int(node.edge[0])] = node
        return middle

    def _evict(self) -> None:
        while self.n_bytes > self._max_bytes:
            held = [one for one in _subtree(self._root) if one.state is not None and not one.pinned]
            if not held:
                break
            self._forget_state(min(held, key=lambda one: one.used_at))
        while self.n_tokens > self._max_tokens:
            leaves = [
                one for one in _subtree(self._root) if one.parent and not one.children and not one.pinned
            ]
            if not leaves:
                break
            self._remove_leaf(min(leaves, key=lambda one: one.used_at))

    def _forget_state(self, node: _Node) -> None:
        if node.state is not None:
            self.n_bytes -= node.state.size
            node.state = None

    def _remove_leaf(self, leaf: _Node) -> None:
        parent = leaf.parent
        assert parent is not None
        self._forget_state(leaf)
        self.n_tokens -= len(leaf.edge)
        del parent.children[int(leaf.edge[0])]
        if parent.parent is not None and len(parent.children) == 1 and parent.state is None:
            if parent.pinned:
                return
            (child,) = parent.children.values()  # a node that no longer branches is merged away
            child.edge = np.concatenate([parent.edge, child.edge])
            child.parent = parent.parent
            parent.parent.children[int(child.edge[0])] = child


def common_length(one: Tokens, other: Tokens) -> int:
    """How many first tokens two prompts share."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    return int(differs.argmax()) if differs.any() else length


def _subtree(node: _Node) -> Iterator[_Node]:
    waiting = [node]
    while waiting:
        one = waiting.pop()
        yield one
        waiting.extend(one.children.values())
