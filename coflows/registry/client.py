"""Asks a node, registry or provider what it knows."""

from __future__ import annotations

import json
import time
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

from coflows.errors import RegistryError
from coflows.identity.keys import Identity
from coflows.registry.dialing import Dialer
from coflows.registry.requests import sign_request
from coflows.registry.urls import check_url


class Registry:
    """A service's counterpart; answers are the JSON of docs/registry.md. Thread-safe. Every method raises
    RegistryUnavailableError when nothing answers within ``timeout`` seconds, RegistryRefusedError when it refuses. The
    owner of the service gives his ``identity`` to command it."""

    def __init__(self, url: str, timeout: float = 30.0, identity: Identity | None = None) -> None:
        place = check_url(url)
        self.url = place.url
        self._dialer = Dialer(timeout, plain=place.scheme == "http")
        self._identity = identity
        self._number = 0

    def info(self) -> dict[str, Any]:
        """Who it is."""
        return self._get("/")

    def flows(self, q: str = "", by: str = "", pp: int = 10, p: int = 0) -> dict[str, Any]:
        """A page of flows."""
        said = {"q": q, "by": by, "pp": str(pp), "p": str(p)}
        return self._get(f"/flows?{urlencode({name: value for name, value in said.items() if value})}")

    def flow(self, flow_id: str) -> dict[str, Any]:
        """A flow by its id."""
        return self._get(f"/flows/{quote(flow_id, safe='')}")

    def proof(self, flow_id: str) -> dict[str, Any]:
        """The signed record of the node that offers the flow, and the flow's entry in it."""
        return self._get(f"/flows/{quote(flow_id, safe='')}/proof")

    def counts(self) -> dict[str, Any]:
        """How many flows there are, of each organization and with each tag."""
        return self._get("/counts")

    def map(self) -> dict[str, Any]:
        """The nodes it knows, and who is connected to whom."""
        return self._get("/map")

    def connections(self) -> dict[str, Any]:
        """Whom it is connected to, and who to it."""
        return self._get("/connect")

    # -- its owner ---------------------------------------------------------------------------------------------

    def connect_to(self, url: str) -> None:
        """Have it connect to a registry."""
        self._command("POST", "/connect", json.dumps({"url": url}).encode())

    def disconnect(self, url: str | None = None) -> None:
        """Have it leave a registry, or all, and take back there what it offers; it still lists it itself."""
        self._command("DELETE", f"/connect?{urlencode({'url': url})}" if url else "/connect", b"")

    def reconnect(self) -> None:
        """Have it connect anew where it gave up."""
        self._command("POST", "/reconnect", b"")

    def _command(self, method: str, path: str, body: bytes) -> None:
        def sign() -> dict[str, str]:
            if self._identity is None:
                return {}
            self._number = max(int(time.time() * 1000), self._number + 1)
            return sign_request(self._identity, self.url, method, path, body, self._number)

        self._dialer.request(method, self.url, path, body or None, sign)

    def _get(self, path: str) -> dict[str, Any]:
        answer = self._dialer.request("GET", self.url, path)
        if not isinstance(answer, dict):
            raise RegistryError(f"{self.url}{path} is not answered as a registry does.")
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._dialer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
