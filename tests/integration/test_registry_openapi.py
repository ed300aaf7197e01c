"""Requests that are made up from the service's own description of itself find nothing that it did not foresee."""

from __future__ import annotations

import warnings

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.registry_world import Serve

EXAMPLES = 10


def test_made_up_requests_find_no_500(serve: Serve) -> None:
    url = serve({"flows": [{"name": "One", "tags": ["a"]}]}, timeout=1).url
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of the library's own, about hypothesis.
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        assert len(operations) >= 13
        for operation in operations:

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def try_out(case: schemathesis.Case) -> None:
                response = case.call()
                assert response.status_code < 500, (case, response.text)

            try_out()
