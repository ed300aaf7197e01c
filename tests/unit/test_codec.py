"""Codecs: what goes in comes out; what cannot is told by its key; what others send is bounded."""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflows import FlowMessage
from coflows.codec.state import decode_state, encode_state
from coflows.codec.wire import decode, decode_counted, encode
from coflows.errors import SerializationError
from coflows.session import Incoming

LIMIT = 2**20
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


@given(value=VALUES)
def test_wire_round_trip(value: Any) -> None:
    assert decode(encode(value), max_bytes=LIMIT) == value


@given(data=st.binary(max_size=100))
def test_garbage_is_a_value_or_an_error(data: bytes) -> None:
    with contextlib.suppress(SerializationError):
        decode(data, max_bytes=LIMIT)


@pytest.mark.parametrize(
    "data",
    [
        b"\x91" * 40 + b"\xc0",
        msgpack.packb(msgpack.ExtType(5, b"x")),
        msgpack.packb({"a": msgpack.Timestamp(1)}),
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\x7f\xff\xff\xff",
        msgpack.packb([0] * 300_000),
        msgpack.packb([[0] * 1000] * 300),
        msgpack.packb({1: 2}),
        encode(1) + b"\x00",
    ],
    ids=["deep", "extension", "timestamp", "huge array", "huge map", "long", "many", "number key", "trailing"],
)
def test_bounds(data: bytes) -> None:
    with pytest.raises(SerializationError):
        decode(data, max_bytes=LIMIT)


def size_of(value: Any, seen: set[int]) -> int:
    """Bytes that a value takes, each object counted once. (What an interpreter allocates meanwhile tells of its other
    threads too.)"""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    inner = (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sys.getsizeof(value) + sum(size_of(one, seen) for one in inner)


@pytest.mark.parametrize(
    "inner",
    [
        [{}] * 9_000,
        [[]] * 9_000,
        [{"a": 1}] * 9_000,
        [2.5] * 9_000,
        ["a", 1000] * 9_000,
        dict.fromkeys(map(str, range(9_000))),
    ],
    ids=["dicts", "lists", "filled dicts", "numbers", "texts", "keys"],
)
def test_what_a_value_takes_in_memory_is_known(inner: Any) -> None:
    """A list of empty dicts takes 70 times its bytes."""
    data = encode({"x": inner})
    value, elements = decode_counted(data, max_bytes=LIMIT)
    taken = size_of(value, set())
    assert value == {"x": inner} and elements >= len(inner)
    weight = Incoming("a" * 52, "0" * 32, value, data, elements=elements).weight
    assert taken / 2 < weight < 40 * taken


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": {"b": [1, {2}]}}, r"'a\.b\[1\]': a set"),
        ({"n": 2**64}, "'n': the integer"),
        ({"s": "\ud800"}, "'s': the text"),
        ({"o": object()}, "'o': an object"),
    ],
)
def test_what_cannot_be_sent_is_named(value: Any, text: str) -> None:
    with pytest.raises(SerializationError, match=text) as caught:
        encode(value)
    assert "".join(traceback.format_exception(caught.value)).count("Traceback") == 1


def test_a_value_that_contains_itself() -> None:
    value: dict[str, Any] = {}
    value["self"] = value
    with pytest.raises(SerializationError):
        encode(value)


@given(value=st.dictionaries(st.text(), VALUES, max_size=4))
def test_plain_state_is_msgpack(value: dict[str, Any]) -> None:
    data = encode_state(value)
    assert data[:1] == b"m" and decode_state(data) == value


@pytest.mark.parametrize("value", [(1, 2), {1, 2}, {1: "one"}, 2**80, complex(1, 2), lambda: 1, [(1,)]])
def test_other_state_keeps_its_types(value: Any) -> None:
    again = decode_state(encode_state({"value": value}))["value"]
    assert type(again) is type(value) and (callable(value) or again == value)


def test_messages_in_state_stay_msgpack() -> None:
    message = FlowMessage({"a": [1]}, sender="a" * 52)
    data = encode_state({"waiting": {"x": {"first": message}}})
    assert data[:1] == b"m" and decode_state(data)["waiting"]["x"]["first"] == message


def test_state_that_cannot_be_kept_is_named() -> None:
    with pytest.raises(SerializationError, match=r"flow_state\['lock'\]"):
        encode_state({"fine": (1,), "lock": threading.Lock()})
