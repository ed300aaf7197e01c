"""The tree of errors: what its docstring draws is what there is, in one place, each class with its own code."""

from __future__ import annotations

import importlib
import pkgutil
import re

from coflows import errors
from coflows.errors import CoflowsError

PARTS = [importlib.import_module(f"coflows.errors.{one.name}") for one in pkgutil.iter_modules(errors.__path__)]
DEFINED = {
    kind.__name__: kind
    for part in PARTS
    for kind in vars(part).values()
    if isinstance(kind, type) and issubclass(kind, CoflowsError)
}


def test_every_error_can_be_had_from_the_package() -> None:
    assert set(errors.__all__) == set(DEFINED)
    assert all(getattr(errors, name) is kind for name, kind in DEFINED.items())


def test_the_tree_is_as_it_is_drawn() -> None:
    above = ["CoflowsError"]
    drawn = {"CoflowsError"}
    for branch, name in re.findall(r"^([ |`-]+)(\w+Error)", errors.__doc__ or "", re.MULTILINE):
        del above[len(branch) // 4 :]
        assert DEFINED[name].__bases__[0] is DEFINED[above[-1]], name
        above.append(name)
        drawn.add(name)
    assert drawn == set(DEFINED)


def test_no_two_errors_have_one_code() -> None:
    own = [kind.code for kind in DEFINED.values() if "code" in vars(kind)]
    assert len(own) == len(set(own)) == len(DEFINED)
