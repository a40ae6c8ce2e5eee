"""Session: what every command has (the service's address, a key, how to print), and how functions become commands."""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import typer

from src.cli.failures import CommandError
from src.cli.output import print_json, say
from src.core.errors import PlatformError

if TYPE_CHECKING:
    from src.cli.connection import Connection

FAILED = 1
INTERRUPTED = 130

_PANEL = "The service"
Url = Annotated[
    str | None,
    typer.Option("--url", help="Its address. Default: AIML_URL, else where `make run` serves.", rich_help_panel=_PANEL),
]
ApiKey = Annotated[
    str | None, typer.Option("--api-key", help="A key of it. Default: AIML_API_KEY.", rich_help_panel=_PANEL)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print its answer as JSON, for scripts.", rich_help_panel=_PANEL)]


@dataclass
class Session:
    """One run of a command."""

    url: str | None = None
    api_key: str | None = None
    as_json: bool = False

    @cached_property
    def connection(self) -> "Connection":
        """The connection to the service, made when first needed."""
        from src.cli.connection import Connection

        url = self.url or os.environ.get("AIML_URL") or _address_in_settings()
        return Connection(url, self.api_key or os.environ.get("AIML_API_KEY"))

    def show(self, value: Any, human: Callable[[Any], None]) -> None:
        """Prints an answer: as JSON where that was asked for, else as `human` does."""
        if self.as_json:
            print_json(value)
        else:
            human(value)

    def close(self) -> None:
        """Closes the connection, where there is one."""
        if "connection" in self.__dict__:
            self.connection.close()


def command(group: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a function of a `Session` and parameters of its own a command, with the options that all of them have."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        def run(*, context: typer.Context, url: str | None, api_key: str | None, as_json: bool, **own: Any) -> None:
            before: Session = context.obj or Session()
            session = Session(url or before.url, api_key or before.api_key, as_json or before.as_json)
            with reporting(session):
                function(session, **own)

        run.__doc__ = function.__doc__
        _give_signature(run, function)
        group.command(name)(run)
        return function

    return register


def remember(context: typer.Context, url: Url = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Keeps the options that stand before the command."""
    context.obj = Session(url, api_key, as_json)


@contextmanager
def reporting(session: Session) -> Iterator[None]:
    try:
        yield
    except CommandError as exc:
        if session.as_json and exc.answer is not None:
            print_json(exc.answer)
        say(f"error: {exc.message}", style="red")
        raise typer.Exit(FAILED) from exc
    except PlatformError as exc:  # settings that cannot work
        say(f"error: {exc.message}", style="red")
        raise typer.Exit(FAILED) from exc
    finally:
        session.close()


def _give_signature(run: Callable[..., None], function: Callable[..., None]) -> None:
    """Gives the command the parameters that Typer shall see: the function's own, then those of all commands."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    shared = list(inspect.signature(remember).parameters.values())
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [*own, *shared]]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def _address_in_settings() -> str:
    """Returns where the service of this folder listens; its `.env` counts, for the key too."""
    from src.core.config import load_env_file, load_settings

    load_env_file()
    if os.environ.get("AIML_URL"):
        return os.environ["AIML_URL"]
    settings = load_settings()
    # What a server listens on is no address to call.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
