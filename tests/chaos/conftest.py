"""Fixtures of the faults: a world over the broker that they do harm to, and a nursery of processes for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.nursery import Nursery
from tests.chaos.world import World, world
from tests.services.rabbitmq import RabbitMQ


@pytest.fixture
def made(rabbitmq_node: RabbitMQ, tmp_path: Path) -> Iterator[World]:
    """A world that ends with the test."""
    with world(rabbitmq_node, tmp_path) as made:
        yield made


@pytest.fixture
def nursery(made: World) -> Iterator[Nursery]:
    """Processes of that world."""
    nursery = Nursery(made.environment)
    yield nursery
    nursery.close()
