"""What a pool and its worker processes say to each other: msgpack arrays in a stream of a socket pair.

To the worker: ``["task", data, memory limit, calls?]``, ``["answer", call, data]``. To the pool: ``["ready"]``,
``["done", data]``, ``["raised", data]``, ``["memory", text]``, ``["call", call, data]``, ``["pause"]``, ``["resume"]``.
Both ends are processes of one user.
"""

from __future__ import annotations

from typing import Any

import msgpack

Frame = list[Any]
CHUNK = 1 << 18
MEMORY_EXIT = 119
"""The exit code of a worker that could not even say that its memory was used up."""


def pack(*frame: Any) -> bytes:
    """The bytes of one frame; raises ValueError beyond 4 GiB."""
    return bytes(msgpack.packb(frame))


def unpacker() -> Any:
    """Reads frames: ``feed`` it bytes, then iterate."""
    return msgpack.Unpacker(max_buffer_size=0, strict_map_key=False)
