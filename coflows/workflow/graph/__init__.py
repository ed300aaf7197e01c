"""The process graph: a value, and ``step(graph, event) -> (graph, commands)``. Pure; imports nothing but errors.

Every runner and every face stands on it. A runner tells what happened and does what it is asked; what runs in a process
and the values that go from one to the next are kept by the face, under the process's name.
"""

from coflows.workflow.graph.inputs import Input, inputs_of
from coflows.workflow.graph.stepping import outstanding, step
from coflows.workflow.graph.value import Delta, Graph

__all__ = ["Delta", "Graph", "Input", "inputs_of", "outstanding", "step"]
