"""Ranks the words of a real text corpus: a workflow, and a flow that serves it."""

from .WordRankFlow import WordRankFlow

__all__ = ["WordRankFlow"]
