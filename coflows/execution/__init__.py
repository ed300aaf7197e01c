"""Managed flows of one process: functions that depend on each other, run in threads, processes or on the event loop."""

from coflows.execution.context import FlowContext
from coflows.execution.dependencies import DependencyType
from coflows.execution.flow_config import FlowConfig, FlowType
from coflows.execution.flow_status import FlowResult, FlowStatus
from coflows.execution.pool_manager import ProcessPoolManager
from coflows.execution.process_flow import ProcessFlow
from coflows.execution.results import ResultsManager

__all__ = [
    "DependencyType",
    "FlowConfig",
    "FlowContext",
    "FlowResult",
    "FlowStatus",
    "FlowType",
    "ProcessFlow",
    "ProcessPoolManager",
    "ResultsManager",
]
