"""Messages and replies that do not fit what a flow declares: refused before its code runs, and before they leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, Field

from coflows import AtomicFlow, Client
from coflows.errors import FlowClassError, InputInvalidError, OutputInvalidError, RemoteFlowError
from coflows.registry.sources import ServedFlows
from coflows.serving import get_flow_instance, serve_flow
from tests.security.operator import TIMEOUT
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

Users = Callable[..., list[Client]]


class Strict(AtomicFlow):
    """Takes a number in words of its own, and promises its double."""

    class Input(BaseModel):
        model_config = ConfigDict(extra="forbid")
        number: int = Field(ge=0, le=1000)
        note: str = "none"

    class Output(BaseModel):
        double: int

    default_config = {"name": "Strict", "description": "Doubles."}
    ran: ClassVar[list[dict[str, Any]]] = []

    def run(self, input_message: Any) -> dict[str, Any]:
        self.ran.append(input_message.data)
        self.flow_state["ran"] = self.flow_state.get("ran", 0) + 1
        number = input_message.data["number"]
        return {"double": "no number"} if number == 13 else {"double": 2 * number, "extra": "dropped"}


class StrictInProcess(Strict):
    default_config = {"name": "Strict", "description": "Doubles.", "runs_in": "process"}


class Promises(AtomicFlow):
    class Output:
        """No model."""

    default_config = {"name": "Promises", "description": "Promises nothing."}

    def run(self, input_message: Any) -> None: ...


@pytest.fixture(params=["Strict", "StrictInProcess"])
def flow(request: pytest.FixtureRequest, users: Users) -> Any:
    owner, client = users(2)
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{__name__}.{request.param}", "strict")
    Strict.ran.clear()
    return get_flow_instance(client, "strict", owner.user_id)


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "number"),
    ({"number": -1}, "number"),
    ({"number": 1001}, "number"),
    ({"number": "many"}, "number"),
    ({"number": [1]}, "number"),
    ({"number": 1, "note": b"\xff"}, "note"),
    ({"number": 1, "more\x1b[2J\n": 1}, "more"),
]


def test_a_message_that_does_not_fit(flow: Any) -> None:
    for data, field in BAD:
        with pytest.raises(InputInvalidError, match=field) as caught:
            flow.ask(data, TIMEOUT)
        assert caught.value.code == "input_invalid" and "\x1b" not in str(caught.value)
    assert Strict.ran == []
    assert flow.ask({"number": "21"}, TIMEOUT) == {"double": 42}, "read as the model says, and cut to what is promised"
    if Strict.ran:  # Not in a process.
        assert Strict.ran == [{"number": 21, "note": "none"}]


def test_a_reply_that_does_not_fit(flow: Any) -> None:
    with pytest.raises(RemoteFlowError, match="double") as caught:
        flow.ask({"number": 13}, TIMEOUT)
    assert caught.value.remote_code == OutputInvalidError.code and "no number" not in str(caught.value)
    assert flow.ask({"number": 1}, TIMEOUT) == {"double": 2}


def test_what_it_declares_is_published(users: Users) -> None:
    (owner,) = users(1)
    serve_flow(owner, f"{__name__}.Strict", "strict")
    (entry,) = ServedFlows(owner).entries()
    assert entry.input_schema["properties"]["number"]["maximum"] == 1000
    assert entry.output_schema["required"] == ["double"]


def test_a_promise_that_is_no_model(users: Users) -> None:
    """Rather than not being kept."""
    (owner,) = users(1)
    with pytest.raises(FlowClassError, match="no pydantic model"):
        serve_flow(owner, f"{__name__}.Promises", "promises")


def test_without_a_worker_replies_are_checked_too() -> None:
    with pytest.raises(OutputInvalidError):
        strict = Strict.instantiate_from_default_config()
        strict.package_output_message(type("M", (), {"message_id": "0" * 32, "reply_to": None})(), {"double": None})
