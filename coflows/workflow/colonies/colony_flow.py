"""A colony's one instance: who may do what, which executors and which runs there are. Each run is an instance too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from coflows.codec.wire import decode
from coflows.errors import AccessDeniedError, SerializationError, WorkflowError
from coflows.flows.runtime import FlowRuntime
from coflows.model.address import InstanceAddress
from coflows.model.layout import record_key, records_prefix
from coflows.model.messages import FlowMessage
from coflows.model.names import check_flow_id, check_user_id
from coflows.store.base import Store
from coflows.workflow.colonies.places import GraphId, check_colony
from coflows.workflow.colonies.registry import TIME_TO_LIVE, Registry, room_of
from coflows.workflow.colonies.submission_flow import SubmissionFlow
from coflows.workflow.graph.states import GRAPH_ENDED, GraphState

SWEEP = 5.0
PAGE = 100
"""How many runs are removed in one turn."""
FORGET = 1000
"""Messages that an executor is told to forget at once."""
MAX_RECORD = 2**26
MAX_CONCURRENCY = 1024
"""For how many steps at once an executor may say that it has room."""


class ColonyFlow(SubmissionFlow):
    """Answers ``{"ask": ...}``; see ``Colonies`` for what may be asked."""

    default_config: ClassVar[dict[str, Any]] = {
        "name": "Colony",
        "description": "Takes workflows, and knows who executes them.",
        "colony": "",
    }
    open_to_all = True

    def run(self, input_message: FlowMessage) -> dict[str, Any] | None:
        """Answer one question."""
        asks: dict[object, Callable[[FlowMessage], dict[str, Any] | None]] = {
            "submit": self._submit,
            "part": self._part,
            "begun": self._drop,
            "drop": self._drop,
            "register": self._register,
            "leave": self._leave,
            "list": self._list,
            "allow": self._allow,
            "remove": self._remove,
            "removeall": self._remove_all,
            "wanted": self._wanted,
            "ended": self._ended,
            "sweep": self._sweep,
        }
        ask = asks.get(input_message.data.get("ask"))
        if ask is None:
            raise SerializationError("A colony is asked to submit, register, list, remove, ...")
        return ask(input_message)

    # -- asked by users ----------------------------------------------------------------------------------------

    def _list(self, message: FlowMessage) -> dict[str, Any]:
        self._check(message, submit=True, execute=True)
        states, limit = message.data.get("states"), message.data.get("limit") or PAGE
        found = []
        runs = sorted(self.records.scan("g:").items(), key=lambda item: -item[1][1])
        heads = self._store.get_many([record_key(name[2:], "h") for name, _ in runs])
        for name, (initiator, at, *_) in runs:
            entry = heads.get(record_key(name[2:], "h"))
            head = None if entry is None else decode(entry.value, max_bytes=MAX_RECORD)
            state, started, ended = (head[0], head[-2], head[-1]) if head else (GraphState.WAITING, 0.0, 0.0)
            if states is None or state in states:
                found.append(
                    {
                        "processgraphid": str(GraphId(self._colony, name[2:])),
                        "state": state,
                        "initiator": initiator,
                        "submitted_at": at,
                        "started_at": started,
                        "ended_at": ended,
                    }
                )
            if len(found) >= limit:
                break
        self._turn.leave_no_record()
        return {"graphs": found}

    def _allow(self, message: FlowMessage) -> dict[str, Any]:
        self._check(message)
        user = check_user_id(message.data.get("user"))
        rights = [message.data.get("submit") is True, message.data.get("execute") is True]
        self.records[f"r:{user}"] = rights if any(rights) else None
        self._turn.leave_no_record()
        return {}

    def _remove(self, message: FlowMessage) -> dict[str, Any]:
        run = check_flow_id(message.data.get("run"))
        self._turn.leave_no_record()
        found = self.records.get(f"g:{run}")
        if found is None:
            self._check(message, submit=True)
            return {"removed": False}
        if message.sender not in (self._turn.user_id, found[0]):
            raise AccessDeniedError("Only the colony's owner and who submitted a workflow may remove it.")
        why = self._why_not(run)
        if why:
            raise WorkflowError(f"{GraphId(self._colony, run)} is not removed: {why}.", hint="Cancel it first.")
        self._forget(run)
        return {"removed": True}

    def _remove_all(self, message: FlowMessage) -> dict[str, Any]:
        self._check(message, submit=True)
        self._turn.leave_no_record()
        removed: list[str] = []
        kept: list[list[str]] = []
        for name, (initiator, *_) in self.records.scan("g:").items():
            run = name[2:]
            graph = str(GraphId(self._colony, run))
            if message.sender not in (self._turn.user_id, initiator):
                why = "somebody else submitted it"
            else:
                why = self._why_not(run)
            if why:
                kept.append([graph, why])
            elif len(removed) < PAGE:
                self._forget(run)
                removed.append(graph)
            else:
                return {"removed": removed, "kept": kept, "more": True}
        return {"removed": removed, "kept": kept, "more": False}

    # -- asked by executors ------------------------------------------------------------------------------------

    def _register(self, message: FlowMessage) -> dict[str, Any]:
        self._check(message, execute=True)
        self._turn.leave_no_record()
        kind, executor = check_colony(message.data.get("executortype"), "Executor type"), message.data.get("executor")
        concurrency = message.data.get("concurrency")
        address = InstanceAddress.from_dict(_mapping(message.data.get("address")))
        control = InstanceAddress.from_dict(_mapping(message.data.get("control")))
        if not address.user_id == control.user_id == message.sender:
            raise AccessDeniedError("An executor registers itself, and nobody else's.")
        self.records[f"e:{kind}:{message.sender}:{check_colony(executor, 'Executor id')}"] = [
            address.to_dict(),
            control.to_dict(),
            time.time(),
            min(concurrency, MAX_CONCURRENCY) if isinstance(concurrency, int) and concurrency > 0 else 1,
        ]
        room = self._room(kind)
        for name, seen in self.records.scan(f"w:{kind}:").items():
            if room > seen:
                del self.records[name]
                self._tell_run(name.split(":")[2], {"ask": "arrived", "executortype": kind})
        if not self.flow_state.get("sweeping"):
            self.flow_state["sweeping"] = self.send_later(SWEEP, {"ask": "sweep"})
        return {}

    def _leave(self, message: FlowMessage) -> None:
        kind, executor = message.data.get("executortype"), message.data.get("executor")
        self._turn.leave_no_record()
        name = f"e:{kind}:{message.sender}:{executor}"
        if self.records.get(name) is not None:
            del self.records[name]
            self._look_for_last(str(kind), str(message.sender))

    # -- asked by itself and its runs --------------------------------------------------------------------------

    def _wanted(self, message: FlowMessage) -> None:
        """A run has more for the executors of a type than those it saw have room for."""
        self._check(message)
        self._turn.leave_no_record()
        kind, run, seen = message.data["executortype"], message.data["run"], message.data.get("seen", 0)
        if self._room(kind) > seen:
            self._tell_run(run, {"ask": "arrived", "executortype": kind})
        elif self.records.get(f"g:{run}") is not None:
            self.records[f"w:{kind}:{run}"] = seen

    def _room(self, kind: str) -> int:
        """For how many steps at once there are executors of a type."""
        found = self.records.scan(f"e:{kind}:").values()
        return sum(room_of(rest) for _, _, seen, *rest in found if time.time() - seen <= TIME_TO_LIVE)

    def _ended(self, message: FlowMessage) -> None:
        self._check(message)
        self._turn.leave_no_record()
        del self.records[f"a:{message.data['run']}"]

    def _sweep(self, message: FlowMessage) -> None:
        """Executors that were not heard of are gone."""
        self._check(message)
        self._turn.leave_no_record()
        executors = self.records.scan("e:")
        for name, (_, _, seen, *_) in executors.items():
            if time.time() - seen > TIME_TO_LIVE:
                _, kind, user, _ = name.split(":")
                del self.records[name]
                self._look_for_last(kind, user)
        self.flow_state["sweeping"] = self.send_later(SWEEP, {"ask": "sweep"}) if executors else None

    def _look_for_last(self, kind: str, user: str) -> None:
        if not self.records.scan(f"e:{kind}:{user}:"):
            for name in self.records.scan("a:"):
                self._tell_run(name[2:], {"ask": "gone", "executortype": kind, "user": user})

    # ----------------------------------------------------------------------------------------------------------

    @property
    def _store(self) -> Store:
        store: Store = self._turn.resources["client"].store
        return store

    def _head(self, run: str) -> list[Any] | None:
        entry = self._store.get(record_key(run, "h"))
        head: list[Any] | None = None if entry is None else decode(entry.value, max_bytes=MAX_RECORD)
        return head

    def _why_not(self, run: str) -> str:
        head = self._head(run)
        if head is None:
            return "it is about to begin"
        return "" if head[0] in GRAPH_ENDED else "it is not over"

    def _forget(self, run: str) -> None:
        """Delete a run, and what its executors have on record about its steps."""
        messages: dict[InstanceAddress, list[str]] = {}
        for entry in self._store.scan(f"{records_prefix(run)}a:"):
            _, address, message_id = decode(entry.value, max_bytes=MAX_RECORD)
            messages.setdefault(InstanceAddress.from_dict(address), []).append(message_id)
        for there, ids in messages.items():
            for first in range(0, len(ids), FORGET):
                self._tell(there, {"ask": "forget", "messages": ids[first : first + FORGET]})
        self._turn.delete_instance(run)
        initiator, _, *alias = self.records.get(f"g:{run}")
        runs = self.records.get(f"n:{initiator}", 0)
        if runs:
            self.records[f"n:{initiator}"] = runs - 1 or None
        waits = [name for name in self.records.scan("w:") if name.endswith(f":{run}")]
        for name in (f"g:{run}", f"a:{run}", *waits, *filter(None, alias)):
            del self.records[name]


def registry_of(turn: FlowRuntime, flow_id: str) -> Registry:
    """What a colony has on record, for a run of it."""
    return Registry(turn.resources["client"].store, flow_id)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
