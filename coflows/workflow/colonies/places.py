"""Where the parts of a colony live: endpoints, dispatch points and addresses, derived so that nobody need ask."""

from __future__ import annotations

from typing import NamedTuple

from coflows.errors import NameInvalidError
from coflows.model.address import InstanceAddress, partition_of
from coflows.model.names import LOCAL, check_endpoint, check_flow_id
from coflows.resolution import derive_id, flow_id_of

PARTITIONS = 8
MAX_NAME = 40


def check_colony(name: object, what: str = "Colony name") -> str:
    """Return ``name`` when it can name a colony (or an executor type), else raise NameInvalidError."""
    if isinstance(name, str) and len(name) > MAX_NAME:
        raise NameInvalidError(
            f"{what} {name[:MAX_NAME]!r}... is too long.", hint=f"Use {MAX_NAME} characters at most."
        )
    try:
        return check_endpoint(name)
    except NameInvalidError as error:
        raise NameInvalidError(f"{what} {str(name)[:80]!r} is not valid.", hint=error.hint) from error


def colony_endpoint(colony: str) -> str:
    """The endpoint of a colony, which is its dispatch point too."""
    return f"colony.{check_colony(colony)}"


def runs_endpoint(colony: str) -> str:
    """The endpoint whose instances are the runs of a colony."""
    return f"{colony_endpoint(colony)}.runs"


def colony_request(owner: str, colony: str) -> str:
    """The request that mounts the colony's one instance."""
    return derive_id("colony", owner, colony)


def colony_address(owner: str, colony: str) -> InstanceAddress:
    """The colony's one instance."""
    endpoint = colony_endpoint(colony)
    flow_id = flow_id_of(colony_request(owner, colony), LOCAL, endpoint)
    return InstanceAddress(owner, endpoint, flow_id, endpoint, partition_of(flow_id, PARTITIONS))


def run_address(owner: str, colony: str, flow_id: str) -> InstanceAddress:
    """The instance that is a run."""
    check_flow_id(flow_id)
    return InstanceAddress(
        owner, runs_endpoint(colony), flow_id, colony_endpoint(colony), partition_of(flow_id, PARTITIONS)
    )


def executor_place(owner: str, colony: str, executortype: str) -> tuple[str, str]:
    """The endpoint and the dispatch point at which a user's executors of one type work for a colony. With ".control"
    behind them they are those at which they are told what is not to wait for steps to end."""
    mark = derive_id("executor", owner, check_colony(colony), check_colony(executortype, "Executor type"))[:16]
    return f"executor.{mark}", f"{executortype}.{mark}"


class GraphId(NamedTuple):
    """What a run is called outside: its colony and its instance."""

    colony: str
    flow_id: str

    def __str__(self) -> str:
        return f"{self.colony}/{self.flow_id}"

    @classmethod
    def parse(cls, text: object) -> GraphId:
        """Read what ``str`` wrote; raises NameInvalidError."""
        colony, _, flow_id = str(text).partition("/")
        try:
            return cls(check_colony(colony), check_flow_id(flow_id))
        except NameInvalidError as error:
            raise NameInvalidError(
                f"{str(text)[:100]!r} is no process graph's id.",
                hint="Pass what submit printed, or the processgraphid of what submit_workflow gave: COLONY/ID.",
            ) from error


class ProcessId(NamedTuple):
    """What a process is called outside: its graph, and its name there."""

    graph: GraphId
    name: str

    def __str__(self) -> str:
        return f"{self.graph}/{self.name}"

    @classmethod
    def parse(cls, text: object) -> ProcessId:
        """Read what ``str`` wrote; raises NameInvalidError."""
        parts = str(text).split("/", 2)
        if len(parts) < 3 or not parts[2]:
            raise NameInvalidError(f"{str(text)[:100]!r} is no process's id.", hint="Take one of graph.processids.")
        return cls(GraphId.parse("/".join(parts[:2])), parts[2])
