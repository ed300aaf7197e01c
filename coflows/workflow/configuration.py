"""How a FlowSpec is run."""

from __future__ import annotations

import os
from dataclasses import dataclass

from coflows.errors import WorkflowInvalidError


@dataclass(frozen=True, slots=True)
class Configuration:
    """Raises WorkflowInvalidError for numbers that make no sense."""

    thread_count: int = 0
    """How many steps run in threads at once; 0: as many as there are processors."""
    max_step_inputs: int = 50
    """How many nodes a step may have, so that a product of lists does not run away. A ``@join`` has one."""
    process_count: int = 0
    """How many steps run in processes at once; 0: as many as there are processors."""
    fail_fast: bool = False
    """Whether the first failure of a step cancels the run; else what does not need the failed step runs to its end."""

    def __post_init__(self) -> None:
        for name in ("thread_count", "max_step_inputs", "process_count"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise WorkflowInvalidError(f"Configuration({name}={value!r}) is no count.", hint="Give 0 or more.")

    @property
    def threads(self) -> int:
        """How many threads there may be."""
        return self.thread_count or os.cpu_count() or 1

    @property
    def processes(self) -> int:
        """How many worker processes there may be."""
        return self.process_count or os.cpu_count() or 1
