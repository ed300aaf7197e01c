"""Fetches instances of flows, this user's and others', and gives them back."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

from coflows.client import Client
from coflows.endpoints import read
from coflows.errors import (
    InstanceNotFoundError,
    NameInvalidError,
)
from coflows.flows.overrides import check_no_class, check_overrides
from coflows.instances import find_instance
from coflows.keeping import LIFETIMES
from coflows.model.address import InstanceAddress
from coflows.model.flow_names import REGISTRY, FlowName, is_looked_up
from coflows.model.layout import fetched_key
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
from coflows.proxy import FlowProxy
from coflows.registry.lookup import LOOKUP_SECONDS, Lookup
from coflows.releasing import await_releases, release_addresses, remove_instance
from coflows.resolution import MountRequest
from coflows.tree_node import Mounted

logger = logging.getLogger(__name__)

FETCH_TIMEOUT = 60.0


class IgnoredConfigWarning(UserWarning):
    """Overrides for a singleton that somebody had mounted before with another config."""


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
        raise InstanceNotFoundError(
            f"There is no instance {flow_id}.", hint="Fetch one: get_flow_instance, or `coflows call --keep`."
        )
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
