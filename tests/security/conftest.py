"""One world for all attacks of a file: endpoints and instances are each test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.world import World, world


@pytest.fixture(scope="module", name="world")
def world_of_a_file() -> Iterator[World]:
    with world() as clients:
        yield clients
