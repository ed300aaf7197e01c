"""How quickly a registry of many flows answers: pages in any order, and searches that nobody made before."""

from __future__ import annotations

import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.processes import cpu_seconds
from benchmarks.report import Figure
from coflows.identity.keys import Identity
from coflows.registry.database import Database
from coflows.registry.entry import FlowEntry, digest_of
from coflows.registry.judging import Times
from coflows.registry.nodes import Claim, Nodes
from coflows.registry.order import FIELDS
from coflows.registry.record import Beat, Record

FLOWS = 100_000
QUICK_FLOWS = 500
FLOWS_PER_NODE = 500
REQUESTS = 1000
BROAD = (
    'not organization = "Organization 3"',
    'status != "gone"',
    'author < "author 3"',
    'organization > "organization 6"',
)
"""What many flows are found by, of which pages deep down are asked for as well."""

ASKED = "p99 < 50 ms"


def figures(quick: bool) -> list[Figure]:
    """The 99th percentile of each kind of request, one at a time, over HTTP."""
    flows, requests = (QUICK_FLOWS, 50) if quick else (FLOWS, REQUESTS)
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 9))) for _ in range(5000)]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        _fill(Path(folder) / "cache", flows, words, chance)
        taken = time.perf_counter() - begin
        found.append(Figure(f"registry: {flows:,} flows taken in", taken, "s"))
        with _registry(folder) as (url, process), httpx.Client(base_url=url, timeout=60) as http:
            for name, (path, share, asked) in _kinds(flows, words, chance).items():
                before = cpu_seconds([process])
                number = requests // share
                times = sorted(_seconds(http, path()) for _ in range(number))
                used = (cpu_seconds([process]) - before) / number
                p50, p99 = statistics.median(times), times[int(len(times) * 0.99)]
                what = f"registry: {name} of {flows:,} flows, p99 (p50 {p50 * 1e3:.1f})"
                found.append(Figure(what, p99 * 1e3, "ms", asked=asked))
                found.append(Figure(f"registry: {name} of {flows:,} flows, mean of processor time", used * 1e3, "ms"))
    return found


def _kinds(flows: int, words: list[str], chance: random.Random) -> dict[str, tuple[Callable[[], str], int, str]]:
    """What is asked, to how many of the requests, and how quick it has to be."""

    def order() -> str:
        fields = chance.sample(FIELDS, chance.randint(1, 3))
        return ",".join(field + chance.choice(("", ":d")) for field in fields)

    def page() -> str:
        return f"/flows?by={order()}&p={chance.randrange(flows // 10)}"

    def deep() -> str:
        query = {"q": chance.choice(BROAD), "by": order(), "p": chance.randrange(flows // 40)}
        return str(httpx.URL("/flows", params=query))

    def search() -> str:
        one, other = chance.choices(words, k=2)
        author = chance.randrange(500)
        queries = (
            *(one, one[:3], f"{one} {other}", f'name ~ "{one[1:4]}"', f'description ~ "{one}"', f'@tag("{one}")'),
            *(f'{one} and not author ~ "{author}"', f'name ~ "{one}" or author = "author {author}"'),
        )
        query = chance.choice(queries)
        return str(httpx.URL("/flows", params={"q": query, "by": order()}))

    return {
        "a page in any order": (page, 1, ASKED),
        "a search": (search, 1, ASKED),
        "a page deep in a broad search": (deep, 5, ""),
    }


def _seconds(http: httpx.Client, path: str) -> float:
    begin = time.perf_counter()
    http.get(path).raise_for_status()
    return time.perf_counter() - begin


def _fill(cache: Path, flows: int, words: list[str], chance: random.Random) -> None:
    """As if nodes had been connected."""
    db = Database(cache)
    nodes, user = Nodes(db, Times(30, 86400)), Identity.generate()
    for number in range(flows // FLOWS_PER_NODE):
        texts = dict(_entry(key, words, chance) for key in range(FLOWS_PER_NODE))
        url = f"http://node{number}.example"
        record = Record(
            user_id=user.user_id,
            url=url,
            sequence=1,
            organization=f"Organization {number % 20}",
            registry=False,
            feed=False,
            flows=sorted(texts),
        )
        beat = Beat(user_id=user.user_id, url=url, beat=int(time.time() * 1000))
        with db.write() as writing:
            nodes.keep_entries(writing, texts, time.time())
            nodes.take_record(writing, Claim(record, record.sign(user), beat, beat.sign(user), time.time(), url))
    db.close()


def _entry(key: int, words: list[str], chance: random.Random) -> tuple[str, str]:
    text = FlowEntry(
        key=str(key),
        name=" ".join(chance.choices(words, k=3)),
        description=" ".join(chance.choices(words, k=15)),
        author=f"Author {chance.randrange(500)}",
        tags=chance.sample(words[:200], 3),
        flow_endpoint=f"flow{key}",
    ).text()
    return digest_of(text), text


@contextmanager
def _registry(folder: str) -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://localhost:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "coflows.cli", "registry", "run", "--url", url, "--cache-data", f"{folder}/cache"]
    environment = {**os.environ, "COFLOWS_HOME": folder}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                httpx.get(f"{url}/health")
                break
            except httpx.TransportError:
                time.sleep(0.05)
                if process.poll() is not None:
                    raise RuntimeError(f"the registry ended with {process.returncode}") from None
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()
