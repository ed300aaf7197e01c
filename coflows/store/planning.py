"""Decides, without I/O, which commits of a group hold and what is written for all of them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coflows.store.commits import Commit


class GroupPlan:
    """Commits checked and applied one after the other, in memory. ``version`` is the last one given before the group;
    ``versions`` are those of the keys that its commits have conditions on. A key that several commits write is written
    once."""

    def __init__(self, version: int, versions: Mapping[str, int]) -> None:
        self.began_at = self.version = version
        self.rows: dict[str, tuple[bytes, int] | None] = {}
        """Keys with their new value and version; None for those that go."""
        self.changes: list[tuple[str, int]] = []
        """For the change log: keys in order, and 1 where it was deleted."""
        self._versions = dict(versions)

    def stale(self, commit: Commit) -> list[str]:
        """The keys whose version, after the commits added so far, is not what the commit asks for."""
        return [key for key, version in commit.conditions.items() if self._versions.get(key, 0) != version]

    def add(self, commit: Commit) -> int:
        """Apply a commit; gives its version."""
        if not commit.changes:
            return self.version
        self.version += 1
        for key, value in commit.writes.items():
            self.rows[key] = (value, self.version)
            self._versions[key] = self.version
            self.changes.append((key, 0))
        for key in commit.deletes:
            self.rows[key] = None
            self._versions[key] = 0
            self.changes.append((key, 1))
        return self.version


def condition_keys(commits: Iterable[Commit]) -> dict[str, None]:
    """The keys whose versions a plan needs to know."""
    return dict.fromkeys(key for commit in commits for key in commit.conditions)
