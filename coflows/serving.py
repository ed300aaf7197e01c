"""What a user does with flows: serve, unserve and delete endpoints; and fetch instances (``fetching.py``)."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from typing import Any

from coflows.access.rules import Access
from coflows.client import Client
from coflows.codec.wire import encode
from coflows.endpoint_quotas import encode_limits
from coflows.endpoints import Endpoint, endpoint_names, ensure_point, find_endpoint
from coflows.errors import (
    ConflictError,
    EndpointTakenError,
    FlowClassError,
    FlowConfigError,
)
from coflows.fetching import (
    IgnoredConfigWarning,
    delete_flow_instance,
    get_flow_instance,
    recursive_delete_flow_instance,
    release_flow_instance,
    reopen_flow_instance,
)
from coflows.flows.config import SubflowSpec, subflow_specs
from coflows.flows.flow import Flow
from coflows.flows.loading import resolve_flow_class
from coflows.flows.models import json_schema
from coflows.futures import DISPATCH_POINT
from coflows.instances import find_instance, instance_keys, mounted_ids, tombstones
from coflows.model.layout import METADATA, SERVED, endpoint_prefix, quota_key, rule_key, serve_key
from coflows.model.names import (
    LOCAL,
    check_dispatch_point,
    check_endpoint,
)
from coflows.policies import changed, rule_writes
from coflows.store.base import ABSENT

logger = logging.getLogger(__name__)

__all__ = [
    "DISPATCH_POINT",
    "IgnoredConfigWarning",
    "delete_all_flow_endpoints",
    "delete_flow_endpoint",
    "delete_flow_instance",
    "get_flow_instance",
    "is_flow_served",
    "recursive_delete_flow_instance",
    "recursive_serve_flow",
    "release_flow_instance",
    "reopen_flow_instance",
    "serve_flow",
    "unserve_flow",
]


def serve_flow(
    cl: Client,
    flow_class_name: str | type[Flow],
    flow_endpoint: str,
    dispatch_point: str = DISPATCH_POINT,
    parallel_dispatch: bool = False,
    singleton: bool = False,
    access: Access | str | Collection[str] | None = None,
    *,
    quota: Mapping[str, Any] | None = None,
) -> bool:
    """Serve a flow class at an endpoint. True when it was not served yet, False (and nothing changes) when it was, with
    the same class and with what is asked for here beyond the defaults. The class may be given itself, where workers
    find it by its name.

    Its messages are worked off by dispatch workers of ``dispatch_point``: in order and one at a time for each
    instance, or with ``parallel_dispatch`` all at once and without state. A ``singleton`` has one instance for all.
    ``access`` says who may fetch it: "everybody" who can reach the broker (the default), a list of user ids,
    "group:NAME" of this user's, or "grant" for nobody; besides, who has a grant (``coflows.granting``) always may, and
    this user himself. An endpoint that was unserved keeps its rule until another one is said.
    ``quota`` says what each other user may have there, by the names of Quota's fields (``{"messages": 100}``), where
    that is not what the settings say; it is set also when the flow was served already, and None changes nothing.
    Raises NameInvalidError, FlowClassError, FlowConfigError, ConfigurationError for what is no quota, or
    EndpointTakenError when something else is served there, and then serves nothing.
    """
    limits = {} if quota is None else {quota_key(check_endpoint(flow_endpoint)): encode_limits(quota)}
    flow_class_name = _class_name(flow_class_name)
    check_endpoint(flow_endpoint)
    check_dispatch_point(dispatch_point)
    endpoint = Endpoint(flow_endpoint, flow_class_name, dispatch_point, singleton, parallel_dispatch, True, {})
    rule = None if access is None else Access.of(access)
    if _is_served_so(cl, endpoint, rule):
        logger.info("%s is served already.", flow_endpoint)
        if limits:
            cl.store.commit(limits)
        return False
    flow_class = resolve_flow_class(flow_class_name, cl.settings.flow_modules)
    subflow_specs(flow_class.get_config())
    for model in ("Input", "Output"):
        json_schema(flow_class, model)
    ensure_point(cl, dispatch_point)
    init = serve_key(flow_endpoint, "init")
    try:
        writes = {**endpoint.writes(), SERVED: encode(time.time()), **limits}
        if rule is not None:
            writes |= rule_writes(flow_endpoint, rule)
        cl.store.commit(writes, conditions={init: ABSENT})
    except ConflictError:
        _is_served_so(cl, endpoint, rule)
        return False
    logger.info("Started serving %s at flows:%s.", flow_class_name, flow_endpoint)
    logger.info("dispatch_point: %s", dispatch_point)
    logger.info("parallel_dispatch: %s", parallel_dispatch)
    logger.info("singleton: %s", singleton)
    return True


def _class_name(flow_class: str | type[Flow]) -> str:
    if not isinstance(flow_class, type):
        return flow_class
    if flow_class.__qualname__ != flow_class.__name__:
        raise FlowClassError(
            f"{flow_class.__module__}.{flow_class.__qualname__} cannot be found by its name.",
            hint="Define the class at the top level of its module.",
        )
    return f"{flow_class.__module__}.{flow_class.__name__}"


def _is_served_so(cl: Client, wanted: Endpoint, rule: Access | None) -> bool:
    """Whether it is served as wanted; False when nothing is served there. Raises EndpointTakenError."""
    known = find_endpoint(cl.store, wanted.name)
    if known is None or not known.served:
        return False
    if (
        known.flow_class_name == wanted.flow_class_name
        and wanted.dispatch_point in (DISPATCH_POINT, known.dispatch_point)
        and wanted.singleton <= known.singleton
        and wanted.parallel <= known.parallel
    ):
        if rule in (None, known.access):
            return True
        raise EndpointTakenError(
            f"{wanted.name} is already served to others: {known.access}.",
            hint=f"Run: coflows access {wanted.name} RULE (or set_flow_access), which changes who may fetch it.",
        )
    flags = [f", {name}" for name in ("singleton", "parallel") if getattr(known, name)]
    raise EndpointTakenError(
        f"{wanted.name} already serves {known.flow_class_name} at {known.dispatch_point}{''.join(flags)}.",
        hint=f"Run: coflows unserve {wanted.name} (its instances go on; coflows delete {wanted.name} ends them too), "
        f"or choose another name.",
    )


def recursive_serve_flow(
    cl: Client,
    flow_class_name: str | type[Flow],
    flow_endpoint: str,
    dispatch_point: str = DISPATCH_POINT,
    parallel_dispatch: bool = False,
    singleton: bool = False,
    access: Access | str | Collection[str] | None = None,
    *,
    quota: Mapping[str, Any] | None = None,
) -> bool:
    """Serve a flow and, the same way, those of its subflows that are this user's and not served yet.

    A subflow is served with the class that its ``flow_class_name`` names. Everything is checked before anything is
    served. True when the flow itself was not served yet. ``access`` and ``quota`` are for each that is served now; this
    user, whose subflows they are, may fetch them in any case and has no quota.
    """
    todo: dict[str, str] = {}
    _collect(cl, _class_name(flow_class_name), flow_endpoint, todo)
    outcome = False
    for endpoint, class_name in reversed(todo.items()):
        outcome = serve_flow(
            cl, class_name, endpoint, dispatch_point, parallel_dispatch, singleton, access, quota=quota
        )
    return outcome


def _collect(cl: Client, flow_class_name: str, flow_endpoint: str, todo: dict[str, str]) -> None:
    check_endpoint(flow_endpoint)
    todo[flow_endpoint] = flow_class_name
    flow_class = resolve_flow_class(flow_class_name, cl.settings.flow_modules)
    for key, spec in subflow_specs(flow_class.get_config()).items():
        if spec.user_id not in (LOCAL, cl.user_id) or spec.flow_endpoint in todo:
            continue
        if not is_flow_served(cl, spec.flow_endpoint):
            _collect(cl, _class_of(flow_class_name, key, spec), spec.flow_endpoint, todo)


def _class_of(parent: str, key: str, spec: SubflowSpec) -> str:
    if spec.flow_class_name is None:
        raise FlowConfigError(
            f"Subflow {key!r} of {parent} is not served at {spec.flow_endpoint!r}, and its config has no "
            f"flow_class_name to serve it with.",
            hint=f"Add flow_class_name to subflows_config.{key}, or serve {spec.flow_endpoint!r} first.",
        )
    return spec.flow_class_name


def is_flow_served(cl: Client, flow_endpoint: str) -> bool:
    """Whether this user serves a flow at the endpoint."""
    return cl.store.get(serve_key(check_endpoint(flow_endpoint), "init")) is not None


def unserve_flow(cl: Client, flow_endpoint: str) -> bool:
    """Stop giving out instances. Those that are there go on. False when it was not served."""
    key = serve_key(check_endpoint(flow_endpoint), "init")
    entry = cl.store.get(key)
    if entry is None:
        return False
    cl.store.commit({SERVED: encode(time.time())}, deletes=[key])
    logger.info("Stopped serving at flows:%s.", flow_endpoint)
    return True


def delete_flow_endpoint(cl: Client, flow_endpoint: str) -> bool:
    """Stop serving and delete all instances of the endpoint. Their subflows stay. False when there was nothing."""
    prefix = endpoint_prefix(check_endpoint(flow_endpoint))
    if not cl.store.keys(prefix, limit=1):
        return False
    unserve_flow(cl, flow_endpoint)
    for flow_id in mounted_ids(cl.store, flow_endpoint):
        _remove_if_there(cl, flow_id)
    rule = rule_key(flow_endpoint)
    ruled = cl.store.get(rule) is not None
    cl.store.commit(changed() if ruled else {}, deletes=[*cl.store.keys(prefix), *([rule] if ruled else [])])
    logger.info("Deleted flows:%s.", flow_endpoint)
    return True


def _remove_if_there(cl: Client, flow_id: str) -> None:
    instance = find_instance(cl.store, flow_id)
    if instance is not None:
        cl.store.commit(tombstones(instance), instance_keys(cl.store, instance))


def delete_all_flow_endpoints(cl: Client) -> int:
    """Delete all endpoints with their instances; gives how many there were."""
    names = list(endpoint_names(cl.store))
    for name in names:
        delete_flow_endpoint(cl, name)
    cl.store.commit(deletes=cl.store.keys(METADATA))
    return len(names)
