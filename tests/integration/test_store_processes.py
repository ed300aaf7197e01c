"""One SQLite file in several processes: none takes it away from another."""

import subprocess
import sys
from pathlib import Path

from coflows.store import open_store

OTHER = """
import sys
from coflows.store import open_store
with open_store(sys.argv[1], namespace="mine") as store:
    entry = store.get("after")
    print(None if entry is None else entry.value.decode())
"""


def read_elsewhere(url: str) -> str:
    command = [sys.executable, "-c", OTHER, url]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_what_is_committed_after_another_process_closed_the_file_is_not_lost(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    with open_store(url, namespace="mine") as mine, open_store(url, namespace="other") as other:
        other.commit({"a": b"1"})
        assert read_elsewhere(url) == "None"
        mine.commit({"after": b"kept"})
        assert read_elsewhere(url) == "kept"
