"""CoFlows that does not seal, to measure what sealing costs: ``python -m benchmarks.unsealed MODULE ...`` runs one so.

Nothing of CoFlows can be told to leave sealing out, so other functions stand here in place of those that seal and open:
the same fields in the same array, but in the clear and unproven.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import msgpack

from coflows.identity.keyring import Keyring
from coflows.identity.keys import Identity
from coflows.identity.sealing import Item, Opened


@contextmanager
def unsealed() -> Iterator[None]:
    """Sessions in this process neither seal nor check."""
    with mock.patch.multiple("coflows.session", seal_items=seal_plain, open_envelope=open_plain):
        yield


def seal_plain(identity: Identity, recipient: str, expiry: int, items: Sequence[Item], **_: Any) -> bytes:
    """In place of ``seal_items``."""
    return bytes(msgpack.packb([identity.user_id, recipient, expiry, items]))


def open_plain(identity: Identity, data: bytes, now: float, max_bytes: int, keyring: Keyring | None = None) -> Opened:
    """In place of ``open_envelope``."""
    sender, _, expiry, rows = msgpack.unpackb(data)
    return Opened(sender, expiry, tuple(Item(*row) for row in rows))


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    with unsealed():
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
