"""Results of managed flows: in memory, in a directory, or in a store such as an SQLite file."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from urllib.parse import quote

from coflows.codec.state import decode_state, encode_state
from coflows.errors import StoreUnavailableError
from coflows.execution.flow_status import FlowResult
from coflows.store import Store, open_store

LONGEST_NAME = 200


class ResultsManager:
    """Keeps the last result of each flow. ``where``: None for memory, a directory, or a URL such as
    ``sqlite:///results.db``. What is in a directory or store is there for the next one who opens it, and is unpickled:
    use a place of your own. Thread-safe. Raises StoreError, and SerializationError for an output that cannot be kept.
    """

    def __init__(self, where: Path | str | None = None) -> None:
        self._memory: dict[str, FlowResult] = {}
        self._shelf: _Shelf | None = None
        if where is not None:
            self._shelf = _Rows(str(where)) if "://" in str(where) else _Files(Path(where))

    @property
    def durable(self) -> bool:
        """Whether results outlive the process."""
        return self._shelf is not None

    async def save_result(self, process_id: str, result: FlowResult) -> None:
        """Keep a result, in place of one before."""
        if self._shelf is None:
            self.save(process_id, result)
        else:
            await asyncio.to_thread(self.save, process_id, result)

    async def get_result(self, process_id: str) -> FlowResult | None:
        """The result, None when there is none."""
        return self.load(process_id) if self._shelf is None else await asyncio.to_thread(self.load, process_id)

    def save(self, process_id: str, result: FlowResult) -> None:
        """``save_result`` for threads."""
        if self._shelf is None:
            self._memory[process_id] = result
        else:
            self._shelf.put(_file_name(process_id), encode_state(result.to_dict()))

    def load(self, process_id: str) -> FlowResult | None:
        """``get_result`` for threads."""
        if self._shelf is None:
            return self._memory.get(process_id)
        data = self._shelf.get(_file_name(process_id))
        return None if data is None else FlowResult.from_dict(decode_state(data))

    def cleanup(self) -> None:
        """Forget what is in memory, and close what is open; what is in a directory or store stays there."""
        self._memory.clear()
        if self._shelf is not None:
            self._shelf.close()


def _file_name(process_id: str) -> str:
    name = quote(process_id, safe="").replace(".", "%2E")
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:100]}~{hashlib.blake2b(process_id.encode(), digest_size=16).hexdigest()}"


class _Shelf(ABC):
    """Bytes by name, durable when ``put`` returns."""

    @abstractmethod
    def put(self, name: str, data: bytes) -> None: ...

    @abstractmethod
    def get(self, name: str) -> bytes | None: ...

    @abstractmethod
    def close(self) -> None: ...


class _Files(_Shelf):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, data: bytes) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._folder, prefix=".new")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(descriptor)
                Path(temporary).replace(self._folder / name)
            except BaseException:
                Path(temporary).unlink()
                raise
        except OSError as error:
            raise self._unavailable(error) from error

    def get(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        pass

    def _unavailable(self, error: OSError) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"Results cannot be kept in {self._folder}: {error.strerror}.", hint="Check its permissions and its disk."
        )


class _Rows(_Shelf):
    """Opened when it is first used, and again after it was closed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._store: Store | None = None
        self._lock = threading.Lock()

    def put(self, name: str, data: bytes) -> None:
        self._opened().commit({f"results:{name}": data})

    def get(self, name: str) -> bytes | None:
        entry = self._opened().get(f"results:{name}")
        return None if entry is None else entry.value

    def close(self) -> None:
        with self._lock:
            store, self._store = self._store, None
        if store is not None:
            store.close()

    def _opened(self) -> Store:
        with self._lock:
            if self._store is None:
                self._store = open_store(self._url, namespace="results")
            return self._store
