"""Measures msgpack before it is read: how many elements it has and how deep it is nested, without making any of it.

A list of a million empty lists is a megabyte of msgpack and eighty of memory, and a thousand lists in each other that
each announce 150,000 elements are five kilobytes for which msgpack allocates more than a gigabyte. So what is larger
than that could matter for is measured first.
"""

from __future__ import annotations

from coflows.errors import SerializationError

_EXTENSION = -1


def _steps() -> tuple[int, ...]:
    """By first byte: how many bytes a plain element takes; 0 when there is more to look at, -1 for an extension or a
    byte that msgpack does not use."""
    steps = [1] * 256
    steps[0x80:0xA0] = [0] * 32
    steps[0xA0:0xC0] = range(1, 33)
    steps[0xC1] = _EXTENSION
    steps[0xC4:0xC7] = [0] * 3
    steps[0xD9:0xE0] = [0] * 7
    steps[0xC7:0xCA] = [_EXTENSION] * 3
    steps[0xCA:0xD4] = (5, 9, 2, 3, 5, 9, 2, 3, 5, 9)
    steps[0xD4:0xD9] = [_EXTENSION] * 5
    return tuple(steps)


_STEPS = _steps()
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""Of texts and bytes: how long their length is."""
_CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Of lists and dicts: how long their length is, and how many values each of their elements has."""


def measure(data: bytes, max_depth: int, max_items: int) -> int:
    """How many elements a value has, over all its lists and dicts. Raises SerializationError beyond the bounds, for
    extensions, and for bytes that end too early; other bytes that are no msgpack may pass."""
    position = items = 0
    left, outer = 1, list[int]()
    steps = _STEPS
    try:
        while True:
            while not left:
                if not outer:
                    return items
                left = outer.pop()
            left -= 1
            first = data[position]
            step = steps[first]
            if step > 0:
                position += step
                continue
            if step:
                raise SerializationError("These bytes are no value: they have an extension, or are no msgpack.")
            position += 1
            if first in _BYTES:
                size = _BYTES[first]
                position += size + int.from_bytes(data[position : position + size])
                continue
            if first < 0xA0:
                count, values = first & 0x0F, 2 if first < 0x90 else 1
            else:
                size, values = _CONTAINERS[first]
                count = int.from_bytes(data[position : position + size])
                position += size
            items += count
            if items > max_items:
                raise SerializationError(f"Value has more than {max_items} elements.")
            if len(outer) > max_depth:
                raise SerializationError(f"Value is nested deeper than {max_depth}.")
            outer.append(left)
            left = count * values
    except IndexError:
        raise SerializationError("These bytes are no value: they end too early.") from None
