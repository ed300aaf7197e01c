"""Fixtures of the faults: worlds over the broker that they do harm to, and a nursery of processes for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.chaos.nursery import Brood, Nursery
from tests.chaos.world import World, Worlds, world
from tests.services.rabbitmq import RabbitMQ


@pytest.fixture(scope="session")
def everybodys() -> Iterator[Nursery]:
    """The nursery of all tests: it imports once."""
    with closing(Nursery(os.environ)) as nursery:
        yield nursery


@pytest.fixture
def worlds(rabbitmq_node: RabbitMQ, tmp_path: Path, everybodys: Nursery) -> Worlds:
    """``world`` over that broker."""
    return partial(world, rabbitmq_node, tmp_path, everybodys)


@pytest.fixture
def made(worlds: Worlds) -> Iterator[World]:
    """A world that ends with the test."""
    with worlds() as made:
        yield made


@pytest.fixture
def nursery(made: World) -> Brood:
    """Processes of that world."""
    return made.brood
