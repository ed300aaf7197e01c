"""The pydantic models that a flow class may declare: ``Input``, ``Output`` and ``Config``, classes within it.

What another user sends and overrides is checked by them before any of the flow's code runs, and what the flow answers
before it leaves. They are published as JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from coflows.errors import CoflowsError, FlowClassError, FlowConfigError, InputInvalidError, OutputInvalidError
from coflows.flows.class_file import class_label

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    Model = type[BaseModel] | None

MAX_PROBLEMS = 3
"""Fields that an error names."""


def declared(flow_class: type, name: str) -> Model:
    """The model that the class has under this name, or None. Raises FlowClassError for a class that is no pydantic
    model: it would be taken for a promise."""
    found = getattr(flow_class, name, None)
    if not isinstance(found, type):
        return None
    from pydantic import BaseModel  # Costs as much as all of coflows, and most flows need none.

    if issubclass(found, BaseModel):
        return found
    raise FlowClassError(
        f"{class_label(flow_class)}.{name} is no pydantic model.",
        hint=f"Derive it from pydantic.BaseModel, or give the class another name than {name}.",
    )


def json_schema(flow_class: type, name: str) -> dict[str, Any] | None:
    """What it says as JSON Schema; None when there is none. Raises FlowClassError."""
    model = declared(flow_class, name)
    if model is None:
        return None
    from pydantic import PydanticUserError

    try:
        return model.model_json_schema(mode="validation" if name == "Input" else "serialization")
    except PydanticUserError as error:
        raise FlowClassError(
            f"{class_label(flow_class)}.{name} cannot be written as JSON Schema: {error}.",
            hint="Give its fields plain types.",
        ) from error


def check_input(model: type[BaseModel], data: Mapping[str, Any], endpoint: str) -> dict[str, Any]:
    """The data as the model reads it, defaults filled in. Raises InputInvalidError."""
    return _checked(model, data, InputInvalidError, f"The message does not fit what {endpoint} takes")


def check_output(flow_class: type, data: dict[str, Any]) -> dict[str, Any]:
    """A reply as the class's model reads it; as it is when there is none. Raises OutputInvalidError."""
    model = declared(flow_class, "Output")
    if model is None:
        return data
    text = f"The reply of {class_label(flow_class)} does not fit its Output"
    return _checked(model, data, OutputInvalidError, text)


def config_fields(flow_class: type) -> list[str] | None:
    """The keys of the config that the class's model has; None when there is none."""
    model = declared(flow_class, "Config")
    return None if model is None else [field.alias or name for name, field in model.model_fields.items()]


def check_config_model(flow_class: type, config: dict[str, Any]) -> dict[str, Any]:
    """The config with the fields of the class's model as that reads them, defaults filled in; as it is when there is
    none. Raises FlowConfigError."""
    model, keys = declared(flow_class, "Config"), config_fields(flow_class)
    if model is None or keys is None:
        return config
    from pydantic import ValidationError

    try:
        read = model.model_validate({key: config[key] for key in keys if key in config})
    except ValidationError as error:
        raise FlowConfigError(
            f"The config of {class_label(flow_class)} does not fit its Config: {_problems(error)}."
        ) from None
    return {**config, **read.model_dump(mode="json", by_alias=True)}


def _checked(model: type[BaseModel], data: Mapping[str, Any], kind: type[CoflowsError], text: str) -> dict[str, Any]:
    from pydantic import ValidationError

    try:
        return model.model_validate(data).model_dump()
    except ValidationError as error:
        raise kind(f"{text}: {_problems(error)}.", hint="Compare with the JSON Schema that it publishes.") from None


def _problems(error: ValidationError) -> str:
    """The first fields that are wrong, without their values: those may be secret, long, or meant for a terminal."""
    from coflows.model.closed import problems

    found = problems(error)
    shown = [f"{place or 'the whole'}: {what}" for place, what, _ in found[:MAX_PROBLEMS]]
    more = f"; and {len(found) - MAX_PROBLEMS} more" if len(found) > MAX_PROBLEMS else ""
    return "; ".join(shown) + more
