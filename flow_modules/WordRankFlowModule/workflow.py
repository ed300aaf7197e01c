"""The workflow: fetch, split, count in parallel, merge, rank, chart."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from coflows.workflow import FlowSpec, foreach, join, needs, step

WORD = re.compile(r"[a-z]+")
BAR = 40
"""How many characters the longest bar of the chart has."""


class WordRank(FlowSpec):
    """The words of the language reference that comes with Python, the most frequent first.

    ``input``: ``parts`` (how many processes count), ``letters`` (shorter words do not count), ``top`` (how many to
    rank).
    """

    @step
    def fetch(self, request: dict[str, Any]) -> list[str]:
        """Reads the corpus: half a megabyte of text in some eighty articles."""
        from pydoc_data.topics import topics

        return list(topics.values())

    @foreach()
    @needs(predecessors=[fetch])
    @step
    def split(self, articles: list[str]) -> list[list[str]]:
        """Deals the articles out into parts of about the same length."""
        parts: list[list[str]] = [[] for _ in range(self.input["parts"])]
        for article in sorted(articles, key=len, reverse=True):
            min(parts, key=lambda part: sum(map(len, part))).append(article)
        return parts

    @needs(predecessors=[split])
    @step(runs_in="process", maxexectime=300, maxretries=2, backoff=1)
    def count(self, part: list[str]) -> dict[str, int]:
        """Counts the words of one part, in a process of its own."""
        words = WORD.findall(" ".join(part).lower())
        return Counter(word for word in words if len(word) >= self.input["letters"])

    @join()
    @needs(predecessors=[count])
    @step
    def merge(self, counts: list[dict[str, int]]) -> dict[str, int]:
        """Adds up what was counted."""
        total: Counter[str] = Counter()
        for one in counts:
            total.update(one)
        return dict(total)

    @needs(predecessors=[merge])
    @step
    def rank(self, total: dict[str, int]) -> list[tuple[str, int]]:
        """The most frequent words, equals by alphabet."""
        return sorted(total.items(), key=lambda item: (-item[1], item[0]))[: self.input["top"]]

    @needs(predecessors=[rank])
    @step
    def chart(self, ranking: list[tuple[str, int]]) -> str:
        """The ranking as bars."""
        width = max((len(word) for word, _ in ranking), default=0)
        most = max((count for _, count in ranking), default=1)
        lines = (f"{word:>{width}} {'#' * round(BAR * count / most)} {count}" for word, count in ranking)
        return "\n".join(lines)
