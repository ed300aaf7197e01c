"""A user with a node at some URL, who says to a registry what he likes; all of it is signed with his key."""

from __future__ import annotations

import time
from typing import Any

import httpx

from coflows.identity.keys import Identity
from coflows.registry.entry import FlowEntry, digest_of
from coflows.registry.messages import Announcement
from coflows.registry.page import Cursor, Offer, Page, SignedText, Update
from coflows.registry.record import Beat, Record
from coflows.registry.requests import sign_request


class Stranger:
    """A user with a node at some URL, who says what he likes."""

    def __init__(self, registry: str, url: str, identity: Identity | None = None) -> None:
        self.identity = identity or Identity.generate()
        self.registry = registry
        self.url = url
        self.number = int(time.time() * 1000)
        self.http = httpx.Client(base_url=registry, timeout=30)

    def offer(self, flows: list[FlowEntry] = [], sequence: int | None = None, **said: Any) -> Offer:  # noqa: B006
        """Signed by him, whatever it says."""
        beat = Beat(**{"user_id": self.identity.user_id, "url": self.url, "beat": self.next(), **said.pop("beat", {})})
        values = {
            "user_id": self.identity.user_id,
            "url": self.url,
            "registry": False,
            "feed": False,
            "sequence": self.next() if sequence is None else sequence,
            "flows": sorted(digest_of(flow.text()) for flow in flows),
            **said,
        }
        record = Record(**values)
        return Offer(record=SignedText.of(record.sign(self.identity)), beat=SignedText.of(beat.sign(self.identity)))

    def next(self) -> int:
        self.number += 1
        return self.number

    def ask(self, method: str, path: str, body: Any = None, **changed: Any) -> httpx.Response:
        content = b"" if body is None else body.model_dump_json().encode()
        said = {"to": self.registry, "number": self.next(), "url": self.url, **changed}
        headers = sign_request(self.identity, said["to"], method, path, content, said["number"], said["url"])
        return self.http.request(method, path, content=content, headers={**headers, "content-type": "application/json"})

    def connect(self, offer: Offer | None = None) -> httpx.Response:
        return self.ask("POST", "/connect", Announcement(offer=offer or self.offer(), fresh=True))

    def update(self, *offers: Offer, entries: dict[str, str] | None = None) -> httpx.Response:
        page = Page(log="0" * 16, after=Cursor(), upto=Cursor(), offers=list(offers))
        return self.ask("POST", "/update", Update(page=page, entries=entries or {}))

    def publish(self, flows: list[FlowEntry], **said: Any) -> httpx.Response:
        return self.update(self.offer(flows, **said), entries={digest_of(flow.text()): flow.text() for flow in flows})
