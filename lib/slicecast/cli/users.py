"""Say who may use a server that is open to the network.

A server with users asks everybody for a name and token. A change counts at once, the first user after a restart.
"""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from slicecast.config import users_file
from slicecast.server.security.users import Role, Users

app = typer.Typer(no_args_is_help=True, help="Say who may use a server that is open to the network.")

Name = Annotated[str, typer.Argument(help="Letters, digits and . _ - @.")]
RoleName = Annotated[str, typer.Option("--role", help=f"{', '.join(Role.__members__)}; each may do more.")]
Days = Annotated[int | None, typer.Option("--days", min=1, help="How long the token counts; for ever by default.")]


@app.command("add")
def add_user(name: Name, role: RoleName = Role.annotator.name, days: Days = None) -> None:
    """Add a user and print their token, once.

    \b
    Example: slicecast users add dr.lee --role reviewer --days 90
    """
    token = Users(users_file()).add(name, role=role, days=days)
    typer.echo(f"{name} ({role}) logs in with this token as password; it cannot be shown again:", err=True)
    typer.echo(token)


@app.command("list")
def list_users() -> None:
    """List users and roles; tokens are not kept, only their hashes.

    \b
    Example: slicecast users list
    """
    users = Users(users_file()).all().values()
    if not users:
        typer.echo("No users. Add one with: slicecast users add NAME --role admin")
        return
    table = Table("name", "role", "added", "expires")
    for user in users:
        table.add_row(user.name, user.role, user.created[:10], (user.expires or "never")[:10])
    Console().print(table)


@app.command("remove")
def remove_user(name: Name) -> None:
    """Remove a user; their logins end at once.

    \b
    Example: slicecast users remove dr.lee
    """
    Users(users_file()).remove(name)
    typer.echo(f"{name} is removed.")
