"""What a user does with flows: serve, unserve and delete endpoints, fetch and delete instances."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

from coflows.access.rules import Access
from coflows.client import Client
from coflows.codec.wire import encode
from coflows.endpoint_quotas import encode_limits
from coflows.endpoints import Endpoint, endpoint_names, ensure_point, find_endpoint, read
from coflows.errors import (
    ConflictError,
    EndpointTakenError,
    FlowClassError,
    FlowConfigError,
    InstanceNotFoundError,
    NameInvalidError,
)
from coflows.flows.config import SubflowSpec, subflow_specs
from coflows.flows.flow import Flow
from coflows.flows.loading import resolve_flow_class
from coflows.flows.models import json_schema
from coflows.flows.overrides import check_no_class, check_overrides
from coflows.instances import find_instance, instance_keys, mounted_ids, tombstones
from coflows.keeping import LIFETIMES
from coflows.model.address import InstanceAddress
from coflows.model.flow_names import REGISTRY, FlowName, is_looked_up
from coflows.model.layout import METADATA, SERVED, endpoint_prefix, fetched_key, quota_key, rule_key, serve_key
from coflows.model.messages import new_message_id
from coflows.model.names import (
    LOCAL,
    check_dispatch_point,
    check_endpoint,
    check_flow_id,
    check_user_id,
)
from coflows.model.wire import FetchItem
from coflows.mounting import Mounter
from coflows.policies import changed, rule_writes
from coflows.proxy import FlowProxy
from coflows.registry.lookup import LOOKUP_SECONDS, Lookup
from coflows.releasing import await_releases, release_addresses, remove_instance
from coflows.resolution import MountRequest
from coflows.store.base import ABSENT
from coflows.tree_node import Mounted

logger = logging.getLogger(__name__)

DISPATCH_POINT = "coflows_dispatch"
FETCH_TIMEOUT = 60.0


class IgnoredConfigWarning(UserWarning):
    """Overrides for a singleton that somebody had mounted before with another config."""


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
) -> bool:
    """Serve a flow and, the same way, those of its subflows that are this user's and not served yet.

    A subflow is served with the class that its ``flow_class_name`` names. Everything is checked before anything is
    served. True when the flow itself was not served yet. ``access`` is for all that are served now; this user, whose
    subflows they are, may fetch them in any case.
    """
    todo: dict[str, str] = {}
    _collect(cl, _class_name(flow_class_name), flow_endpoint, todo)
    outcome = False
    for endpoint, class_name in reversed(todo.items()):
        outcome = serve_flow(cl, class_name, endpoint, dispatch_point, parallel_dispatch, singleton, access)
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


def get_flow_instance(
    cl: Client,
    flow_endpoint: str,
    user_id: str = LOCAL,
    config_overrides: dict[str, Any] | None = None,
    initial_state: dict[str, Any] | None = None,
    dispatch_point_override: str | None = None,
    timeout: float = FETCH_TIMEOUT,
    grant: str | None = None,
) -> FlowProxy:
    """Fetch an instance of a flow, this user's ("local") or another's, with its tree of subflows. With "registry", or
    an endpoint coflows://organization/endpoint, the registries of the client say whose.

    Another user needs a get_instance worker running; he is waited for up to ``timeout`` seconds. Overrides of a
    singleton that was mounted before with other values are ignored, and an IgnoredConfigWarning names them. ``grant``
    is a token of the owner's that lets this user in; what is done with the instance is counted against it.

    Raises NameInvalidError, EndpointNotFoundError, UnknownUserError, CallTimeoutError, FlowConfigError,
    FlowClassError, FlowCycleError or FlowInstanceError (naming the chain of subflows), AccessDeniedError or GrantError;
    then nothing stays mounted. Of what is looked up: ConfigurationError, FlowNotListedError, FlowAmbiguousError,
    FlowOfflineError, OtherBrokerError, ProofInvalidError or RegistryUnavailableError.
    """
    now = time.time()
    lookup = Lookup(cl.settings.registries, min(timeout, LOOKUP_SECONDS), cl.settings.trusted)
    if is_looked_up(user_id, flow_endpoint):
        if user_id not in (LOCAL, REGISTRY):
            raise NameInvalidError(
                f"{flow_endpoint[:80]!r} is looked up in registries, and a user id is given too.",
                hint="Leave user_id out, or give the endpoint's own name.",
            )
        chosen = lookup.find(FlowName.parse(flow_endpoint))
        user_id, flow_endpoint = chosen.user_id, chosen.endpoint
    check_endpoint(flow_endpoint)
    overrides = config_overrides or {}
    check_overrides(overrides)
    check_no_class(overrides)
    if dispatch_point_override is not None:
        check_dispatch_point(dispatch_point_override)
    mounter, request_id = Mounter(cl), new_message_id()
    deadline, keep_by = now + timeout, now + LIFETIMES * timeout
    if user_id in (LOCAL, cl.user_id):
        request = MountRequest(
            endpoint=flow_endpoint,
            client=LOCAL,
            request_id=request_id,
            deadline=deadline,
            config_overrides=overrides,
            initial_state=initial_state,
            dispatch_point_override=dispatch_point_override,
            keep_by=keep_by,
        )
        (mounted,) = mounter.mount([request])
    else:
        item = FetchItem(
            key="root",
            flow_endpoint=flow_endpoint,
            config_overrides=overrides,
            initial_state=initial_state,
            dispatch_point_override=dispatch_point_override,
        )
        with lookup.explained(check_user_id(user_id), cl.broker.url):
            mounted = mounter.fetch(user_id, request_id, item, deadline, keep_by, grant)
    _tell(mounted)
    return cl.proxy(mounted.address)


def reopen_flow_instance(cl: Client, flow_id: str) -> FlowProxy:
    """An instance by its id: one of this user's, or one that he fetched from another. Raises InstanceNotFoundError."""
    fetched = cl.store.get(fetched_key(check_flow_id(flow_id)))
    if fetched is not None:
        return cl.proxy(InstanceAddress.from_dict(read(fetched.value)))
    instance = find_instance(cl.store, flow_id)
    if instance is None:
        raise InstanceNotFoundError(f"There is no instance {flow_id}.", hint="Fetch one with get_flow_instance.")
    return cl.proxy(instance.address)


def _tell(mounted: Mounted) -> None:
    address = mounted.address
    logger.info("Fetched %s of %s at user %s.", address.flow_id, address.flow_endpoint, address.user_id)
    for text in mounted.warnings:
        logger.warning("%s", text)
        warnings.warn(text, IgnoredConfigWarning, stacklevel=3)


def delete_flow_instance(cl: Client, flow_id: str) -> None:
    """Delete an instance: one of this user's, or one that he fetched from another. Its subflows stay.

    Messages on their way to it are answered with InstanceNotFoundError. Raises InstanceNotFoundError.
    """
    _delete(cl, flow_id, lambda: remove_instance(cl, flow_id))


def recursive_delete_flow_instance(cl: Client, flow_id: str, timeout: float = FETCH_TIMEOUT) -> None:
    """Delete an instance and, over all owners, the tree of its subflows. Singletons among them stay: others may hold
    them. Raises InstanceNotFoundError, or CallTimeoutError when an owner does not answer (he releases it later)."""
    _delete(
        cl,
        flow_id,
        lambda: await_releases(release_addresses(cl, remove_instance(cl, flow_id)), timeout),
        timeout,
    )


def release_flow_instance(cl: Client, flow: FlowProxy, timeout: float = FETCH_TIMEOUT) -> None:
    """Give an instance back that this user fetched: deleted with its tree, unless it is a singleton, which stays for
    the others. Raises CallTimeoutError when its owner does not answer (he releases it later)."""
    await_releases(release_addresses(cl, [flow.address]), timeout)
    cl.store.commit(deletes=[fetched_key(flow.get_instance_id())])


def _delete(cl: Client, flow_id: str, delete_own: Callable[[], object], timeout: float = FETCH_TIMEOUT) -> None:
    fetched = cl.store.get(fetched_key(check_flow_id(flow_id)))
    if fetched is None:
        delete_own()
        return
    address = InstanceAddress.from_dict(read(fetched.value))
    await_releases(release_addresses(cl, [address]), timeout)
    cl.store.commit(deletes=[fetched_key(flow_id)])
