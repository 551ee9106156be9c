"""`packager api`: the service, and the tokens of its callers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from packager.cli.options import LogOptions, Verbose, with_options

api = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)


@api.callback(invoke_without_command=True)
@with_options
def _serve(
    context: typer.Context,
    *,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", help="Default: PACKAGER_API_LISTEN, 127.0.0.1:8080.")
    ] = None,
    logs: LogOptions,
) -> None:
    """Start the API service for the ODAHU client, its SDK and browsers. SIGTERM stops it.

    Every setting is an environment variable: `packager api settings` lists them.
    """
    if context.invoked_subcommand is not None:
        return
    import logging
    from signal import Signals

    from packager.cli.session import open_session
    from packager.errors import Interrupted
    from packager.logs.redaction import secrets_of_url
    from packager.settings import API_PREFIX

    with open_session(logs.log_format, verbose=logs.verbose) as session:
        _check_installed()
        from packager.api import server
        from packager.api.config import ApiSettings

        environ = {**os.environ, **({f"{API_PREFIX}LISTEN": listen} if listen else {})}
        settings = ApiSettings.from_env(environ)
        keys = settings.key.get_secret_value() if settings.key else ""
        url = settings.database_url.get_secret_value() if settings.database_url else ""
        session.redactor.add([*keys.replace(",", " ").split(), *secrets_of_url(url)])
        try:
            server.serve(server.open_service(settings, session.settings.ca_file, session.redactor.add))
        except Interrupted as stop:
            number = Signals(stop.signal_number)
            logging.getLogger(__name__).info("stopped by %s during the start", number.name)


@api.command()
def token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the token's owner, as shown in the log.")],
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Token file. Default: PACKAGER_API_TOKENS_FILE.")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Allow reading only, without secrets.")] = False,
    verbose: Verbose = False,
) -> None:
    """Create a token, add its digest to the token file and print it. The token itself is not stored."""
    from packager.cli.session import open_session
    from packager.errors import UsageError
    from packager.logs.progress import LogFormat
    from packager.settings import API_PREFIX

    with open_session(LogFormat.auto, verbose=verbose):
        _check_installed()
        from packager.api.identity.tokens import add_token

        named = file or Path(os.environ.get(f"{API_PREFIX}TOKENS_FILE", ""))
        if named == Path():
            raise UsageError("no token file given", hint="give --file, or set PACKAGER_API_TOKENS_FILE")
        typer.echo(add_token(named, name, may_write=not read_only))


@api.command()
def settings() -> None:
    """List every setting of the service: environment variable, default and meaning."""
    from packager.api.config import ApiSettings
    from packager.settings import API_PREFIX, describe_settings

    typer.echo(describe_settings(ApiSettings, ApiSettings.GROUPS, API_PREFIX))


def _check_installed() -> None:
    from importlib.util import find_spec

    from packager.errors import UsageError

    missing = [name for name in ("fastapi", "sqlalchemy", "cryptography", "jwt") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the API service needs {', '.join(missing)}, not installed here",
            hint="pip install 'odahu-packager[api]'",
        )
