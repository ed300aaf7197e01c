"""The page of a service, in a real browser: search, tags, map, a flow's page; hostile texts stay texts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from coflows.registry import RunningService, start_service
from coflows.registry.site import wants_page
from tests.services import chromium
from tests.services.install import ServiceMissingError

HERE = "http://localhost:0"
TIMEOUT = 30
HTML = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
HOSTILE = """<img src=x onerror="window.hit=1"></script><script>window.hit=1</script>"'`${window.hit=1}"""
SCHEMA = {
    "type": "object",
    "properties": {"number": {"type": "integer", "description": HOSTILE}, "__proto__": {"type": ["x", "y"]}},
    "required": ["number"],
}
FLOWS = [
    {"endpoint": "reverse", "name": "Reverse", "description": "Turns numbers round.", "tags": ["math", 'quo"ted\\']},
    {"endpoint": "hostile", "name": HOSTILE, "description": HOSTILE, "author": HOSTILE, "tags": ["</a><b>"],
     "url": "https://example.org/?<script>", "input_schema": SCHEMA},
    *({"endpoint": f"flow_{number}", "name": f"Zflow {number:02}", "tags": ["many"]} for number in range(12)),
]  # fmt: skip


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningService, RunningService]]:
    """A registry, and a node that offers the flows there."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("COFLOWS_HOME", str(tmp_path_factory.mktemp("home")))
        registry = stack.enter_context(start_service(url=HERE, organization="Registry"))
        loader = {"organization": "Acme <b>", "flows": FLOWS}
        node = stack.enter_context(start_service(loader, url=HERE, connect=[registry.url], registry=False, feed=False))
        node.wait_idle(TIMEOUT)
        yield registry, node


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with ExitStack() as stack:
        try:
            running = stack.enter_context(chromium.browser())
        except ServiceMissingError as error:
            pytest.skip(f"no browser can be installed here: {error}")
        yield running


@pytest.fixture
def expected() -> list[str]:
    """What a test expects the browser to complain of."""
    return []


@pytest.fixture
def page(browser: Any, services: tuple[RunningService, RunningService], expected: list[str]) -> Iterator[Any]:
    """An empty tab; nothing but the services may be asked for, and nothing may go wrong in it."""
    origins = tuple(f"{one.url}/" for one in services)
    context = browser.new_context()
    context.set_default_timeout(TIMEOUT * 1000)
    page = context.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    yield page
    hit = page.evaluate("window.hit")
    context.close()
    assert hit is None
    assert not [url for url in asked if not url.startswith((*origins, "data:"))]
    assert not [one for one in wrong if not any(text in one for text in expected)]


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        (HTML["accept"], True),
        ("text/html", True),
        ("text/html;q=0.5, application/json;q=0.4", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("application/json, text/html;q=0.9", False),
        ("text/html;q=0", False),
        ("text/html;q=nan", False),
    ],
)
def test_who_gets_the_page(accept: str, page: bool) -> None:
    assert wants_page(accept) is page


def test_programs_get_json_and_browsers_the_page(services: tuple[RunningService, RunningService]) -> None:
    registry, _ = services
    flow = httpx.get(f"{registry.url}/flows?q=flow_endpoint=hostile").json()["items"][0]["id"]
    for path in ("/", f"/flows/{flow}"):
        plain, shown = httpx.get(registry.url + path), httpx.get(registry.url + path, headers=HTML)
        for answer, kind in ((plain, "application/json"), (shown, "text/html")):
            assert answer.headers["content-type"].startswith(kind) and answer.headers["vary"].lower() == "accept"
        policy = shown.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and HOSTILE not in shown.text
    assert httpx.get(f"{registry.url}/flows", headers=HTML).json()["total"] == len(FLOWS)
    assert httpx.get(f"{registry.url}/site/../web.py").status_code == 404


@pytest.mark.browser
def test_search(page: Any, services: tuple[RunningService, RunningService], expected: list[str]) -> None:
    page.goto(f"{services[0].url}/")
    page.get_by_text("1 to 10 of 14").wait_for()
    page.get_by_role("button", name="Next").click()
    page.get_by_text("11 to 14 of 14").wait_for()
    page.get_by_role("list", name="Tags").get_by_role("link", name='quo"ted\\').click()
    page.get_by_text("1 to 1 of 1 (14 in all)").wait_for()
    page.get_by_role("list", name="Organizations").get_by_role("link", name="Acme <b>").click()
    page.get_by_text("1 to 10 of 14").wait_for()
    page.get_by_role("searchbox").fill('name ~ "zflow" and not name ~ "00"')
    page.get_by_role("searchbox").press("Enter")
    page.get_by_text("1 to 10 of 11 (14 in all)").wait_for()
    page.get_by_label("Order").select_option("name:d")
    page.get_by_role("link", name="Zflow 11").wait_for()
    expected.append("status of 400")
    page.get_by_role("searchbox").fill("name ~")
    page.get_by_role("button", name="Search").click()
    assert "end" in page.get_by_role("alert").inner_text()
    page.go_back()
    page.get_by_role("link", name="Zflow 11").wait_for()


@pytest.mark.browser
def test_a_flow_and_its_hostile_texts(page: Any, services: tuple[RunningService, RunningService]) -> None:
    registry, node = services
    page.goto(f"{registry.url}/#/?q=onerror")
    page.get_by_role("link", name=HOSTILE).click()
    page.get_by_role("heading", name=HOSTILE).wait_for()
    text = page.locator("main").inner_text()
    assert text.count(HOSTILE) >= 4 and "Acme <b>" in text and node.user_id in text
    assert page.locator("#fetch").inner_text() == f'get_flow_instance(cl, "hostile", user_id="{node.user_id}")'
    row = page.get_by_role("row", name="number integer yes")
    assert HOSTILE in row.inner_text() and page.get_by_role("row", name="__proto__ x or y").count() == 1
    assert page.locator("main script, main img, main b").count() == 0
    assert page.locator('a[href^="javascript"]').count() == 0

    # The item's own URL is a page too, and leads back.
    flow = page.url.rpartition("/")[2]
    page.goto(f"{node.url}/flows/{flow}")
    page.get_by_role("heading", name=HOSTILE).wait_for()
    page.get_by_role("link", name="Flows").click()
    page.get_by_text("1 to 10 of 14").wait_for()


@pytest.mark.browser
def test_markup_that_gets_in_all_the_same_does_nothing(
    page: Any, services: tuple[RunningService, RunningService], expected: list[str]
) -> None:
    """Were a text taken for markup after all, the page's policy would refuse it."""
    page.goto(f"{services[0].url}/")
    page.get_by_text("1 to 10 of 14").wait_for()
    expected.append("TrustedHTML")
    refused = page.evaluate(
        "text => { try { document.body.innerHTML = text; return 'taken'; } catch (error) { return error.name; } }",
        HOSTILE,
    )
    assert refused == "TypeError"


@pytest.mark.browser
def test_the_map(page: Any, services: tuple[RunningService, RunningService]) -> None:
    registry, node = services
    page.goto(f"{registry.url}/")
    page.get_by_role("link", name="Map").click()
    page.get_by_role("img", name="2 nodes and 1 connections").wait_for()
    assert page.locator("svg circle").count() == 2 and page.locator("svg line").count() == 1
    assert sorted(page.locator("svg text").all_text_contents()) == ["Acme <b> (14)", "Registry (0)"]
    row = page.get_by_role("row", name=f"Acme <b> node online 14 {node.url}")
    assert registry.url in row.inner_text()
    row.get_by_role("link", name="14", exact=True).click()
    page.get_by_text("1 to 10 of 14").wait_for()
