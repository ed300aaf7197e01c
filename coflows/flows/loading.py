"""From the name of a flow class to the class."""

from __future__ import annotations

import importlib
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from coflows.errors import ConfigurationError, FlowClassError
from coflows.flows.flow import Flow, is_complete

SHIPPED = "flow_modules"
"""The package of the flow modules that come with the project."""
MAX_CLASSES = 1_000


def resolve_flow_class(flow_class_name: str, base_paths: Sequence[Path] = ()) -> type[Flow]:
    """The class that "Package.ClassName", "package.module.ClassName" or "__main__.ClassName" names.

    Looked for among what is importable, then in the folders ``base_paths`` (a folder that is needed is
    added to sys.path, at its end), then among the shipped flow modules. Raises FlowClassError, which says
    where it looked or what is wrong with what it found. Only for names that come from the user himself:
    it runs the module's code.
    """
    return _locate(flow_class_name, base_paths)[1]


def check_folder(folder: Path | None) -> None:
    """Raise ConfigurationError for a folder of flow modules that is not there."""
    if folder is not None and not folder.is_dir():
        raise ConfigurationError(
            f"{folder} is no folder.", hint="--flow-modules is the folder that contains the module."
        )


class FlowClasses:
    """``resolve_flow_class`` for many instances of one endpoint: looking through the folders each time would take
    longer than mounting them. A class that its module has no longer, or another one of the same name, is looked for
    anew. Thread-safe."""

    def __init__(self, base_paths: Sequence[Path] = ()) -> None:
        self._base_paths = tuple(base_paths)
        self._known: OrderedDict[tuple[str, int], tuple[ModuleType, type[Flow]]] = OrderedDict()
        self._lock = threading.Lock()

    def resolve(self, flow_class_name: str, version: int) -> type[Flow]:
        """The class; ``version`` is that of the entry that names it, so what is served anew is looked for anew."""
        with self._lock:
            known = self._known.get((flow_class_name, version))
        if known is not None:
            module, flow_class = known
            there = vars(module).get(flow_class_name.rpartition(".")[2]) is flow_class
            if there and sys.modules.get(module.__name__) is module:
                return flow_class
        module, flow_class = _locate(flow_class_name, self._base_paths)
        with self._lock:
            self._known[flow_class_name, version] = module, flow_class
            if len(self._known) > MAX_CLASSES:
                self._known.popitem(last=False)
        return flow_class


def _locate(flow_class_name: str, base_paths: Sequence[Path]) -> tuple[ModuleType, type[Flow]]:
    module_name, class_name = _split(flow_class_name)
    lacking: ModuleType | None = None
    for module in _modules(module_name, base_paths):
        if hasattr(module, class_name):
            return module, _checked(getattr(module, class_name), flow_class_name)
        lacking = lacking or module
    if lacking is None:
        raise FlowClassError(
            f"{flow_class_name}: no module {module_name!r} in {_places(base_paths)}.",
            hint="Check the name, or give the folder that contains it: --flow-modules on the command line, "
            "flow_modules_base_path in Python, or COFLOWS_FLOW_MODULES for both.",
        )
    if (inner := sys.modules.get(flow_class_name) or _import(flow_class_name)) is not None:
        raise FlowClassError(
            f"{flow_class_name} is a module, not a flow class.",
            hint=f"Write {flow_class_name}.ClassName; it has these flows: {', '.join(_flow_names(inner)) or 'none'}.",
        )
    raise FlowClassError(
        f"Module {module_name!r} ({getattr(lacking, '__file__', None) or 'not from a file'}) has no {class_name!r}.",
        hint=f"It has these flows: {', '.join(_flow_names(lacking)) or 'none'}.",
    )


def _split(name: object) -> tuple[str, str]:
    parts = name.split(".") if isinstance(name, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise FlowClassError(
            f"{name!r} does not name a flow class.",
            hint="Write Package.ClassName, or package.module.ClassName: for instance CounterFlowModule.CounterFlow.",
        )
    return ".".join(parts[:-1]), parts[-1]


def _modules(name: str, base_paths: Sequence[Path]) -> Iterator[ModuleType]:
    """The modules that the name may mean, each imported only when those before were not the one."""
    module = _import(name) or _import_from(name, base_paths)
    if module is not None:
        yield module
    if not name.startswith(f"{SHIPPED}."):
        shipped = _import(f"{SHIPPED}.{name}")
        if shipped is not None:
            yield shipped


def _import_from(name: str, base_paths: Sequence[Path]) -> ModuleType | None:
    _look_again()
    for path in base_paths:
        place = str(Path(path).resolve())
        top = Path(place, name.split(".")[0])
        if place not in sys.path and (top.is_dir() or top.with_suffix(".py").is_file()):
            sys.path.append(place)
    return _import(name)


def _look_again() -> None:
    """A module written a moment ago is not found until the finders look again. Unlike ``importlib.invalidate_caches``,
    which raises KeyError then, several threads may do so at once."""
    for place, finder in sys.path_importer_cache.copy().items():  # Others may put in more meanwhile.
        if finder is None:
            sys.path_importer_cache.pop(place, None)
        elif hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()


def _import(name: str) -> ModuleType | None:
    """The module, or None when there is none; raises FlowClassError when its code raises."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            return None
        raise FlowClassError(
            f"Module {name!r} needs {error.name!r}, which is not installed.",
            hint=f"Install {error.name!r} where the worker and who serves the flow run.",
        ) from error
    except (Exception, SystemExit) as error:
        raise FlowClassError(
            f"Module {name!r} does not import: {type(error).__name__}: {error}.", hint="Mend the module."
        ) from error


def _checked(found: object, name: str) -> type[Flow]:
    if not isinstance(found, type):
        raise FlowClassError(f"{name} is a {type(found).__name__}, not a flow class.", hint="Name a class.")
    if not issubclass(found, Flow):
        raise FlowClassError(
            f"{name} is a class, but no flow: it derives from {', '.join(base.__name__ for base in found.__bases__)}.",
            hint="Derive it from coflows.AtomicFlow or coflows.CompositeFlow.",
        )
    if not is_complete(found):
        raise FlowClassError(f"{name} has no run method.", hint="Write def run(self, input_message) in it.")
    return found


def _flow_names(module: ModuleType) -> list[str]:
    return sorted(
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Flow) and is_complete(value)
    )


def _places(base_paths: Sequence[Path]) -> str:
    folders = [str(Path(path).resolve()) for path in base_paths]
    return ", ".join(["what Python can import (sys.path)", *folders]) + f" or the shipped {SHIPPED}"
