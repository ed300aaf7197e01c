"""The main job: user 1's flow is fetched with two subflows that live at user 0."""

from __future__ import annotations

from rich.console import Console

from coflows import start_users
from coflows.inspection import print_flow_instances, print_served_flows
from coflows.serving import get_flow_instance, serve_flow
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 30.0


def main(broker_url: str | None = None, store_url: str | None = None) -> None:
    """Run it with two throw-away users; raises when an answer is not what it should be."""
    console = Console()
    users = start_users(2, broker_url, store_url)
    try:
        for number, cl in enumerate(users):
            run_dispatch_worker_thread(cl)
            run_get_instance_worker_thread(cl)
            console.print(f"User {number}: {cl.get_user_id()}")
        server, client = users
        serve_flow(
            server,
            flow_class_name="ReverseNumberFlowModule.ReverseNumberAtomicFlow",
            flow_endpoint="reverse_number_atomic",
            singleton=True,
        )
        serve_flow(
            client,
            flow_class_name="ReverseNumberFlowModule.ReverseNumberSequentialFlow",
            flow_endpoint="reverse_number_sequential",
        )
        at_server = {"user_id": server.get_user_id()}
        flow = get_flow_instance(
            client,
            flow_endpoint="reverse_number_sequential",
            config_overrides={"subflows_config": {"first_reverse_flow": at_server, "second_reverse_flow": at_server}},
        )
        data = {"id": 0, "number": 1234}
        twice = flow.get_reply_future(flow.package_input_message(data)).get_data(timeout=TIMEOUT)
        console.print("Reversed twice, by way of user 0:", twice)
        remote = get_flow_instance(client, flow_endpoint="reverse_number_atomic", user_id=server.get_user_id())
        once = remote.ask(data, timeout=TIMEOUT)
        console.print("Reversed once, at user 0:", once)
        for number, cl in enumerate(users):
            console.rule(f"Store of user {number}")
            print_served_flows(cl)
            print_flow_instances(cl)
        if (twice, once) != ({"output_number": 1234}, {"output_number": 4321}):
            raise RuntimeError(f"Unexpected answers: {twice}, {once}")
    finally:
        for cl in reversed(users):
            cl.close()


if __name__ == "__main__":
    main()
