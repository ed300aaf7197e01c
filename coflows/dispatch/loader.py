"""Builds flows from their mounts, and keeps those that may be used again."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coflows.codec.state import decode_state
from coflows.dispatch.lease import Lease
from coflows.dispatch.process_turn import FlowInProcess, ProcessTurns
from coflows.endpoints import find_endpoint, read
from coflows.errors import FlowClassError, FlowConfigError
from coflows.flows import Flow
from coflows.flows.loading import resolve_flow_class
from coflows.flows.models import declared
from coflows.instances import Instance, find_instance, no_such_instance
from coflows.store.base import Entry, Store

if TYPE_CHECKING:
    from pydantic import BaseModel

CACHE_SIZE = 10_000
MAX_DESIGNS = 256
MOMENT = 1.0
"""Seconds that a class and its config are taken to be what they were."""
MAX_IDLE = 64
"""Flows of one parallel instance that are kept for later turns."""


@dataclass(slots=True)
class Loaded:
    """A flow that is ready for a turn, and belongs to the batch that has its lane. ``state`` is its encoded state after
    its last turn, None before its first one; ``epoch`` that of the ``lease`` under which that turn was run."""

    instance: Instance
    flow: Flow
    parallel: bool
    state: bytes | None
    private_keys: tuple[str, ...] = ()
    lease: Lease | None = None
    epoch: int | None = None
    input_model: type[BaseModel] | None = None
    """What messages to it have to fit."""


@dataclass(frozen=True, slots=True)
class _Blueprint:
    """What all flows of one instance are built from."""

    flow_class: type[Flow]
    config: dict[str, Any]
    parallel: bool
    singleton: bool
    version: int


class Loader:
    """Thread-safe. A flow is handed out by ``load`` and is back with ``keep``: what changed it without being committed
    is never met again. Of a parallel endpoint's there are as many as turns run at once."""

    def __init__(self, store: Store, base_paths: Sequence[Path], processes: ProcessTurns) -> None:
        self._store = store
        self._processes = processes
        self._base_paths = tuple(base_paths)
        self._cache: OrderedDict[str, Loaded] = OrderedDict()
        self._instances: OrderedDict[str, Instance] = OrderedDict()
        self._blueprints: OrderedDict[str, _Blueprint] = OrderedDict()
        self._designs: OrderedDict[tuple[str, bytes], tuple[float, type[Flow], dict[str, Any]]] = OrderedDict()
        self._idle: OrderedDict[str, deque[Loaded]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, flow_id: str, metadata: Entry | None) -> Instance:
        """The instance, given its metadata as read just now; raises InstanceNotFoundError."""
        if metadata is not None:
            cached = self._instances.get(flow_id)
            if cached is not None and metadata.version == cached.version:
                return cached
            instance = find_instance(self._store, flow_id, metadata)
            if instance is not None:
                with self._lock:
                    self._instances[flow_id] = instance
                    if len(self._instances) > CACHE_SIZE:
                        self._instances.popitem(last=False)
                return instance
        self.forget(flow_id)
        raise no_such_instance(flow_id)

    def load(self, instance: Instance) -> Loaded:
        """A flow with its config and state, the caller's own until ``keep``. Raises FlowClassError or
        FlowConfigError."""
        flow_id = instance.path.flow_id
        idle = self._idle.get(flow_id)
        if idle is not None:
            try:
                loaded = idle.pop()
            except IndexError:
                return self._build(instance)
            if loaded.instance.version == instance.version:
                loaded.flow.set_up_flow_state()
                return loaded
            return self._build(instance)
        with self._lock:
            cached = self._cache.pop(flow_id, None)
        if cached is not None and cached.instance.version == instance.version:
            return cached
        return self._build(instance)

    def is_shared(self, instance: Instance) -> bool:
        """Whether others than who mounted it may send to it: it is a singleton, or its class looks at who sends."""
        try:
            blueprint = self._blueprint(instance)
            return blueprint.singleton or blueprint.flow_class.open_to_all
        except (FlowClassError, FlowConfigError):
            return False

    def keep(self, loaded: Loaded) -> None:
        """Use it again for the next turn: now that all of its turns are committed, and unless its partition may be
        another worker's by now; or (of a parallel endpoint) that its turn went well."""
        flow_id = loaded.instance.path.flow_id
        if loaded.parallel:
            idle = self._idle.get(flow_id)
            if idle is None:
                with self._lock:
                    idle = self._idle.setdefault(flow_id, deque(maxlen=MAX_IDLE))
                    if len(self._idle) > CACHE_SIZE:
                        self._idle.popitem(last=False)
            idle.append(loaded)
            return
        with self._lock:
            lease, epoch = loaded.lease, loaded.epoch
            if lease is None or epoch is None or not lease.holds(epoch):
                return  # Under the lock: who loses a lease forgets the partition's flows after it.
            self._cache[flow_id] = loaded
            if len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)

    def forget(self, flow_id: str) -> None:
        """Build it anew for the next turn, from what is committed."""
        with self._lock:
            self._cache.pop(flow_id, None)
            self._idle.pop(flow_id, None)

    def forget_partition(self, partition: int) -> None:
        """Forget all instances of a partition: another worker may have changed them."""
        with self._lock:
            gone = [key for key, one in self._cache.items() if one.instance.address.partition == partition]
            for flow_id in gone:
                del self._cache[flow_id]

    def _build(self, instance: Instance) -> Loaded:
        blueprint = self._blueprint(instance)
        flow = self._make(blueprint, instance)
        state = None
        if not blueprint.parallel:
            entry = self._store.get(instance.path.key("state"))
            state = None if entry is None else entry.value
        if state is None:
            flow.set_up_flow_state()
        else:
            flow.set_flow_state(decode_state(state))
        private = tuple(flow.flow_config.get("private_keys") or ())
        model = declared(blueprint.flow_class, "Input")
        return Loaded(instance, flow, blueprint.parallel, state, private, input_model=model)

    def _make(self, blueprint: _Blueprint, instance: Instance) -> Flow:
        if self._processes.wants(blueprint.config):
            return FlowInProcess(self._processes, blueprint.flow_class, blueprint.config, instance, blueprint.parallel)
        return blueprint.flow_class(flow_config=blueprint.config)

    def _blueprint(self, instance: Instance) -> _Blueprint:
        """The class and config of an instance: read once, for its YAML takes longer than most turns."""
        flow_id = instance.path.flow_id
        known = self._blueprints.get(flow_id)
        if known is not None and known.version == instance.version:
            return known
        endpoint = find_endpoint(self._store, instance.path.endpoint)
        overrides = self._store.get(instance.path.key("config_overrides"))
        if endpoint is None or overrides is None:
            raise FlowClassError(f"Endpoint {instance.path.endpoint!r} was deleted.", hint="Serve it again.")
        flow_class, config = self._design(endpoint.flow_class_name, overrides.value)
        made = _Blueprint(flow_class, config, endpoint.parallel, endpoint.singleton, instance.version)
        with self._lock:
            self._blueprints[flow_id] = made
            if len(self._blueprints) > CACHE_SIZE:
                self._blueprints.popitem(last=False)
        return made

    def _design(self, class_name: str, overrides: bytes) -> tuple[type[Flow], dict[str, Any]]:
        """The class and the config with its overrides, found once for all the instances that are first used within a
        moment; later ones see what was edited since."""
        now = time.monotonic()
        with self._lock:
            known = self._designs.get((class_name, overrides))
            if known is not None and now < known[0]:
                return known[1:]
        flow_class = resolve_flow_class(class_name, self._base_paths)
        config = flow_class.get_config(**read(overrides))
        with self._lock:
            self._designs[class_name, overrides] = (now + MOMENT, flow_class, config)
            if len(self._designs) > MAX_DESIGNS:
                self._designs.popitem(last=False)
        return flow_class, config
