"""A message that kills its workers, beside one whose turn takes long enough to be hit each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coflows import FlowMessage
from coflows.dead_letters import list_dead_letters
from coflows.dispatch.attempts import pause_before
from coflows.errors import PoisonMessageError
from coflows.proxy import FlowProxy
from coflows.serving import get_flow_instance
from tests.chaos.world import Worlds

ATTEMPTS = (3, 4, 5)


def package(flow: FlowProxy, data: dict[str, Any], wanted: Callable[[float], bool]) -> FlowMessage:
    """A message whose pauses before its attempts, as shares of the longest possible, are all as wanted."""
    while True:
        message = flow.package_input_message(data)
        if all(wanted(pause_before(attempt, message.message_id) / 2.0 ** (attempt - 3)) for attempt in ATTEMPTS):
            return message


@pytest.mark.rabbitmq
@pytest.mark.timeout(240)
def test_a_slow_neighbour_of_poison_is_not_given_up_with_it(worlds: Worlds, tmp_path: Path) -> None:
    """The neighbour comes first each time, and is still at it when the poison comes."""
    with worlds() as made:
        made.worker()
        poison = get_flow_instance(made.carol, "poison", made.alice.user_id)
        witness = get_flow_instance(made.carol, "witness", made.alice.user_id)
        deadly = tmp_path / "deadly"
        deadly.touch()
        slow = witness.get_reply_future(package(witness, {"number": 1, "seconds": 3}, lambda share: share < 0.4))
        poisoned = poison.get_reply_future(package(poison, {"deadly_while": str(deadly)}, lambda share: share > 0.6))
        with pytest.raises(PoisonMessageError):
            poisoned.get_data(120)
        assert slow.get_data(120) == {"number": 1, "position": 1}
        assert len(list_dead_letters(made.alice)) == 1
