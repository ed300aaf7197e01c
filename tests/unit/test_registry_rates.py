"""How much of a service one client gets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflows.registry.rates import BURST_SECONDS, MAX_CLIENTS, Allowance, RateLimit, client_of


@given(st.lists(st.floats(0, 3), max_size=200), st.integers(1, 5))
def test_no_more_than_the_rate_after_the_burst(pauses: list[float], rate: int) -> None:
    allowance, now, taken = Allowance(rate), 0.0, 0
    for pause in pauses:
        now += pause
        wait = allowance.take("one", now)
        taken += not wait
        assert taken <= rate * (BURST_SECONDS + now) + 1e-6
        assert not allowance.take("other", now) or pause < 1 / rate  # He is counted for himself.
        if wait:
            assert allowance.take("one", now + wait * 1.001) == 0
            now, taken = now + wait * 1.001, taken + 1


def test_clients_are_not_remembered_without_end() -> None:
    allowance = Allowance(1)
    for number in range(MAX_CLIENTS + 10):
        allowance.take(str(number), 0.0)
    assert len(allowance._left) == MAX_CLIENTS


@pytest.mark.parametrize(
    ("address", "forwarded", "behind_proxy", "client"),
    [
        ("192.0.2.1", None, False, "192.0.2.1"),
        ("::ffff:192.0.2.1", None, False, "192.0.2.1"),
        ("2001:db8::1:2:3:4", None, False, "2001:db8::/64"),
        ("127.0.0.1", None, True, None),
        ("::1", "8.8.8.8", False, None),
        ("10.0.0.1", "1.1.1.1, 8.8.8.8", True, "8.8.8.8"),
        ("127.0.0.1", "1.1.1.1", True, "1.1.1.1"),
        ("127.0.0.1", "nonsense", True, None),
        ("10.0.0.1", "8.8.8.8", False, "10.0.0.1"),
        ("9.9.9.9", "8.8.8.8", True, "9.9.9.9"),
        ("", None, False, None),
    ],
)
def test_who_asks(address: str, forwarded: str | None, behind_proxy: bool, client: str | None) -> None:
    """What a client says of himself counts for nothing: a proxy adds whom it has it from at the end."""
    assert client_of(address, forwarded, behind_proxy) == client


def test_one_client_does_not_hold_all_places() -> None:
    async def main() -> None:
        done, inside = asyncio.Event(), asyncio.Semaphore(0)

        async def application(_scope: Any, _receive: Any, send: Any) -> None:
            inside.release()
            await done.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        limit = RateLimit(application, rate=1000, at_once=2, behind_proxy=False)

        async def ask(address: str) -> int:
            said: list[dict[str, Any]] = []

            async def send(message: Any) -> None:
                said.append(message)

            async def receive() -> Any:
                return {"type": "http.request", "body": b""}

            scope = {"type": "http", "client": (address, 1), "headers": [], "method": "GET", "path": "/"}
            await limit(scope, receive, send)
            return int(said[0]["status"])

        asking = [asyncio.create_task(ask(address)) for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2")]
        for _ in asking:
            await inside.acquire()
        assert await ask("192.0.2.1") == 429
        done.set()
        assert [await one for one in asking] == [200, 200, 200]
        assert await ask("192.0.2.1") == 200

    asyncio.run(main())
