"""What a registry that lies can do to the nodes that connect to it, and to those who ask it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coflows.errors import AccessDeniedError
from coflows.identity.keys import Identity
from coflows.registry import link
from coflows.registry.record import MAX_NUMBER
from tests.registry_liar import Liar
from tests.registry_stranger import Stranger
from tests.registry_world import Serve, eventually

NODE = {"registry": False, "feed": False}
FLOWS = [{"name": "F", "endpoint": "f"}]
NOTHING = {"records": 0, "beats": 0}


def test_nobody_else_moves_the_numbers_of_a_node(serve: Serve) -> None:
    """A registry that claims to know the last number that there is would have silenced the node everywhere."""
    service = serve({"flows": FLOWS}, **NODE).service
    before = service.own_offer()
    mallory = Stranger("http://registry.example", service.url)
    last = {"sequence": MAX_NUMBER - 1, "beat": {"beat": MAX_NUMBER - 1}}
    with pytest.raises(AccessDeniedError):
        service.heed(mallory.offer([], user_id=service.identity.user_id, **last))
    with pytest.raises(AccessDeniedError):
        service.heed(mallory.offer([], **last))
    other_node = Stranger("http://registry.example", "http://other.example", service.identity)
    with pytest.raises(AccessDeniedError):
        service.heed(other_node.offer([], **last))
    assert service.own_offer().record == before.record
    itself = Stranger("http://registry.example", service.url, service.identity)
    service.heed(itself.offer([]))
    assert service.own_offer().record != before.record


def welcome(user: Identity, url: str) -> dict[str, Any]:
    return {
        **{"user_id": user.user_id, "url": url, "organization": "Liar", "registry": True, "feed": True},
        **{"log": "", "cursor": NOTHING},
    }


@pytest.mark.parametrize("lie", ["endless", "empty", "again", "entries"])
def test_a_registry_without_end_is_given_up(serve: Serve, lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have kept a thread of whoever connects to it busy for ever."""
    monkeypatch.setattr(link, "MAX_PAGES", 20)
    user = Identity.generate()
    offer = Stranger("", "http://liar.example", user).offer([])
    place: list[Liar] = []

    def answer(method: str, path: str, said: bytes) -> Any:
        if path == "/connect":
            return welcome(user, place[0].url)
        if path == "/update":
            page = json.loads(said)["page"]
            told = {"log": page["log"], "cursor": page["upto"], "missing": []}
            if lie == "again":
                told["cursor"] = {"records": 0, "beats": MAX_NUMBER - 1}
            if lie == "entries":
                told["missing"] = [digest for one in page["offers"] for digest in json.loads(one["record"]["text"])["flows"]]
            return told
        number = len(place[0].asked)
        upto = {"records": 0 if lie == "empty" else number, "beats": 0}
        offers = [offer.model_dump()] if lie == "endless" else []
        after = {"records": 0, "beats": 0}
        return {"log": "0" * 16, "after": after, "upto": upto, "more": True, "offers": offers}

    with Liar(answer) as liar:
        place.append(liar)
        node = serve({"flows": FLOWS}, connect=liar.url, retry=0)
        eventually(lambda: node.service.connections()["connections"][0]["state"] == "stopped", "that it gives up")
