"""Who gets the places and bytes of a registry that is full: keys cost nothing, so they are shared between networks."""

from __future__ import annotations

from collections.abc import Mapping


def gives_way(held: Mapping[str, int], newcomer: str, more: int) -> str | None:
    """Which network has to let go of something for ``more`` of a newcomer's: the one that holds most, as long as that
    is more than the newcomer's network has then. None: he is not taken."""
    largest = max(held, key=lambda place: (held[place], place), default=None)
    return largest if largest is not None and held[largest] > held.get(newcomer, 0) + more else None
