"""The keys of a user's store: the mount tree, instance metadata, and what the dispatch worker keeps.

flows:{endpoint}:init | flow_class_name | default_dispatch_point | singleton | parallel_dispatch
flows:{endpoint}:quota               what one caller may have there, where that is not what the settings say
flows:{endpoint}:mounts:{client}:{flow_id}:init | config_overrides | state [| dispatch_point_override]
instance_metadata:{flow_id}          whose instance it is and at which endpoint
fetched:{flow_id}                    address of an instance that this user fetched from another
points:{dispatch_point}              how many partitions the point has
leases:{dispatch_point}:{partition}  which worker commits for the partition; the version is the epoch
workers:{dispatch_point}:{worker}    the workers that share the point's partitions
done:{flow_id}:{message_id}          a turn that was committed, with all that it sent
replies:{flow_id}:{message_id}       the turn that answered a message, where that was a later one
order:{flow_id}:{stream}             up to which number the messages of a sender's stream were worked off
calls:{flow_id}:{message_id}         a push call in flight: who may answer, and who waits for the outcome
attempts:{flow_id}:{message_id}      how often a message was begun, once it was delivered again
parked:{point}:{partition}:{flow_id}:{message_id}   a message whose turn takes long, and which worker has it
unparked:{the same}                  its sender no longer wants it
due:{point}:{timer}:{partition}:{flow_id}   a timer, in the order in which timers are due
timers:{flow_id}:{timer}             that the instance has this timer
records:{flow_id}:{name}             what an instance keeps besides its state, written piece by piece
dead:{letter}                        a message that was given up
keeping:{flow_id}                    an instance that its fetch has not kept yet, or whose subflows are to be told
workflows:{run_id}:{record}          a workflow's run, as the records of its graph
released:{user_id}:{request_id}      a request taken back, so that a late mount of it is refused
released:{user_id}:{flow_id}         an instance of another user's that was deleted: its request mounts it no more
access:rules:{endpoint}              who may fetch the endpoint, unless everybody may
access:groups:{group}                the members of a group
access:revoked:{block}               a grant, or a part of one, that was taken back
access:changed                       written anew with each change to one of these three
grants:{block}                       a grant that was issued
granted:{flow_id}:{client}           the grant by which a user holds a singleton
spent:{block}                        how much of a grant's budget was used
charged:{flow_id}:{message_id}       a message that was paid for, until its turn is committed
served                               when an endpoint was served or unserved last
keyring                              the user's own keys of later epochs, sealed
peer_keys:{user_id}                  the newest certificate that is known of another user
peer_keys_changed                    how many of those there are; written with each of them
usage:{user_id}:{endpoint}:{flow_id} bytes of an instance that is mounted for another user
swept                                when old records were last swept
"""

from __future__ import annotations

from typing import NamedTuple

from coflows.model.names import check_run_id

SERVE_FIELDS = ("init", "flow_class_name", "default_dispatch_point", "singleton", "parallel_dispatch")
FLOWS = "flows:"
METADATA = "instance_metadata:"
FETCHED = "fetched:"
DONE = "done:"
REPLIES = "replies:"
ORDER = "order:"
CALLS = "calls:"
ATTEMPTS = "attempts:"
RELEASED = "released:"
WORKERS = "workers:"
SERVED = "served"
SWEPT = "swept"
KEEPING = "keeping:"
DEAD = "dead:"
ACCESS = "access:"
ACCESS_CHANGED = "access:changed"
RULES = "access:rules:"
GROUPS = "access:groups:"
REVOKED = "access:revoked:"
GRANTS = "grants:"
GRANTED = "granted:"
SPENT = "spent:"
CHARGED = "charged:"
PARKED = "parked:"
KEYRING = "keyring"
PEER_KEYS = "peer_keys:"
PEERS_CHANGED = "peer_keys_changed"


class MountPath(NamedTuple):
    """The place of an instance in its owner's mount tree. ``client`` is a user id, or "local"."""

    endpoint: str
    client: str
    flow_id: str

    def key(self, field: str) -> str:
        """The key of one of its fields."""
        return f"{self.prefix}{field}"

    @property
    def prefix(self) -> str:
        """What all its keys begin with."""
        return f"flows:{self.endpoint}:mounts:{self.client}:{self.flow_id}:"


def endpoint_prefix(endpoint: str) -> str:
    """What all keys of an endpoint begin with."""
    return f"flows:{endpoint}:"


def serve_key(endpoint: str, field: str) -> str:
    """The key of one field of a serve entry."""
    return f"flows:{endpoint}:{field}"


def quota_key(endpoint: str) -> str:
    """The limits that an endpoint has of its own."""
    return f"flows:{endpoint}:quota"


def mounts_prefix(endpoint: str) -> str:
    """What the keys of all instances of an endpoint begin with."""
    return f"flows:{endpoint}:mounts:"


def parse_mount_key(key: str) -> tuple[MountPath, str] | None:
    """The mount and field that a key belongs to, or None for any other key."""
    parts = key.split(":")
    if len(parts) == 6 and parts[0] == "flows" and parts[2] == "mounts":
        return MountPath(parts[1], parts[3], parts[4]), parts[5]
    return None


def metadata_key(flow_id: str) -> str:
    """Whose instance it is, and at which endpoint."""
    return f"{METADATA}{flow_id}"


def fetched_key(flow_id: str) -> str:
    """The address of an instance fetched from another user."""
    return f"{FETCHED}{flow_id}"


def point_key(dispatch_point: str) -> str:
    """The record of a dispatch point."""
    return f"points:{dispatch_point}"


def lease_key(dispatch_point: str, partition: int) -> str:
    """The lease of a partition."""
    return f"leases:{dispatch_point}:{partition}"


def workers_prefix(dispatch_point: str) -> str:
    """What the keys of all workers of a dispatch point begin with."""
    return f"{WORKERS}{dispatch_point}:"


def done_prefix(flow_id: str) -> str:
    """What the records of all turns of an instance begin with."""
    return f"{DONE}{flow_id}:"


def done_key(flow_id: str, message_id: str) -> str:
    """The record of a committed turn."""
    return f"{DONE}{flow_id}:{message_id}"


def replies_prefix(flow_id: str) -> str:
    """What the late replies of an instance begin with."""
    return f"{REPLIES}{flow_id}:"


def reply_key(flow_id: str, message_id: str) -> str:
    """Which turn answered a message, where that was a later one than its own."""
    return f"{REPLIES}{flow_id}:{message_id}"


def order_prefix(flow_id: str) -> str:
    """What the orders of an instance begin with."""
    return f"{ORDER}{flow_id}:"


def order_key(flow_id: str, stream: str) -> str:
    """How far the messages of one stream were worked off."""
    return f"{ORDER}{flow_id}:{stream}"


def calls_prefix(flow_id: str) -> str:
    """What the push calls of an instance begin with."""
    return f"{CALLS}{flow_id}:"


def call_key(flow_id: str, message_id: str) -> str:
    """A push call in flight."""
    return f"{CALLS}{flow_id}:{message_id}"


def attempts_prefix(flow_id: str) -> str:
    """What the attempts at an instance's messages begin with."""
    return f"{ATTEMPTS}{flow_id}:"


def attempts_key(flow_id: str, message_id: str) -> str:
    """How often a message was begun."""
    return f"{ATTEMPTS}{flow_id}:{message_id}"


def parked_prefix(dispatch_point: str, partition: int | None = None) -> str:
    """What the parked messages of a dispatch point, or of one of its partitions, begin with."""
    return f"{PARKED}{dispatch_point}:" if partition is None else f"{PARKED}{dispatch_point}:{partition}:"


def parked_key(dispatch_point: str, partition: int | None, flow_id: str, message_id: str) -> str:
    """A parked message; without a partition one of the parallel queue."""
    return f"{PARKED}{dispatch_point}:{'parallel' if partition is None else partition}:{flow_id}:{message_id}"


def parked_cancel_key(key: str) -> str:
    """The mark that the sender of the message parked under ``key`` no longer wants it."""
    return f"un{key}"


def due_prefix(dispatch_point: str) -> str:
    """What the timers of a dispatch point begin with."""
    return f"due:{dispatch_point}:"


def due_key(dispatch_point: str, timer: str, partition: int | None, flow_id: str) -> str:
    """A timer. Its id begins with when it is due, so that scanning gives them in that order."""
    return f"due:{dispatch_point}:{timer}:{'parallel' if partition is None else partition}:{flow_id}"


def timers_prefix(flow_id: str) -> str:
    """What the timers of an instance begin with."""
    return f"timers:{flow_id}:"


def timer_key(flow_id: str, timer: str) -> str:
    """That an instance has a timer."""
    return f"timers:{flow_id}:{timer}"


def records_prefix(flow_id: str) -> str:
    """What the records of an instance begin with."""
    return f"records:{flow_id}:"


def record_key(flow_id: str, name: str) -> str:
    """One record of an instance."""
    return f"records:{flow_id}:{name}"


def workflow_prefix(run_id: str) -> str:
    """What the records of a workflow's run begin with."""
    return f"workflows:{check_run_id(run_id)}:"


def dead_key(letter: str) -> str:
    """A dead letter."""
    return f"{DEAD}{letter}"


def peer_key(user_id: str) -> str:
    """The certificate of another user."""
    return f"{PEER_KEYS}{user_id}"


def keeping_key(flow_id: str) -> str:
    """What is still to be done about an instance, until its fetch is finished."""
    return f"{KEEPING}{flow_id}"


def released_key(user_id: str, which: str) -> str:
    """The mark of a fetch request that was taken back, or of an instance that such a request had mounted."""
    return f"{RELEASED}{user_id}:{which}"


def rule_key(endpoint: str) -> str:
    """Who may fetch an endpoint."""
    return f"{RULES}{endpoint}"


def group_key(group: str) -> str:
    """The members of a group."""
    return f"{GROUPS}{group}"


def revoked_key(block: str) -> str:
    """That a block of a grant was taken back."""
    return f"{REVOKED}{block}"


def grant_key(block: str) -> str:
    """A grant that was issued."""
    return f"{GRANTS}{block}"


def granted_prefix(flow_id: str) -> str:
    """What the grants by which users hold a singleton begin with."""
    return f"{GRANTED}{flow_id}:"


def granted_key(flow_id: str, client: str) -> str:
    """The grant by which a user holds a singleton."""
    return f"{GRANTED}{flow_id}:{client}"


def spent_key(block: str) -> str:
    """What was used of a block's budget."""
    return f"{SPENT}{block}"


def charged_prefix(flow_id: str) -> str:
    """What the marks of an instance's paid messages begin with."""
    return f"{CHARGED}{flow_id}:"


def charged_key(flow_id: str, message_id: str) -> str:
    """That a message was paid for."""
    return f"{CHARGED}{flow_id}:{message_id}"


def usage_prefix(user_id: str) -> str:
    """What the records of all instances that are mounted for a user begin with."""
    return f"usage:{user_id}:"


def usage_key(user_id: str, endpoint: str, flow_id: str) -> str:
    """How much an instance that is mounted for a user takes."""
    return f"usage:{user_id}:{endpoint}:{flow_id}"
