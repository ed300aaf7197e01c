"""An exception on its way out of a worker process: the exception itself where it can be pickled, else what it said."""

from __future__ import annotations

import traceback

from coflows.codec import code
from coflows.errors import TaskError


class ChildTraceback(Exception):
    """The cause of an exception that was raised in a worker process: its text is the traceback there."""


def dump_error(error: BaseException) -> bytes:
    """The bytes of an exception; ``load_error`` reads them back."""
    trace = "".join(traceback.format_exception(error))
    try:
        data = code.dumps((error, trace))
        code.loads(data)  # Some exceptions can be pickled, and then cannot be made again.
        return data
    except Exception:
        name = type(error).__qualname__
        return code.dumps((TaskError(f"{name}: {error}", hint="It could not be sent as it is."), trace))


def load_error(data: bytes) -> BaseException:
    """The exception, with the traceback as its cause."""
    error, trace = code.loads(data)
    assert isinstance(error, BaseException)
    error.__cause__ = ChildTraceback(f"\n{trace}")
    return error
