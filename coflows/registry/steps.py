"""Where in an order one value ends and the next begins: what leads to a page without a look at those before it."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from coflows.registry.conditions import Condition

MAX_STEPS = 5000


class Steps(NamedTuple):
    """The values of a column, upwards, and how many flows have each or one before it."""

    values: Sequence[str]
    ends: Sequence[int]

    def at(self, offset: int, down: bool) -> tuple[str, int, int] | None:
        """The value of the flow that has so many before it, how many of these have others, and how many have that one;
        None beyond the end."""
        total = self.ends[-1] if self.ends else 0
        if not 0 <= offset < total:
            return None
        step = bisect_right(self.ends, total - 1 - offset if down else offset)
        begin, end = self.ends[step - 1] if step else 0, self.ends[step]
        return self.values[step], total - end if down else begin, end - begin


def read_steps(db: sqlite3.Connection, column: str, condition: Condition) -> Steps | None:
    """Those of a column of ``flows`` that has an index, among what a condition is true of; None when they are many, as
    when each flow has its own."""
    where, values = condition
    sql = f"SELECT {column}, count(*) FROM flows WHERE {where} GROUP BY {column} ORDER BY {column} LIMIT ?"
    rows = db.execute(sql, (*values, MAX_STEPS + 1)).fetchall()
    if len(rows) > MAX_STEPS:
        return None
    return Steps([value for value, _ in rows], list(accumulate(number for _, number in rows)))
