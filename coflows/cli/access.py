"""``coflows access``, ``group``, ``grant``, ``grants`` and ``revoke``: who may fetch what."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from coflows.cli.context import Options, counted

if TYPE_CHECKING:
    from coflows.access.rules import Access
    from coflows.granting import Issued

RULE = "everybody, grant (nobody but who has one), group:NAME, or user ids (or names of users here) with commas."
DAY = 86400.0


def add_to(app: typer.Typer) -> None:
    """Add the commands and the group."""
    app.command()(access)
    app.command()(grant)
    app.command()(grants)
    app.command()(revoke)
    group = typer.Typer(help="Groups of users, for access rules.", no_args_is_help=True)
    app.add_typer(group, name="group")
    group.command("list")(list_groups)
    group.command("add")(add_members)
    group.command("remove")(remove_members)
    group.command("delete")(delete_group)


def rule_of(options: Options, text: str, roots: bool = False) -> Access:
    """The rule that is written so."""
    from dataclasses import replace

    from coflows.access.rules import Access

    if text in ("everybody", "grant") or text.startswith("group:"):
        rule = Access.of(text)
    else:
        rule = Access.of([options.user_id(one) for one in text.split(",")])
    return replace(rule, roots=roots)


def access(
    ctx: typer.Context,
    endpoint: str,
    rule: str = typer.Argument(None, help=RULE),
    roots: bool = typer.Option(False, help="Let in only calls whose root caller may come in too."),
) -> None:
    """Show or change who may fetch an endpoint.

    A change acts within 5 seconds.
    """
    from coflows.policies import get_flow_access, get_groups, set_flow_access

    options: Options = ctx.obj
    with options.client() as cl:
        if rule is None:
            found = get_flow_access(cl, endpoint)
        else:
            found = set_flow_access(cl, endpoint, rule_of(options, rule, roots))
        members = None if found.group is None else get_groups(cl).get(found.group)
    text = "\n".join((f"{endpoint}: {found}", *(members or sorted(found.users))))
    if found.group is not None and not members:
        text += f"\nNobody is in it: `coflows group add {found.group} USER`."
    options.show({"endpoint": endpoint, **found.to_dict()}, text)


# -- grants ----------------------------------------------------------------------------------------------------


def grant(
    ctx: typer.Context,
    holder: str = typer.Argument(..., help="Who may use it: his id, or his name if his keys are here."),
    endpoint: str = typer.Argument(None, help="One of your endpoints; left out with --narrow."),
    days: float = typer.Option(None, help="How long it is good for; 30 unless you say."),
    calls: int = typer.Option(None, help="How many messages, together."),
    instances: int = typer.Option(None, help="How many instances, together."),
    size: int = typer.Option(None, "--bytes", help="How many bytes of messages, together."),
    token: str = typer.Option(None, "--narrow", help="A grant that you hold: hand it on, or less of it."),
) -> None:
    """Print a token that lets one user fetch an endpoint."""
    from coflows.errors import ConfigurationError
    from coflows.granting import LIFETIME, grant_flow, narrow_grant

    options: Options = ctx.obj
    if (endpoint is None) == (token is None):
        raise ConfigurationError(
            "A grant is for an endpoint of yours, or part of one that you hold.",
            hint="Give ENDPOINT or --narrow GRANT.",
        )
    lifetime = None if days is None else days * DAY
    with options.client() as cl:
        user_id = options.user_id(holder)
        if token is not None:
            made = narrow_grant(cl, token, user_id, lifetime=lifetime, calls=calls, instances=instances, bytes=size)
        else:
            seconds = LIFETIME if lifetime is None else lifetime
            made = grant_flow(cl, user_id, endpoint, lifetime=seconds, calls=calls, instances=instances, bytes=size)
    options.show({"grant": made, "holder": user_id}, made)


def grants(ctx: typer.Context) -> None:
    """List your grants, and what was spent of them."""
    from coflows.granting import list_grants

    options: Options = ctx.obj
    with options.client() as cl:
        found = list_grants(cl)
    options.show([_row(one) for one in found], "\n".join(map(_line, found)) or "There are no grants.")


def revoke(
    ctx: typer.Context, grant: str = typer.Argument(..., help="A grant, or its id as `grants` lists it.")
) -> None:
    """Take a grant back, and all that was made of it.

    Acts within 5 seconds.
    """
    from coflows.granting import revoke_grant

    options: Options = ctx.obj
    with options.client() as cl:
        block = revoke_grant(cl, grant)
    options.show({"revoked": block}, f"Taken back: {block}.")


def _row(one: Issued) -> dict[str, Any]:
    return {
        "id": one.id,
        "holder": one.holder,
        "endpoint": one.endpoint,
        "at": one.at,
        "expires": one.expires,
        "limits": one.limits._asdict(),
        "spent": one.spent._asdict(),
        "revoked": one.revoked,
    }


def _line(one: Issued) -> str:
    used = [
        f"{amount} of {limit} {name}"
        for name, limit, amount in zip(one.limits._fields, one.limits, one.spent, strict=True)
        if limit is not None
    ]
    state = "taken back" if one.revoked else time.strftime("until %F %T", time.localtime(one.expires))
    return f"{one.id}  {one.endpoint:<20} {one.holder}  {state}  {', '.join(used)}".rstrip()


# -- groups ----------------------------------------------------------------------------------------------------


def list_groups(ctx: typer.Context) -> None:
    """List the groups and who is in them."""
    from coflows.policies import get_groups

    options: Options = ctx.obj
    with options.client() as cl:
        found = get_groups(cl)
    lines = [line for name, members in found.items() for line in (name, *(f"  {one}" for one in members))]
    options.show(found, "\n".join(lines) or "There are no groups.")


def add_members(ctx: typer.Context, group: str, users: list[str]) -> None:
    """Add users to a group, making it if need be.

    Users are ids, or names of users here. Acts within 5 seconds.
    """
    _change(ctx.obj, group, users, [])


def remove_members(ctx: typer.Context, group: str, users: list[str]) -> None:
    """Take users out of a group; acts within 5 seconds."""
    _change(ctx.obj, group, [], users)


def _change(options: Options, group: str, add: list[str], remove: list[str]) -> None:
    from coflows.policies import change_group

    with options.client() as cl:
        members = change_group(cl, group, map(options.user_id, add), map(options.user_id, remove))
    options.show(
        {"group": group, "members": members}, "\n".join((f"{group}: {counted(len(members), 'user')}", *members))
    )


def delete_group(ctx: typer.Context, group: str) -> None:
    """Delete a group: rules that name it let nobody in."""
    from coflows.policies import delete_group

    options: Options = ctx.obj
    with options.client() as cl:
        was = delete_group(cl, group)
    options.show({"deleted": group, "was_there": was}, "Done." if was else f"There is no group {group}.")
