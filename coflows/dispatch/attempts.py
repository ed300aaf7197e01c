"""How often a message has been begun: one that its workers die over goes to the dead letters in the end."""

from __future__ import annotations

from coflows.codec.wire import encode
from coflows.endpoints import read
from coflows.model.layout import attempts_key
from coflows.store.base import ABSENT, Store

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


def pause_before(attempt: int) -> float:
    """Seconds to wait before the ``attempt``-th attempt, the first being 1: none before the second, for most workers
    die of something else; then twice as long each time."""
    return 0.0 if attempt <= 2 else min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 3))


def begin_again(store: Store, flow_id: str, message_id: str, lease: tuple[str, int] | None) -> int:
    """Record that a message which was delivered before is begun now, and give the number of this attempt. A message's
    first attempt is not recorded: it costs nothing unless something goes wrong. ``lease``: key and epoch, whose
    holder alone may. Raises ConflictError or what the store raises."""
    key = attempts_key(flow_id, message_id)
    entry = store.get(key)
    attempt = 2 if entry is None else int(read(entry.value)) + 1
    conditions = {key: ABSENT if entry is None else entry.version}
    if lease is not None:
        conditions[lease[0]] = lease[1]
    store.commit({key: encode(attempt)}, conditions=conditions)
    return attempt
