"""What an exception says, as the reason why a step failed."""

from __future__ import annotations


def said(error: BaseException) -> str:
    """The text of an exception, whatever it makes of itself; its type where the text alone would say nothing."""
    try:
        if isinstance(error, KeyError | SystemExit):
            return f"{type(error).__name__}: {error}".removesuffix(": ")
        return str(error) or type(error).__name__
    except Exception:  # __str__ is a step author's code too
        return type(error).__name__
