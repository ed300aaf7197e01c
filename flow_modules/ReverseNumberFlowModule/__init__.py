"""Reverses numbers: the smallest flow there is, and two that use it twice."""

from .ReverseNumberAtomicFlow import ReverseNumberAtomicFlow
from .ReverseNumberSequentialFlow import ReverseNumberSequentialFlow
from .ReverseNumberSequentialNonBlockingFlow import ReverseNumberSequentialNonBlockingFlow

__all__ = ["ReverseNumberAtomicFlow", "ReverseNumberSequentialFlow", "ReverseNumberSequentialNonBlockingFlow"]
