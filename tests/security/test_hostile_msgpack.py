"""Bytes that are made to cost: they are refused before anything is made of them."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflows.codec.bounds import measure
from coflows.codec.wire import MAX_DEPTH, MAX_ITEMS, SMALL, decode, decode_counted, encode
from coflows.errors import SerializationError

PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=50)
FEWER = 20_000
"""Elements, so that the larger ones are quick to refuse while every byte is traced."""
LIST, DICT, TEXT = (bytes([byte]) for byte in (0xDD, 0xDF, 0xDB))


def announced(first: bytes, count: int) -> bytes:
    return first + struct.pack(">I", count)


BOMBS = {
    "a megabyte of empty lists": announced(LIST, 2**20) + b"\x90" * 2**20,
    "lists of empty lists, each of them small": announced(LIST, 1000) + (announced(LIST, 1000) + b"\x80" * 1000) * 1000,
    "more dicts than elements are allowed": announced(LIST, FEWER) + b"\x81\xa0\x80" * FEWER,
    "lists in lists that announce what does not come": announced(LIST, FEWER) * 1000,
    "a few of them, in little more than a kilobyte": b"\xdc\xff\xff" * 400,
    "in less": b"\xdc\x03\xe8" * 340,
    "dicts in dicts that announce what does not come": (announced(DICT, 60_000) + b"\xa0") * 200,
    "a list that announces four thousand million": announced(LIST, 2**32 - 1) + bytes(2000),
    "a text that announces four gigabytes": announced(TEXT, 2**32 - 1) + bytes(2000),
    "lists in lists without end": b"\x91" * 2**20,
    "dicts in dicts without end": b"\x81\xa0" * 2**19,
    "one level too deep": encode({"x": b"." * SMALL})[:1] + b"\xa1x" + b"\x91" * (MAX_DEPTH + 1) + b"\xc0",
    "an extension": b"\x92\xc7\x05\x01....." + b"\xc0" * SMALL,
    "an extension within a text's length of others": b"\xd4\x01\x00" + bytes(SMALL),
    "a byte that msgpack does not use": b"\xc1" * 2000,
    "numbers as keys": b"\x81\x01\x02",
    "the same key ten thousand times, each with a list": announced(DICT, 10_001) + b"\xa0\x91\x90" * 10_001,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bytes_that_would_grow(name: str) -> None:
    data = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(SerializationError):
            decode(data, max_bytes=2**24, max_items=FEWER)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


@given(VALUES)
def test_what_is_measured_is_what_is_there(value: Any) -> None:
    data = encode(value)
    expected = decode_counted(data + b"", max_bytes=2**24)[1] if len(data) <= SMALL else None
    counted = measure(data, MAX_DEPTH, MAX_ITEMS)
    assert expected is None or counted == expected
    padded = encode([value, b"." * SMALL])
    found, elements = decode_counted(padded, max_bytes=2**24)
    assert encode(found[0]) == data and elements == counted + 2


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xd9\xff" + b"." * 255, b"\x93" * 20, b"\xdc\x04\x00"]))
def test_random_bytes_are_a_value_or_refused(data: bytes, before: bytes) -> None:
    """Before a bound is passed or the bytes end, both ways of looking say the same."""
    for whole in (before + data, b"\x92\xc5\x04\x00" + bytes(1024) + before + data):
        try:
            value, elements = decode_counted(whole, max_bytes=2**24)
        except SerializationError:
            continue
        assert elements == measure(msgpack.packb(value, strict_types=False), 2 * MAX_DEPTH, MAX_ITEMS)


@given(VALUES, st.integers(0), st.integers(1, 255))
def test_a_changed_byte_costs_no_more_than_an_error(value: Any, position: int, mask: int) -> None:
    data = bytearray(encode([value, b"." * SMALL]))
    data[position % len(data)] ^= mask
    try:
        decode(bytes(data), max_bytes=2**24)
    except SerializationError:
        return


@pytest.mark.parametrize("size", [10, 2 * SMALL])
def test_the_bounds_are_the_same_for_small_and_large(size: int) -> None:
    filling = b"." * size
    for depth in (MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1):
        inner: Any = filling
        for _ in range(depth):
            inner = [inner]
        outcome = decode(encode([inner]), max_bytes=2**24) if depth <= MAX_DEPTH else None
        if outcome is None:
            with pytest.raises(SerializationError, match="deeper"):
                decode(encode([inner]), max_bytes=2**24)
    decode(encode([filling, *[0] * 99]), max_bytes=2**24, max_items=100)
    with pytest.raises(SerializationError):
        decode(encode([filling, *[0] * 100]), max_bytes=2**24, max_items=100)
