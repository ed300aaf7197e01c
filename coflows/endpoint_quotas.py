"""Quotas of single endpoints, as they stand in the owner's store."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from coflows.codec.wire import encode
from coflows.endpoints import read
from coflows.errors import CoflowsError, ConfigurationError
from coflows.model.layout import quota_key
from coflows.quotas.quota import Quota
from coflows.store.base import Store

logger = logging.getLogger(__name__)

MOMENT = 1.0
"""Seconds that a quota is taken to be what it was."""


class EndpointQuotas:
    """What was looked up is remembered for a moment. Thread-safe."""

    def __init__(self, store: Store, default: Quota) -> None:
        self._store = store
        self._default = default
        self._known: dict[str, tuple[float, Quota | None]] = {}

    def of(self, endpoint: str) -> Quota | None:
        """The endpoint's own quota, with the owner's settings for what it does not say; None when it has none. While
        the store does not answer it is what it was."""
        known, now = self._known.get(endpoint), time.monotonic()
        if known is not None and now < known[0]:
            return known[1]
        try:
            entry = self._store.get(quota_key(endpoint))
            quota = None if entry is None else self._default.with_limits(read(entry.value))
        except CoflowsError as error:
            logger.warning("The quota of %s could not be read: %s", endpoint, error)
            quota = None if known is None else known[1]
        self._known[endpoint] = (now + MOMENT, quota)
        return quota


def encode_limits(limits: Mapping[str, Any]) -> bytes:
    """What the store keeps of them. Raises ConfigurationError for what is no quota."""
    if not isinstance(limits, Mapping):
        raise ConfigurationError("A quota is a dict of limits.", hint='Pass for instance {"messages": 100}.')
    Quota().with_limits(limits)
    return encode(dict(limits))
