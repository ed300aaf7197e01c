"""Which processes of a run changed since somebody looked: so that who watches a long run is told what is new alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from coflows.model.messages import new_message_id


class Changes:
    """Numbers changes from 1 on, for as long as the run is in memory. Not thread-safe."""

    def __init__(self, names: Iterable[str]) -> None:
        self._life = new_message_id()
        """Whoever saw the numbers of another life has seen nothing."""
        self._numbers: dict[str, int] = {}
        """In the order of the last change of each."""
        self._last = 0
        self.note(names)

    def note(self, names: Iterable[str]) -> None:
        """These have changed."""
        for name in names:
            self._last += 1
            self._numbers.pop(name, None)
            self._numbers[name] = self._last

    def since(self, seen: object) -> Iterator[tuple[str, list[object]]]:
        """What changed after ``seen`` (None, or what this gave), the oldest change first; with each name what to say
        next time when that was the last one that was told. Costs what it gives."""
        known = 0
        if isinstance(seen, list) and len(seen) == 2 and seen[0] == self._life and isinstance(seen[1], int):
            known = seen[1]
        new: list[tuple[str, int]] = []
        for name, number in reversed(self._numbers.items()):
            if number <= known:
                break
            new.append((name, number))
        for name, number in reversed(new):
            yield name, [self._life, number]

    def now(self) -> list[object]:
        """What to say next time when all was told."""
        return [self._life, self._last]
