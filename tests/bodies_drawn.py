"""The programs of ``bodies.py``, as Hypothesis draws them."""

from __future__ import annotations

from typing import Any

from bodies import CAUGHT, TOKENS, Block
from hypothesis import strategies as st

_secs = st.sampled_from([0, 0.5, 1, 1, 2, 5, 30])
_limit = st.none() | _secs
_few = st.integers(0, 3)
_token = st.sampled_from([*TOKENS, None, None, "web", "web"])


def _node(name: str, *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.tuples(st.just(name), *parts).map(list)


_leaves = st.one_of(
    *[_node("step", _few)] * 6,
    *[_node("sleep", _secs, st.booleans())] * 3,
    *[_node("take", _few)] * 3,
    *[_node("open", _token)] * 2,
    _node("call", _few),
    _node("outcome", _few),
    _node("nap", _secs),
    _node("child", _few),
    _node("pause"),
    _node("draw"),
    _node("fail"),
    _node("patch", st.sampled_from(["a", "b"])),
    *[_node("cancel", _few)] * 2,
    _node("join", _few),
    _node("conflict", _few),
    _node("close", _few),
    _node("put", _few),
    _node("get"),
    _node("set"),
    _node("clear"),
    _node("wait_event"),
    _node("notified"),
    _node("notify", st.integers(1, 2)),
)


def _composites(node: st.SearchStrategy[list[Any]]) -> st.SearchStrategy[list[Any]]:
    block = st.lists(node, max_size=3)
    some = st.lists(node, min_size=1, max_size=3)
    blocks = st.lists(some, min_size=1, max_size=3)
    when = st.sampled_from(["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"])
    return st.one_of(
        _node("attempt", some, st.sampled_from(["error", "error", *CAUGHT]), block, block),
        _node("spawn", some),
        _node("gather", blocks, st.booleans()),
        _node("race", blocks),
        _node("race_sleep", _secs, some),
        _node("race_hook", _few, blocks),
        _node("each", _few, st.integers(1, 3), block),
        _node("with_hook", st.sampled_from([*TOKENS, None]), some),
        _node("wait", blocks, when, _limit, st.booleans()),
        _node("wait_for", _secs, some),
        _node("timeout", _secs, some, _limit, block),
        _node("group", blocks),
        _node("shield", _secs, some),
        _node("as_completed", blocks, _limit),
        _node("generate", blocks, _few, block),
        _node("context", block, some, block),
        _node("lock", some),
        _node("semaphore", some),
    )


_nodes = st.recursive(_leaves, _composites, max_leaves=16)


@st.composite
def _programs(draw: st.DrawFn) -> Block:
    opened = [["open", token] for token in draw(st.lists(_token, max_size=2))]
    nodes = draw(st.lists(_nodes, min_size=1, max_size=5))
    match draw(st.sampled_from(["plain", "guarded", "guarded", "parallel"])):
        case "guarded":  # an error of one is not the end of all
            return opened + [["attempt", [node], "error", [], []] for node in nodes]
        case "parallel":
            return [*opened, ["gather", [[node] for node in nodes], True]]
    return opened + nodes


#: A program, with a few hooks to begin with.
programs = _programs()
