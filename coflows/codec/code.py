"""Pickles a user's own objects; alone touches cloudpickle. Never used on what another user could have written, unless
this user has said that he runs that one's code."""

from __future__ import annotations

from importlib.abc import InspectLoader
from types import ModuleType
from typing import Any


def dumps(value: Any) -> bytes:
    """Bytes of any picklable object; raises what pickling raises."""
    import cloudpickle

    return bytes(cloudpickle.dumps(value))


def loads(data: bytes) -> Any:
    """The object again; only for bytes of the user's own store, or of those whose code he runs."""
    import cloudpickle

    return cloudpickle.loads(data)


class _Source(InspectLoader):
    def __init__(self, source: str) -> None:
        self._source = source

    def get_source(self, fullname: str) -> str:
        return self._source


def load_source(source: str, name: str) -> ModuleType:
    """A module of its own made of Python source; raises what that raises. As ``loads``, it runs what it gets."""
    module = ModuleType(name)
    _Source(source).exec_module(module)
    return module
