"""What a flow author imports: the flow classes, their config, and the interface between two flows."""

from coflows.flows.flow import AtomicFlow, CompositeFlow, Flow
from coflows.flows.key_interface import KeyInterface

__all__ = ["AtomicFlow", "CompositeFlow", "Flow", "KeyInterface"]
