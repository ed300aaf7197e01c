"""Accounts on RabbitMQ: one for each user, that may do what ``permissions.py`` says and nothing else."""

from __future__ import annotations

import secrets
from urllib.parse import quote, urlsplit

from coflows.broker.permissions import permissions_of
from coflows.broker.rabbitmq_admin import RabbitAdmin
from coflows.broker.topology import ACCOUNTS, door_exchange, own_queues
from coflows.errors import AccountExistsError, AccountNotFoundError
from coflows.model.names import check_user_id

PASSWORD_BYTES = 32
PLACES = {"amqp": "amqp", "amqp/ssl": "amqps"}
"""Schemes of broker URLs by what the management calls their listeners."""


class Accounts:
    """Of one vhost. An account has its user's id as its name. For one thread. Raises, everywhere, what RabbitAdmin
    does, and NameInvalidError."""

    def __init__(self, admin: RabbitAdmin, vhost: str = "/") -> None:
        self._admin = admin
        self._vhost = vhost

    def add(self, user_id: str) -> str:
        """Make an account; gives its password, which is kept nowhere. Raises AccountExistsError."""
        if self._admin.get("users", check_user_id(user_id)) is not None:
            raise AccountExistsError(
                f"User {user_id} has an account at {self._admin.url}.",
                hint="`coflows broker rotate` gives it a new password.",
            )
        try:
            return self._set(user_id)
        except BaseException:
            self._admin.delete("users", user_id)
            raise

    def rotate(self, user_id: str, *, keep_connections: bool = False) -> str:
        """Give an account a new password and the permissions of this version, and end the connections that were made
        with the old one unless told to keep them. Raises AccountNotFoundError."""
        self._check_there(user_id)
        password = self._set(user_id)
        if not keep_connections:
            self._admin.delete("connections", "username", user_id)
        return password

    def remove(self, user_id: str, *, with_queues: bool = False) -> None:
        """Delete an account, end its connections and close its door: for others there is no such user any more. Its
        queues stay, unless it is asked to delete them with what is in them. Raises AccountNotFoundError."""
        self._check_there(user_id)
        self._admin.delete("users", user_id)
        self._admin.delete("connections", "username", user_id)
        self._admin.delete("exchanges", self._vhost, door_exchange(user_id))
        for kind in ("queues", "exchanges") if with_queues else ():
            for one in self._admin.get(kind, self._vhost) or ():
                if one["name"].startswith(own_queues(user_id)):
                    self._admin.delete(kind, self._vhost, one["name"])

    def broker_url(self, user_id: str, password: str, place: str | None = None) -> str:
        """What the user passes as his broker URL: ``place`` (another broker URL) with his account, else one of where
        the management says that the broker listens, with TLS where it offers that."""
        account = f"{user_id}:{quote(password, safe='')}"
        if place is not None:
            parts = urlsplit(place)
            return parts._replace(netloc=f"{account}@{parts.netloc.rpartition('@')[2]}").geturl()
        overview = self._admin.get("overview") or {}
        listening = {PLACES[one["protocol"]]: one["port"] for one in overview["listeners"] if one["protocol"] in PLACES}
        scheme = max(listening, default="amqp")
        host = f"[{self._admin.host}]" if ":" in self._admin.host else self._admin.host
        path = "" if self._vhost == "/" else quote(self._vhost, safe="")
        return f"{scheme}://{account}@{host}:{listening.get(scheme, 5672)}/{path}"

    def _set(self, user_id: str) -> str:
        allowed = permissions_of(user_id)
        password = secrets.token_urlsafe(PASSWORD_BYTES)
        for exchange, internal in ((ACCOUNTS, True), (door_exchange(user_id), False)):
            value = {"type": "direct", "durable": True, "internal": internal}
            self._admin.put("exchanges", self._vhost, exchange, value=value)
        self._admin.put("users", user_id, value={"password": password, "tags": ""})
        self._admin.put("permissions", self._vhost, user_id, value=allowed._asdict())
        return password

    def _check_there(self, user_id: str) -> None:
        if self._admin.get("users", check_user_id(user_id)) is None:
            raise AccountNotFoundError(
                f"User {user_id} has no account at {self._admin.url}.", hint="`coflows broker add-user` makes one."
            )
