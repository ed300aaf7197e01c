"""Counts: a flow with state."""

from .CounterFlow import CounterFlow

__all__ = ["CounterFlow"]
