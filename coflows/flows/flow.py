"""Flow: what an author writes, one `run` for each message."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping
from typing import Any, ClassVar, Self

from coflows.errors import FlowConfigError, FlowError
from coflows.flows.class_file import class_label, config_place
from coflows.flows.config import load_class_config, merge_config, validate_config
from coflows.flows.models import check_config_model, check_output
from coflows.flows.overrides import check_overrides
from coflows.flows.private import Secrets, strip_private
from coflows.flows.records import Records
from coflows.flows.runtime import FlowRuntime
from coflows.flows.subflows import Subflows
from coflows.model.messages import FlowMessage, new_message_id

RunResult = dict[str, Any] | Awaitable[dict[str, Any] | None] | None


class Flow(ABC):
    """A flow: ``run`` is called with one message at a time, and what it returns is the reply.

    Subclasses are written ``def __init__(self, **kwargs): super().__init__(**kwargs)``. Defaults for
    ``flow_config`` stand in ``ClassName.yaml`` beside the class, or in the class attribute
    ``default_config``; both are merged along the class hierarchy, the YAML last. What is under a key of
    ``private_keys`` in the config is never stored, sent as a reply or shown. A pydantic model ``Input``
    within the class is what messages have to fit, ``Output`` what replies have to, ``Config`` what the
    config has to. Without a worker (a unit test) a flow can be made and run; it cannot send. Not
    thread-safe: the worker gives an instance one message at a time.
    """

    default_config: ClassVar[dict[str, Any]] = {"private_keys": []}
    open_to_all: ClassVar[bool] = False
    """Whether any user may send to an instance who knows its address, and not only who fetched it. ``run`` then looks
    at ``input_message.sender`` itself."""
    own_chain: ClassVar[bool] = False
    """Whether what its turns send begins a chain of calls of its own, with its owner as the root: for flows that go on
    and on by messages to each other. They see to it themselves that it ends."""
    takes_failures: ClassVar[bool] = False
    """Whether ``run`` is told, in ``input_message.failure``, when what it asked for with ``get_reply`` failed. Else
    that fails whoever waits for this flow."""

    def __init__(self, *, flow_config: Mapping[str, Any]) -> None:
        self.check_config(flow_config)
        self.flow_config: dict[str, Any] = copy.deepcopy(dict(flow_config))
        self._flow_state: dict[str, Any] | None = None
        self._runtime: FlowRuntime | None = None
        self._records = Records()

    # -- config ------------------------------------------------------------------------------------------

    @classmethod
    def get_config(cls, /, **overrides: Any) -> dict[str, Any]:
        """The config of the class with ``overrides`` merged into it, checked; a new dict each time. Reads the
        YAML files of the class hierarchy; raises FlowConfigError."""
        check_overrides(overrides)
        config = check_config_model(cls, merge_config(load_class_config(cls), overrides))
        cls.check_config(config)
        return config

    @classmethod
    def instantiate_from_default_config(cls, /, **overrides: Any) -> Self:
        """A flow of this class with its default config and ``overrides``; raises FlowConfigError."""
        return cls(flow_config=cls.get_config(**overrides))

    @classmethod
    def check_config(cls, config: Mapping[str, Any]) -> None:
        """Raise FlowConfigError for a config that this class cannot work with. Extend it to check own
        keys."""
        validate_config(cls, config)

    @property
    def name(self) -> str:
        """The ``name`` in the config."""
        return str(self.flow_config["name"])

    @property
    def description(self) -> str:
        """The ``description`` in the config."""
        return str(self.flow_config["description"])

    # -- the author's part -------------------------------------------------------------------------------

    @abstractmethod
    def run(self, input_message: FlowMessage) -> RunResult:
        """Work one message off; ``def`` or ``async def``. A returned dict is the reply, None sends none
        by itself.

        What it raises fails the caller's call; then neither state nor messages of this turn are kept.
        """

    def set_up_flow_state(self) -> None:
        """Put the state before the first message into ``self.flow_state``: here ``{}``."""
        self.flow_state = {}

    @property
    def flow_state(self) -> dict[str, Any]:
        """What the instance remembers from one message to the next; stored when the turn is done."""
        if self._flow_state is None:
            self._flow_state = {}
            self.set_up_flow_state()
        return self._flow_state

    @flow_state.setter
    def flow_state(self, state: dict[str, Any]) -> None:
        self._flow_state = state

    @property
    def subflows(self) -> Subflows:
        """The subflows of the config by key; an unknown key raises FlowConfigError."""
        return Subflows(self.flow_config.get("subflows_config") or {}, self._runtime, class_label(type(self)))

    @property
    def secrets(self) -> Secrets:
        """The secrets that the worker was given; empty without a worker."""
        return Secrets(self._runtime.secrets if self._runtime else {})

    @property
    def idempotency_key(self) -> str:
        """The same each time this turn is run: for services outside, which a turn may call more than once.
        Without a worker a new one each time."""
        return self._runtime.idempotency_key if self._runtime else new_message_id()

    def get_instance_id(self) -> str:
        """The instance's id; raises FlowError without a worker."""
        return self._running("an instance id").flow_id

    def package_output_message(self, input_message: FlowMessage, response: dict[str, Any] | FlowMessage) -> FlowMessage:
        """A reply to ``input_message`` (of this turn, or kept in the state from an earlier one) with the
        data of ``response``, private keys left out. Raises OutputInvalidError when it does not fit ``Output``."""
        data = response.data if isinstance(response, FlowMessage) else response
        if not isinstance(data, dict):
            raise FlowError(
                f"A reply of {class_label(type(self))} must be a dict or a FlowMessage, not {type(data).__name__}.",
                hint='Return for instance {"answer": value}, or None to send no reply.',
            )
        data = strip_private(check_output(type(self), data), self._private_keys)
        return FlowMessage(
            data=data,
            message_id=self._runtime.new_message_id(data) if self._runtime else new_message_id(),
            input_message_id=input_message.message_id,
            src_flow_id=self._runtime.flow_id if self._runtime else None,
            reply_to=input_message.reply_to,
        )

    def send_message(self, message: FlowMessage) -> None:
        """Send what ``package_output_message`` made, when the turn is committed; nothing is sent when
        nobody waits for a reply. Raises FlowError without a worker."""
        if not isinstance(message, FlowMessage) or message.input_message_id is None or message.sender is not None:
            raise FlowError(
                f"{class_label(type(self))} can only send a reply that it packaged.",
                hint="Use self.send_message(self.package_output_message(input_message, response)).",
            )
        self._running("somewhere to send to").send(message)

    def send_later(self, seconds: float, data: dict[str, Any]) -> str:
        """Send this instance a message of its own once so many seconds are over; gives its ``message_id``, by which
        ``cancel_later`` takes it back. The timer is set with the turn's commit, survives every process, is fired by
        whichever worker is there, and its message is worked off once. Raises FlowError without a worker."""
        return self._running("a clock").send_later(seconds, data)

    def cancel_later(self, timer: str) -> None:
        """Take back what ``send_later`` gave: once this turn is committed its message is not worked off any more.
        Nothing happens when it was."""
        self._running("a clock").cancel_later(timer)

    @property
    def records(self) -> Records:
        """Values that the instance keeps besides its state, each written by itself: for what grows large."""
        return self._records

    # -- the worker's part -------------------------------------------------------------------------------

    def bind(self, runtime: FlowRuntime) -> None:
        """Run the next message within ``runtime``."""
        self._runtime = runtime
        self._records.bind(runtime)

    def get_flow_state(self) -> dict[str, Any]:
        """The state as it may be stored: without private keys."""
        return strip_private(self.flow_state, self._private_keys)

    def set_flow_state(self, state: dict[str, Any]) -> None:
        """Go on from a stored state."""
        self.flow_state = state

    # ----------------------------------------------------------------------------------------------------

    @property
    def _private_keys(self) -> list[str]:
        return self.flow_config.get("private_keys") or []

    def _running(self, what: str) -> FlowRuntime:
        if self._runtime is None:
            raise FlowError(
                f"{class_label(type(self))} is not running in a worker and has no {what}.",
                hint="Serve it and send it a message; in a unit test return a dict, or bind() a runtime of your own.",
            )
        return self._runtime

    def __getstate__(self) -> dict[str, Any]:
        return strip_private({**self.__dict__, "_runtime": None, "_records": Records()}, self._private_keys)

    def __repr__(self) -> str:
        where = f"{self._runtime.endpoint} {self._runtime.flow_id}" if self._runtime else "not in a worker"
        return f"<{type(self).__name__} {where}>"


class AtomicFlow(Flow):
    """A flow without subflows."""

    @classmethod
    def check_config(cls, config: Mapping[str, Any]) -> None:
        """Raise FlowConfigError for a config that has subflows, besides what Flow checks."""
        super().check_config(config)
        if config.get("subflows_config"):
            raise FlowConfigError(
                f"{class_label(cls)} is an AtomicFlow and has subflows: {', '.join(config['subflows_config'])}.",
                hint="Derive it from CompositeFlow.",
            )


class CompositeFlow(Flow):
    """A flow that calls other flows: ``self.subflows[key]``, as ``subflows_config`` in its config says."""

    @classmethod
    def check_config(cls, config: Mapping[str, Any]) -> None:
        """Raise FlowConfigError for a config without subflows, besides what Flow checks."""
        super().check_config(config)
        if not config.get("subflows_config"):
            raise FlowConfigError(
                f"The config of {class_label(cls)} has no 'subflows_config'.",
                hint=f"Add it to {config_place(cls)}: a key for each subflow, and under it user_id and flow_endpoint.",
            )


def is_complete(cls: type[Flow]) -> bool:
    """Whether flows of this class can be made: it has a ``run``."""
    return not inspect.isabstract(cls)
