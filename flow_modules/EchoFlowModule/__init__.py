"""Answers with what it was sent."""

from .EchoFlow import EchoFlow

__all__ = ["EchoFlow"]
