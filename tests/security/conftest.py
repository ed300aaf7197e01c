"""One world for all attacks of a file: endpoints and instances are each test's own. How many cases the tests that make
them up (``fuzz``) have: 100 each, or as many as CASES says."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.security.world import World, world


@pytest.fixture(scope="module", name="world")
def world_of_a_file() -> Iterator[World]:
    with world() as clients:
        yield clients


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        made_up = getattr(getattr(item, "function", None), "hypothesis", None)
        if made_up is not None and item.path.parent.name == "security":
            item.add_marker("fuzz")


settings.register_profile("security", max_examples=int(os.environ.get("CASES", "100")), deadline=None)
settings.load_profile("security")
