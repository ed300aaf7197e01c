"""What a user does with colonies: makes them, opens them to others, submits workflows, watches and cancels them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from coflows.client import Client
from coflows.dispatch.worker import DispatchWorker
from coflows.endpoints import endpoint_names, ensure_point, find_endpoint
from coflows.errors import (
    EndpointNotFoundError,
    WorkflowError,
)
from coflows.model.messages import new_message_id
from coflows.model.names import LOCAL, check_user_id
from coflows.mounting import Mounter
from coflows.resolution import MountRequest
from coflows.serving import serve_flow
from coflows.workflow.colonies.asking import TIMEOUT, Asking
from coflows.workflow.colonies.following import Following
from coflows.workflow.colonies.function_spec import FunctionSpec, Workflow, parts_of
from coflows.workflow.colonies.places import (
    PARTITIONS,
    GraphId,
    ProcessId,
    check_colony,
    colony_endpoint,
    colony_request,
    runs_endpoint,
)
from coflows.workflow.colonies.process_graph import Process, ProcessGraph, restored
from coflows.workflow.graph import Graph, step
from coflows.workflow.graph.events import Submitted
from coflows.workflow.graph.states import GraphState, ProcessState
from coflows.workflow.pictures.picture import Picture, PictureEdge, PictureNode

ALLOWANCE = 4096
"""Bytes of a message that are not its specs."""
OUTPUTS = 1000
PACKAGE = "coflows.workflow.colonies"


class Colonies:
    """Colonies of ``owner`` (this user's own when None), as this user may use them. Thread-safe.

    Whoever asks gets AccessDeniedError for what he has no right to, EndpointNotFoundError or InstanceNotFoundError for
    what is not there, WorkflowInvalidError for what makes no graph, CallTimeoutError when no worker of the owner's
    coordinates the colony. A client of the owner coordinates his colonies himself, in threads of this process that end
    with the client, unless ``coordinate`` is False; other processes may do so too, and go on when this one is gone.
    """

    def __init__(self, cl: Client, owner: str | None = None, *, coordinate: bool = True) -> None:
        self.owner = cl.user_id if owner in (None, LOCAL) else check_user_id(owner)
        self._cl = cl
        self._coordinates = coordinate and self.owner == cl.user_id
        self._asking = Asking(cl, self.owner, self._before)

    # -- colonies ----------------------------------------------------------------------------------------------

    def add_colony(self, colonyname: str) -> bool:
        """Make a colony of this user's; False when it is there."""
        self._only_owner("makes")
        endpoint, runs = colony_endpoint(colonyname), runs_endpoint(colonyname)
        ensure_point(self._cl, endpoint, PARTITIONS)
        serve_flow(self._cl, f"{PACKAGE}.run_flow.RunFlow", runs, endpoint)
        new = serve_flow(self._cl, f"{PACKAGE}.colony_flow.ColonyFlow", endpoint, endpoint, singleton=True)
        request_id = colony_request(self.owner, colonyname)
        request = MountRequest(endpoint=endpoint, client=LOCAL, request_id=request_id, deadline=time.time() + TIMEOUT)
        Mounter(self._cl).mount([request])
        return new

    def allow(self, colonyname: str, user_id: str, submit: bool = False, execute: bool = False) -> None:
        """Let another user submit workflows, or run their steps; with neither, let him do neither any more."""
        self._only_owner("opens")
        data = {"ask": "allow", "user": check_user_id(user_id), "submit": submit, "execute": execute}
        self._ask_colony(colonyname, data)

    def coordinate(self, colonyname: str) -> None:
        """Work off what happens to the runs of a colony of this user's, in threads of this process, until the client
        closes. Nothing happens when this client does so already. Raises EndpointNotFoundError."""
        endpoint = colony_endpoint(colonyname)
        if find_endpoint(self._cl.store, endpoint) is None:
            raise self._no_colony(colonyname)
        self._cl.once(f"coordinator of {endpoint}", lambda: DispatchWorker(self._cl, endpoint).stop)

    # -- workflows ---------------------------------------------------------------------------------------------

    def submit_workflow(self, workflow: Workflow, run_id: str | None = None, timeout: float = TIMEOUT) -> ProcessGraph:
        """Submit; it runs from now on whatever becomes of this process. Durable when it returns. A workflow that is
        larger than a message goes in parts, and is submitted with the last one. Under a ``run_id`` of this user's own
        choice it is submitted once: whoever submits under it again, perhaps from another process, is given the same
        run, until that is removed. ``timeout``: seconds that the colony is waited for."""
        return self.get_processgraph(self.begin(workflow, run_id, timeout))

    def begin(self, workflow: Workflow, run_id: str | None = None, timeout: float = TIMEOUT) -> str:
        """``submit_workflow``, and its id alone."""
        colony = workflow.colonyname
        specs = [spec.signed(self._cl.identity, self.owner, colony) for spec in workflow.functionspecs]
        step(Graph(), Submitted(tuple(spec.process() for spec in specs)))
        data: dict[str, Any] = {
            "ask": "submit",
            "run_id": run_id,
            "fail_fast": workflow.fail_fast,
            "max_step_inputs": workflow.max_step_inputs,
        }
        parts = parts_of([spec.to_dict() for spec in specs], self._cl.settings.max_message_bytes - ALLOWANCE)
        if len(parts) == 1:
            data["specs"] = parts[0]
        else:
            data |= {"submission": new_message_id(), "parts": len(parts)}
            for number, part in enumerate(parts):
                one = {"ask": "part", "submission": data["submission"], "number": number, "specs": part}
                self._ask_colony(colony, one, timeout)
        return str(GraphId.parse(self._ask_colony(colony, data, timeout)["processgraphid"]))

    def get_processgraph(self, processgraphid: str) -> ProcessGraph:
        """A workflow as it is now: ``state``, ``processids``, ..."""
        following = Following()
        self.ask_following(processgraphid, following, "get")
        return following.processgraph()

    def ask_following(
        self, processgraphid: str, following: Following, ask: str, timeout: float | None = TIMEOUT
    ) -> None:
        """``get`` what is new of a run, or ``wait`` for its end, or for ``progress``."""
        graph_id = GraphId.parse(processgraphid)
        data = following.question("get")
        if ask != "get":
            data = following.question("wait", done=following.done if ask == "progress" else None)
        while following.take(self._asking.ask_run(graph_id, data, timeout)):
            data = following.question("get")

    def get_outputs(self, processgraphid: str, names: Sequence[str]) -> dict[str, Any]:
        """What processes of a workflow gave, by their names; None for what gave nothing."""
        found: dict[str, Any] = {}
        while len(found) < len(names):
            asked = list(names[len(found) : len(found) + OUTPUTS])
            answer = self._asking.ask_run(GraphId.parse(processgraphid), {"ask": "outputs", "processes": asked})
            found |= zip(asked, map(restored, answer["outputs"]), strict=False)
        return found

    def get_picture(self, processgraphid: str) -> Picture:
        """A workflow as it is now, to be drawn."""
        found = self._asking.ask_run(GraphId.parse(processgraphid), {"ask": "picture"})
        nodes = [PictureNode(name, label, ProcessState(state), title) for name, label, state, title in found["nodes"]]
        return Picture(nodes, [PictureEdge(*edge) for edge in found["edges"]])

    def get_colonies(self) -> list[str]:
        """The names of this user's own colonies."""
        names = (name for name in endpoint_names(self._cl.store) if name.startswith("colony."))
        return [name.removeprefix("colony.") for name in names if not name.endswith(".runs")]

    def get_process(self, processid: str) -> Process:
        """A process as it is now: ``spec``, ``state``, ``output``, ..."""
        found = ProcessId.parse(processid)
        return Process.from_dict(self._asking.ask_run(found.graph, {"ask": "process", "process": found.name}))

    def find_process(self, name: str, processids: Sequence[str]) -> Process:
        """The first of these processes with this node name or, if none has, this function. Raises WorkflowError."""
        for processid in processids:
            if ProcessId.parse(processid).name == name:
                return self.get_process(processid)
        for processid in processids:
            process = self.get_process(processid)
            if process.spec.funcname == name:
                return process
        raise WorkflowError(f"None of these {len(processids)} processes is {name!r}.")

    def get_processgraphs(
        self, colonyname: str, states: Sequence[GraphState | str] | None = None, limit: int = 100
    ) -> list[ProcessGraph]:
        """The workflows of a colony that are in one of these states, the newest first, without their processes."""
        data = {"ask": "list", "states": None if states is None else [str(one) for one in states], "limit": limit}
        return [ProcessGraph.from_dict(one) for one in self._ask_colony(colonyname, data)["graphs"]]

    def add_child(
        self,
        processgraphid: str,
        parentid: str,
        childid: str | None,
        spec: FunctionSpec,
        nodename: str | None = None,
        insert: bool = False,
    ) -> Process:
        """Add a process below a parent and above a child (None: above nothing) that has not begun: with ``insert``
        between the two, whose dependency goes, else beside what is between them. The same again changes nothing."""
        graph = GraphId.parse(processgraphid)
        named = spec.model_copy(update={"nodename": nodename or spec.nodename})
        named = named.signed(self._cl.identity, self.owner, graph.colony)
        data = {
            "ask": "add_child",
            "parent": ProcessId.parse(parentid).name,
            "child": None if childid is None else ProcessId.parse(childid).name,
            "spec": named.to_dict(),
            "insert": insert,
        }
        return self.get_process(self._asking.ask_run(graph, data)["processid"])

    def wait(
        self,
        graph: ProcessGraph | str,
        timeout: float | None = None,
        progress: Callable[[ProcessGraph], None] | None = None,
    ) -> ProcessGraph:
        """Wait for the end of a workflow, and give it; ``timeout`` in seconds, None waits for as long as it takes.
        ``progress`` is called with it whenever processes of it have ended. Raises CallTimeoutError."""
        name = graph if isinstance(graph, str) else graph.processgraphid
        until = None if timeout is None else time.monotonic() + timeout
        following, ask = Following(), "wait"
        if progress is not None:
            self.ask_following(name, following, "get")
            ask = "progress"
        while True:
            if progress is not None:
                progress(following.processgraph())
            if following.ended:
                return following.processgraph()
            self.ask_following(name, following, ask, None if until is None else max(0.0, until - time.monotonic()))

    def cancel(self, id: str) -> None:
        """Cancel a workflow, or one of its processes; steps that run are stopped."""
        if str(id).count("/") > 1:
            found = ProcessId.parse(id)
            self._asking.ask_run(found.graph, {"ask": "cancel", "process": found.name})
        else:
            self._asking.ask_run(GraphId.parse(id), {"ask": "cancel", "process": None})

    def remove(self, processgraphid: str) -> bool:
        """Delete all that is stored of a workflow; False when it is not there. Raises WorkflowError while it is not
        over."""
        graph = GraphId.parse(processgraphid)
        return bool(self._ask_colony(graph.colony, {"ask": "remove", "run": graph.flow_id})["removed"])

    def removeall(self, colonyname: str) -> tuple[list[str], list[tuple[str, str]]]:
        """Delete all workflows of a colony that are over. Gives the ids of those that were deleted, and of those that
        were not, with the reason."""
        removed: list[str] = []
        while True:
            answer = self._ask_colony(colonyname, {"ask": "removeall"})
            removed += answer["removed"]
            if not answer["more"]:
                return removed, [(graph, why) for graph, why in answer["kept"]]

    # ----------------------------------------------------------------------------------------------------------

    def _only_owner(self, does: str) -> None:
        if self.owner != self._cl.user_id:
            raise WorkflowError(f"Only its owner {does} a colony.", hint="Leave owner out: Colonies(cl).")

    def _ask_colony(self, colonyname: str, data: dict[str, Any], timeout: float = TIMEOUT) -> dict[str, Any]:
        check_colony(colonyname)
        if self.owner == self._cl.user_id and find_endpoint(self._cl.store, colony_endpoint(colonyname)) is None:
            raise self._no_colony(colonyname)
        return self._asking.ask_colony(colonyname, data, timeout)

    def _before(self, colonyname: str) -> None:
        if self._coordinates:
            self.coordinate(colonyname)

    def _no_colony(self, colonyname: str) -> EndpointNotFoundError:
        known = self.get_colonies()
        return EndpointNotFoundError(
            f"User {self.owner} has no colony {colonyname!r}.",
            hint=f"There is {', '.join(known) or 'none'}. Make it (`coflows colony add NAME`, add_colony), or say "
            "whose it is when it is another's (--owner, owner=).",
        )
