"""Share running flows: serve a flow class at a named endpoint, fetch an instance, message it, await the reply."""

from coflows.client import Client
from coflows.connecting import connect, start_users
from coflows.flows import AtomicFlow, CompositeFlow, Flow, KeyInterface
from coflows.futures import FlowFuture
from coflows.model.messages import FlowMessage

__all__ = [
    "AtomicFlow",
    "Client",
    "CompositeFlow",
    "Flow",
    "FlowFuture",
    "FlowMessage",
    "KeyInterface",
    "connect",
    "start_users",
]
