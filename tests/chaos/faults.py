"""The faults: each is done to a world while its load runs, and is over when it returns."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pika

from coflows.broker.topology import dispatch_queues
from tests.chaos.world import World

Fault = Callable[[World, random.Random], None]


def kill_worker(world: World, dice: random.Random) -> None:
    """SIGKILL; somebody starts it again."""
    worker = dice.choice(world.workers)
    worker.ready.wait(60)
    worker.died.clear()
    worker.signal(signal.SIGKILL)
    worker.died.wait(60)
    worker.ready.wait(60)


def freeze_worker(world: World, dice: random.Random) -> None:
    """SIGSTOP, longer than a worker counts as alive, then SIGCONT."""
    worker = dice.choice(world.workers)
    worker.ready.wait(60)
    worker.signal(signal.SIGSTOP)
    time.sleep(FREEZE)
    worker.signal(signal.SIGCONT)


FREEZE = 3.0


def kill_broker(world: World, dice: random.Random) -> None:
    """``kill -9`` RabbitMQ and start it again."""
    world.node.kill()
    world.node.start()


def restart_broker(world: World, dice: random.Random) -> None:
    """Shut RabbitMQ down in good order and start it again."""
    world.node.halt()
    world.node.start()


def freeze_broker(world: World, dice: random.Random) -> None:
    """SIGSTOP the whole node for a while."""
    pid = int(world.node.evaluate("list_to_integer(os:getpid())"))
    os.kill(pid, signal.SIGSTOP)
    time.sleep(FREEZE)
    os.kill(pid, signal.SIGCONT)


def close_connections(world: World, dice: random.Random) -> None:
    """The server closes every connection."""
    world.node.evaluate('rabbit_networking:close_all_connections("a test")')


ALARMS = {
    "memory": (
        "vm_memory_monitor:set_vm_memory_high_watermark(0.000001)",
        'vm_memory_monitor:set_vm_memory_high_watermark({absolute, "2GB"})',
    ),
    "disk": (
        'rabbit_disk_monitor:set_disk_free_limit("100000GB")',
        'rabbit_disk_monitor:set_disk_free_limit("50MB")',
    ),
}
"""What raises each alarm, and what ends it."""


def memory_alarm(world: World, dice: random.Random) -> None:
    """The server takes no messages for a while."""
    _alarm(world, *ALARMS["memory"])


def disk_alarm(world: World, dice: random.Random) -> None:
    """The server takes no messages for a while."""
    _alarm(world, *ALARMS["disk"])


def _alarm(world: World, on: str, off: str) -> None:
    world.node.evaluate(on)
    time.sleep(2.0)
    world.node.evaluate(off)


def fill_queues(world: World, dice: random.Random) -> None:
    """The queues of all partitions take two messages and no more, for a while."""
    with world.node.bounded(DISPATCH, 2):
        time.sleep(2.0)


DISPATCH = r"^coflows\..*\.dispatch\."


def delete_queues(world: World) -> None:
    """Somebody deletes the queues of all partitions, with all that is in them; the server cancels their consumers."""
    with pika.BlockingConnection(pika.URLParameters(world.node.url)) as connection:
        channel = connection.channel()
        for queue in dispatch_queues(world.alice.user_id, "coflows_dispatch", 8)[1:]:
            channel.queue_delete(queue.name)


FAULTS: dict[str, Fault] = {
    "worker killed": kill_worker,
    "worker frozen and thawed": freeze_worker,
    "broker killed": kill_broker,
    "broker restarted": restart_broker,
    "broker frozen and thawed": freeze_broker,
    "connections closed": close_connections,
    "memory alarm": memory_alarm,
    "disk alarm": disk_alarm,
    "queues full": fill_queues,
}
"""What leaves no trace at all. A queue deleted is apart: what is in it is gone until its sender asks for the reply."""
