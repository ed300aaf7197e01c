"""The command that asks registries who serves what."""

from __future__ import annotations

import sys
from typing import Any

import typer

from coflows.cli.context import Options, counted
from coflows.shown import printable

REGISTRY = typer.Option(None, "--registry", help="URL of a registry to ask (or COFLOWS_REGISTRIES); can be repeated.")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(find)


def find(
    ctx: typer.Context,
    query: list[str] = typer.Argument(None, help="""Words, or a query: 'name ~ "rev" and @tag("math")'."""),
    registry: list[str] = REGISTRY,
    by: str = typer.Option("", help="The order: name:d,author"),
    page: int = typer.Option(0, min=0, help="Which page, from 0, of each registry."),
    per_page: int = typer.Option(10, min=1, max=1000, help="How many flows of each registry are on a page."),
    timeout: float = typer.Option(10.0, help="Seconds to wait for a registry."),
) -> None:
    """List who serves what, as registries know it.

    Each flow is checked to be signed by its user.
    """
    from coflows.registry.lookup import ask_all, proven_page

    options: Options = ctx.obj
    urls = list(dict.fromkeys(registry or options.settings.registries))
    text = " ".join(query or ())
    answers = ask_all(urls, lambda one: proven_page(one, text, by, per_page, page, timeout), timeout)
    items: dict[str, dict[str, Any]] = {}
    for url, given in answers.given.items():
        for item in given.items:
            items.setdefault(item["id"], {**item, "registries": []})["registries"].append(url)
    registries = [
        {"url": url, "total": one.total, "filtered": one.filtered, "left_out": one.doubts}
        for url, one in answers.given.items()
    ]
    said = {"registries": registries, "silent": answers.silent, "p": page, "pp": per_page, "items": [*items.values()]}
    if not options.json:
        for line in (*answers.silent, *(f"Left out: {text}" for one in registries for text in one["left_out"])):
            print(f"coflows: {printable(line)}", file=sys.stderr)
    options.show(said, "\n".join(_lines(said)))


def _lines(said: dict[str, Any]) -> list[str]:
    rows: list[tuple[str, ...]] = [("ENDPOINT", "NAME", "ORGANIZATION", "STATUS", "USER", "BROKER")]
    for item in said["items"]:
        endpoint, broker = item["flow_endpoint"] or "(only described)", item["broker"] or ""
        shown = (endpoint, item["name"], item["organization"], item["status"], item["user_id"], broker)
        rows.append(tuple(printable(one.replace("\n", " "))[:52] for one in shown))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(one.ljust(width) for one, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for one in said["registries"]:
        pages = -(-one["filtered"] // said["pp"])
        where = f", page {said['p']} of 0 to {pages - 1}" if pages > 1 else ""
        lines.append(f"{one['url']}: {one['filtered']} of {counted(one['total'], 'flow')}{where}")
    return lines if said["items"] else lines[1:]
