"""The config files of flow classes: which file belongs to a class, and what is in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from coflows.errors import FlowConfigError


def class_label(cls: type) -> str:
    """A class as errors name it."""
    return f"{cls.__module__}.{cls.__qualname__}"


def class_file(cls: type) -> Path | None:
    """Where the class's YAML is or would be: ``ClassName.yaml`` beside the module that defines the class.
    None for a class that was not defined in a file (a notebook, a shell)."""
    module_file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return Path(module_file).with_name(f"{cls.__name__}.yaml") if module_file else None


def config_place(cls: type) -> str:
    """Where a key of the class's config belongs, for a hint."""
    path, attribute = class_file(cls), f"the class attribute default_config of {cls.__name__}"
    if path is None:
        return attribute
    return str(path) if path.is_file() or "default_config" not in vars(cls) else f"{attribute}, or {path}"


def read_class_file(cls: type) -> dict[str, Any]:
    """What the class's own YAML says, ``{}`` when there is none. Raises FlowConfigError with file, line
    and column."""
    path = class_file(cls)
    if path is None or not path.is_file():
        return {}
    import yaml  # Many processes read no config at all.

    try:
        config = _parsed(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        text = f"{path}{where}: {error.problem or error.context}."
        raise FlowConfigError(text, hint="Mend the YAML there; a quote or a bracket may be open.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise FlowConfigError(f"{path} is not YAML: {error}.", hint="Write it as UTF-8 text.") from error
    except OSError as error:
        raise FlowConfigError(f"{path} cannot be read: {error.strerror}.", hint="Check its permissions.") from error
    return _checked(path, config)


def _parsed(text: str) -> object:
    """libyaml is six times as quick, where PyYAML was built with it; Python's own parser says better what is wrong."""
    import yaml

    with suppress(AttributeError, yaml.YAMLError):
        quick = yaml.CSafeLoader(text)
        try:
            return quick.get_single_data()
        finally:
            quick.dispose()
    return yaml.safe_load(text)


def _checked(path: Path, config: object) -> dict[str, Any]:
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise FlowConfigError(
            f"{path} holds a {type(config).__name__} at its top level, not a mapping.",
            hint="Write it as `key: value` lines, for instance `name: my_flow`.",
        )
    for dotted, key in _keys(config, ""):
        if not isinstance(key, str):
            raise FlowConfigError(
                f"{path}: key {dotted} is read as {type(key).__name__}, not as text.",
                hint="Put it in quotes.",
            )
    return config


def _keys(value: object, at: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{at}{key}", key
            yield from _keys(item, f"{at}{key}.")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _keys(item, f"{at}{index}.")
