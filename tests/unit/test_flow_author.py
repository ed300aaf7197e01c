"""What a flow does for its author: state, subflows, secrets, replies; with a runtime and without."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coflows import AtomicFlow, CompositeFlow, FlowMessage
from coflows.errors import FlowConfigError, FlowError, SerializationError
from coflows.flows.private import Secrets, strip_private
from coflows.flows.runtime import FlowRuntime, Subflow
from coflows.model.messages import ReplyAddress, ReplyMode, new_message_id

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy."""

PRIVATE = {"api_key", "token"}
USER = "a" * 52


class Notebook(AtomicFlow):
    default_config: ClassVar[dict[str, Any]] = {
        "name": "Notebook",
        "description": "Keeps notes.",
        "private_keys": ["api_key"],
        "api_key": "geheim",
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first_page = 7

    def set_up_flow_state(self) -> None:
        super().set_up_flow_state()
        self.flow_state["page"] = self.first_page

    async def run(self, input_message: FlowMessage) -> dict[str, Any]:
        self.flow_state["page"] += 1
        return {"page": self.flow_state["page"]}


class Asking(CompositeFlow):
    default_config: ClassVar[dict[str, Any]] = {
        "name": "Asking",
        "description": "Asks another.",
        "subflows_config": {
            "left": {"user_id": "local", "flow_endpoint": "left"},
            "right": {"user_id": "local", "flow_endpoint": "right"},
        },
    }

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return self.subflows["left"].ask(input_message.data)


class OneTurn:
    """A runtime as a flow author would write one for a test."""

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        self.flow_id = "12345678-1234-1234-1234-123456789012"
        self.endpoint = "notebook"
        self.user_id = USER
        self.secrets: Mapping[str, str] = secrets or {}
        self.idempotency_key = "the same for this turn"
        self.sent: list[FlowMessage] = []
        self.asked: list[str] = []

    def new_message_id(self, data: dict[str, Any]) -> str:
        return f"{len(self.sent):032x}"

    def send(self, message: FlowMessage) -> None:
        self.sent.append(message)

    def subflow(self, key: str) -> Subflow:
        self.asked.append(key)
        raise FlowError("asked for it")


def asked_by_somebody() -> FlowMessage:
    message = FlowMessage({"n": 1}, sender=USER)
    message.reply_to = ReplyAddress(ReplyMode.STORAGE, USER, message.message_id, session=new_message_id())
    return message


# -- state -----------------------------------------------------------------------------------------------------------


def test_the_state_is_set_up_before_it_is_first_used_and_after_the_constructor() -> None:
    flow = Notebook.instantiate_from_default_config()
    assert asyncio.run(flow.run(FlowMessage({}))) == {"page": 8}
    assert flow.get_flow_state() == {"page": 8}
    flow.set_up_flow_state()
    assert flow.flow_state == {"page": 7}


def test_a_stored_state_goes_on() -> None:
    flow = Notebook.instantiate_from_default_config()
    flow.set_flow_state({"page": 70})
    assert asyncio.run(flow.run(FlowMessage({}))) == {"page": 71}


def test_a_state_may_hold_messages_and_leaves_private_keys_behind() -> None:
    flow = Notebook.instantiate_from_default_config()
    message = FlowMessage({"api_key": "geheim", "n": 1})
    flow.flow_state = {"first": message, "backend": [{"api_key": "geheim"}], "api_key": "geheim"}
    stored = flow.get_flow_state()
    assert stored["first"].data == {"n": 1} and stored["first"].message_id == message.message_id
    assert stored["backend"] == [{}] and "api_key" not in stored
    assert flow.flow_state["api_key"] == message.data["api_key"] == "geheim"


# -- replies ---------------------------------------------------------------------------------------------------------


def test_a_reply_carries_address_and_id_of_what_it_answers() -> None:
    flow, runtime, message = Notebook.instantiate_from_default_config(), OneTurn(), asked_by_somebody()
    flow.bind(runtime)
    flow.send_message(flow.package_output_message(message, {"page": 1, "api_key": "geheim"}))
    (reply,) = runtime.sent
    assert reply.data == {"page": 1} and reply.sender is None and reply.src_flow_id == runtime.flow_id
    assert (reply.input_message_id, reply.reply_to) == (message.message_id, message.reply_to)
    assert reply.message_id == f"{0:032x}"


def test_a_message_can_be_passed_on_as_a_reply() -> None:
    flow = Notebook.instantiate_from_default_config()
    message, received = asked_by_somebody(), FlowMessage({"page": 3}, input_message_id=new_message_id(), sender=USER)
    reply = flow.package_output_message(message, received)
    assert reply.data == {"page": 3} and reply.input_message_id == message.message_id


@pytest.mark.parametrize("message", [FlowMessage({}), {"a": 1}, FlowMessage({}, input_message_id="x", sender=USER)])
def test_only_a_reply_of_its_own_can_be_sent(message: Any) -> None:
    flow, runtime = Notebook.instantiate_from_default_config(), OneTurn()
    flow.bind(runtime)
    with pytest.raises(FlowError, match="packaged"):
        flow.send_message(message)
    assert runtime.sent == []


def test_a_reply_that_is_no_dict() -> None:
    with pytest.raises(FlowError, match="Notebook must be a dict or a FlowMessage, not int"):
        Notebook.instantiate_from_default_config().package_output_message(FlowMessage({}), 3)  # type: ignore[arg-type]


# -- subflows, secrets, identity -------------------------------------------------------------------------------------


def test_subflows_are_asked_for_when_used() -> None:
    flow, runtime = Asking.instantiate_from_default_config(), OneTurn()
    assert list(flow.subflows) == ["left", "right"] and len(flow.subflows) == 2 and "left" in flow.subflows
    with pytest.raises(FlowError, match="not running in a worker"):
        flow.run(FlowMessage({}))
    flow.bind(runtime)
    assert runtime.asked == []
    with pytest.raises(FlowError, match="asked for it"):
        flow.run(FlowMessage({}))
    assert runtime.asked == ["left"]
    with pytest.raises(FlowConfigError, match=r"no subflow 'middle'.*left, right"):
        _ = flow.subflows["middle"]
    assert flow.subflows.get("middle") is None
    assert len(Notebook.instantiate_from_default_config().subflows) == 0


def test_secrets_are_read_but_neither_shown_nor_serialised() -> None:
    flow = Notebook.instantiate_from_default_config()
    assert len(flow.secrets) == 0
    flow.bind(OneTurn({"TOKEN": "geheim"}))
    assert flow.secrets["TOKEN"] == "geheim" and dict(flow.secrets) == {"TOKEN": "geheim"}
    assert "geheim" not in f"{flow.secrets!r} {flow.secrets} {flow!r}" and "TOKEN" in repr(flow.secrets)
    assert flow.secrets.get("OTHER") is None
    with pytest.raises(KeyError, match=r"'OTHER'.*dispatch worker.*TOKEN"):
        _ = flow.secrets["OTHER"]
    for serialise in (pickle.dumps, copy.deepcopy):
        with pytest.raises(SerializationError):
            serialise(Secrets({"TOKEN": "geheim"}))


def test_a_pickled_flow_has_neither_private_keys_nor_secrets() -> None:
    flow = Notebook.instantiate_from_default_config()
    flow.bind(OneTurn({"TOKEN": "verborgen"}))
    flow.flow_state["api_key"] = "geheim"
    pickled = pickle.dumps(flow)
    assert b"geheim" not in pickled and b"verborgen" not in pickled
    again = pickle.loads(pickled)
    assert again.flow_state == {"page": 7} and again.name == "Notebook" and len(again.secrets) == 0


def test_a_flow_shows_its_class_endpoint_and_id() -> None:
    flow, runtime = Notebook.instantiate_from_default_config(), OneTurn()
    assert repr(flow) == "<Notebook not in a worker>"
    with pytest.raises(FlowError, match="not running in a worker"):
        flow.get_instance_id()
    flow.bind(runtime)
    assert repr(flow) == f"<Notebook notebook {runtime.flow_id}>"
    assert flow.get_instance_id() == runtime.flow_id and flow.idempotency_key == runtime.idempotency_key
    assert (flow.name, flow.description) == ("Notebook", "Keeps notes.")


def test_what_an_author_writes_is_a_runtime() -> None:
    runtime: FlowRuntime = OneTurn()
    assert runtime.user_id == USER


# -- private keys ----------------------------------------------------------------------------------------------------


class Point(NamedTuple):
    x: Any
    y: Any


VALUES = st.recursive(
    st.integers() | st.sampled_from(["api_key", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["api_key", "token", "x", "y"]), inner, max_size=3)
        | st.tuples(inner, inner)
        | st.builds(Point, inner, inner)
        | st.builds(OrderedDict, st.dictionaries(st.sampled_from(["api_key", "x"]), inner, max_size=2))
        | st.builds(FlowMessage, st.dictionaries(st.sampled_from(["token", "x"]), inner, max_size=2))
    ),
    max_leaves=20,
)


def keys_in(value: Any) -> set[str]:
    if isinstance(value, FlowMessage):
        value = value.data
    if isinstance(value, dict):
        return set(value).union(*map(keys_in, value.values()))
    return set().union(*map(keys_in, value)) if isinstance(value, list | tuple) else set()


@UNTIMED
@given(VALUES)
def test_stripping_leaves_no_private_key_and_its_input_alone(value: Any) -> None:
    before = copy.deepcopy(value)
    stripped = strip_private(value, PRIVATE)
    assert not keys_in(stripped) & PRIVATE
    assert keys_in(stripped) <= keys_in(value)
    assert type(stripped) is type(value) and value == before
    assert strip_private(stripped, PRIVATE) == stripped
    if not keys_in(value) & PRIVATE:
        assert stripped == value


def test_stripping_keeps_what_is_shared_shared() -> None:
    shared = {"token": 1, "x": 2}
    loop: dict[str, Any] = {"one": shared, "two": shared}
    loop["self"] = loop
    stripped = strip_private(loop, PRIVATE)
    assert stripped["one"] is stripped["two"] and stripped["one"] == {"x": 2} and stripped["self"] is stripped
    assert strip_private(loop, ()) is loop
