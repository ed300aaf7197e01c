"""What a user's account on RabbitMQ may do, as the patterns that the server looks for in names (pure)."""

from __future__ import annotations

import re
from typing import NamedTuple

from coflows.broker.topology import door_exchange, own_queues
from coflows.model.names import check_user_id

END = r"\z"
"""``$`` would let one more line end follow."""


class Permissions(NamedTuple):
    """Of queues and exchanges, by their names."""

    configure: str
    write: str
    read: str


def permissions_of(user_id: str) -> Permissions:
    """A user configures, writes and reads what is named as his own; he sends through everybody's door, and only his own
    may he bind queues to, which is to read from it. Raises NameInvalidError."""
    own = re.escape(own_queues(check_user_id(user_id)))
    mine = re.escape(door_exchange(user_id)) + END
    # What begins with this only an administrator makes. The server reads patterns again and again; short is quick.
    doors = re.escape(door_exchange(""))
    return Permissions(f"^{own}", f"^(?:{doors}|{own})", f"^(?:{own}|{mine})")
