"""Coordinators and executors that are killed all the time: a workflow of 500 steps ends as if they were not."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from coflows import connect
from coflows.broker.topology import dispatch_queues
from coflows.identity.home import Home
from coflows.workflow import Colonies, ProcessGraph, Workflow, func_spec
from coflows.workflow.colonies.places import PARTITIONS, colony_endpoint, executor_place
from tests.waiting import until

ROOT = Path(__file__).parents[2]
COLONY, KIND = "test", "note-taker"
KILLS = int(os.environ.get("COFLOWS_TEST_KILLS", "6"))
STEPS = 500
LAYERS = 10
TIMEOUT = 60 + 20 * KILLS
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(home: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setenv("COFLOWS_BROKER_URL", broker_url)
    monkeypatch.setenv("COFLOWS_MAX_ATTEMPTS", "1000")  # It is not the steps that kill their executors.
    with ExitStack() as exit_stack:

        def start(*options: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "workers.executor", "--user", "owner", "--colony", COLONY, *options]
            process = subprocess.Popen(command, env=os.environ, cwd=ROOT, stdout=subprocess.DEVNULL)
            exit_stack.callback(process.wait)
            exit_stack.callback(process.kill)
            return process

        yield start


def graph_of(folder: Path) -> Workflow:
    """Layers of steps, each of which needs two of the layer before; then one that counts."""
    workflow = Workflow(COLONY)
    width = (STEPS - 1) // LAYERS
    names: list[str] = []
    for layer in range(LAYERS):
        wide = width + ((STEPS - 1) % LAYERS if layer == LAYERS - 1 else 0)
        for place in range(wide):
            spec = func_spec("note", [str(folder)], executortype=KIND, nodename=f"n{layer}-{place}")
            if layer:
                spec.conditions.dependencies += [f"n{layer - 1}-{place % width}", f"n{layer - 1}-{(place + 1) % width}"]
            names.append(spec.nodename)
            workflow.functionspecs.append(spec)
    count = func_spec("count", executortype=KIND, maxretries=3)
    count.conditions.dependencies += names
    workflow.functionspecs.append(count)
    return workflow


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT + 120)
def test_nothing_is_lost_when_everybody_is_killed(start: Start, home: Path, tmp_path: Path) -> None:
    Home(home).create_user("owner")
    folder = tmp_path / "effects"
    folder.mkdir()
    chance = random.Random(KILLS)
    options = [(), (), *[("--type", KIND, "--functions", "tests.colony_functions", "--no-coordinate")] * 2]
    with connect("owner") as owner:
        client = Colonies(owner, coordinate=False)
        client.add_colony(COLONY)
        running = [start(*one) for one in options]
        graph = client.submit_workflow(graph_of(folder))
        killed = 0

        def kill(now: ProcessGraph) -> None:
            # Spread over the run, by how far it is.
            nonlocal killed
            while killed < KILLS and now.done >= (killed + 1) * STEPS // (KILLS + 1):
                victim = chance.randrange(len(running))
                running[victim].kill()
                running[victim].wait()
                running[victim] = start(*options[victim])
                killed += 1

        end = client.wait(graph, TIMEOUT, progress=kill)
        assert (end.state, killed) == ("SUCCESS", KILLS), end.reason
        last = client.find_process("count", end.processids)
        assert last.output == STEPS - 1
        effects = sorted(path.name for path in folder.iterdir())
        for processid in end.processids[:-1]:
            process = client.get_process(processid)
            mark = processid.replace("/", " ")
            expected = [f"{mark} {attempt}" for attempt in range(1, process.attempt + 1)]
            done = [name for name in effects if name.startswith(f"{mark} ")]
            assert done and set(done) <= set(expected) and expected[-1] in done, "the one that counted has its effect"
        client.remove(graph.processgraphid)
        run = graph.processgraphid.split("/")[1]
        kept = "steps that executors remember"
        until(owner.store, "done:", lambda: not [key for key in owner.read_keys() if run in key], kept)
        # The colony itself remembers who came and went, for as long as that might be told again.
        endpoint, point = executor_place(owner.user_id, COLONY, KIND)
        (executors,) = {key.split(":")[4] for key in owner.read_keys(f"flows:{endpoint}:mounts:")}
        until(owner.store, "done:", lambda: not owner.read_keys(f"done:{executors}:"), kept)
        assert len(owner.read_keys("done:")) <= 6 + KILLS, "of each that came, what it told on coming"
        for process in reversed(running):  # Executors take their leave while somebody listens.
            process.terminate()
            process.wait()
        for queue in (
            *dispatch_queues(owner.user_id, point, 1),
            *dispatch_queues(owner.user_id, f"{point}.control", 1),
            *dispatch_queues(owner.user_id, colony_endpoint(COLONY), PARTITIONS),
        ):
            while (left := owner.broker.get(queue.name)) is not None:
                asked = [
                    owner.session.read(opened.sender, item).value["data"]["ask"]
                    for opened in [owner.session.open(left.body)]
                    for item in opened.items
                ]
                left.ack()
                assert set(asked) <= {"sweep"}, f"{queue.name} holds a message"  # The colony's own clock goes on.
