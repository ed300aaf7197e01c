"""Which RabbitMQ and as whom, read from a URL, and what its refusals mean in our words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pika
import pika.exceptions

from coflows.broker.rabbitmq_tls import split_tls, tls_problem
from coflows.errors import (
    BrokerAuthError,
    BrokerError,
    BrokerUnavailableError,
    ConfigurationError,
    NameInvalidError,
    QueueMismatchError,
    UnroutableError,
)
from coflows.model.names import check_user_id

HEARTBEAT = 30
"""Seconds; a peer that is silent for twice as long is taken to be gone."""


@dataclass(frozen=True)
class RabbitServer:
    """A server and an account on it. ``url`` is without the password."""

    url: str
    user: str
    vhost: str
    parameters: pika.URLParameters

    @classmethod
    def from_url(cls, url: str) -> RabbitServer:
        """Read ``amqp://user:password@host:port/vhost`` or ``amqps://``. Raises ConfigurationError."""
        try:
            plain, tls = split_tls(url)
            parameters = pika.URLParameters(plain)
        except ConfigurationError:
            raise
        except Exception:
            # The parser's own error quotes pieces of the URL, so of the password; it is not chained.
            raise ConfigurationError(
                "The broker URL cannot be read.",
                hint="Write amqp://user:password@host:5672/vhost, with %-escapes for special characters.",
            ) from None
        if parameters.heartbeat is None:
            parameters.heartbeat = HEARTBEAT
        if tls is not None:
            parameters.ssl_options = tls
        parameters.connection_attempts = 1
        scheme = "amqp" if parameters.ssl_options is None else "amqps"
        user = str(getattr(parameters.credentials, "username", ""))
        host = f"[{parameters.host}]" if ":" in parameters.host else parameters.host
        vhost = parameters.virtual_host
        path = "" if vhost == "/" else quote(vhost, safe="")
        return cls(f"{scheme}://{quote(user)}@{host}:{parameters.port}/{path}", user, vhost, parameters)

    def connection_error(self, error: BaseException) -> BrokerError:
        """Why there is no connection: the account is refused, or nothing answers."""
        problem: BrokerError | None = tls_problem(self.url, repr(error))
        # Only a refusal in words is one: a node that goes down in the middle of the greeting looks like it to pika.
        if problem is not None:
            pass
        elif "ACCESS_REFUSED" in repr(error):
            problem = BrokerAuthError(
                f"RabbitMQ at {self.url} refuses user {self.user!r}.",
                hint=f"Check user name and password in the broker URL; {self._new_password()}. "
                "(RabbitMQ lets guest in from its own machine only.)",
            )
        elif "NOT_ALLOWED" in repr(error):
            problem = BrokerAuthError(
                f"RabbitMQ at {self.url} has no vhost {self.vhost!r} for user {self.user!r}.",
                hint=f"`rabbitmqctl add_vhost` makes one; `rabbitmqctl set_permissions -p {self.vhost} {self.user} "
                "'.*' '.*' '.*'` lets the user in.",
            )
        else:
            problem = BrokerUnavailableError(
                f"Nothing answers at {self.url} ({_short(error)}).",
                hint="Start RabbitMQ there, or use embedded:// which needs nothing installed.",
            )
        problem.__cause__ = error
        return problem

    def channel_error(self, reason: BaseException, queue: str) -> BrokerError:
        """Why the server closed a channel on which something was asked of ``queue``."""
        code, text = getattr(reason, "reply_code", 0), getattr(reason, "reply_text", str(reason))
        problem: BrokerError
        if code == 404:
            problem = self.unroutable(queue)
        elif code == 406:
            problem = QueueMismatchError(
                f"Queue {queue} exists at {self.url} with other properties: {text}.",
                hint=f"Delete it (`rabbitmqctl delete_queue {queue}`), or use another dispatch point or vhost.",
            )
        elif code == 403:
            problem = BrokerAuthError(
                f"RabbitMQ at {self.url} does not let user {self.user!r} use queue {queue}: {text}.",
                hint=self._more_permissions(),
            )
        else:
            problem = BrokerError(f"RabbitMQ at {self.url} would not work on queue {queue}: {text}.")
        problem.__cause__ = reason
        return problem

    def _new_password(self) -> str:
        if _is_user_id(self.user):
            return "`coflows broker rotate` gives the user's account a new one"
        return f"`rabbitmqctl change_password {self.user} ...` sets a new one"

    def _more_permissions(self) -> str:
        if _is_user_id(self.user):
            return "The account in the broker URL is for that user alone; `coflows broker add-user` gives each his own."
        return f"`rabbitmqctl set_permissions -p {self.vhost} {self.user} ...` gives an account permissions."

    def unroutable(self, queue: str) -> UnroutableError:
        """There is no such queue."""
        return UnroutableError(f"There is no queue {queue} at {self.url}.")

    def closed(self) -> BrokerUnavailableError:
        """The broker object was closed."""
        return BrokerUnavailableError(f"The broker object of {self.url} is closed.", hint="Connect again.")

    def silent(self, seconds: float, problem: BrokerError | None) -> BrokerError:
        """No answer in time; ``problem`` is why there is no connection, when there is none."""
        if problem is not None:
            return problem
        return BrokerUnavailableError(
            f"{self.url} did not answer within {seconds:.0f} s.", hint="Is it overloaded? See `rabbitmqctl status`."
        )


def _is_user_id(name: str) -> bool:
    try:
        check_user_id(name)
    except NameInvalidError:
        return False
    return True


def _wrapped(error: Any) -> Any:
    several = getattr(error, "exceptions", None)
    return several[-1] if several else getattr(error, "exception", None) or next(iter(getattr(error, "args", ())), None)


def _short(error: Any) -> str:
    # pika wraps what went wrong in what it was doing.
    while inner := _wrapped(error):
        if not isinstance(inner, BaseException):
            break
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or repr(error))[:200]
