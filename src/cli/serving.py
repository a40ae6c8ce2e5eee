"""`aiml serve`: the service itself."""

import os
import sys
from typing import Annotated, NoReturn

import typer

from src.cli.output import say

_BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from src.main import main; main()"


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: AIML_HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; default: AIML_PORT.")] = None,
) -> NoReturn:
    """Run the service until told to stop, as `python -m src.main` does."""
    from src.core.config import ROOT

    given = {"AIML_HOST": host, "AIML_PORT": port}
    environment = {**os.environ, **{name: str(value) for name, value in given.items() if value is not None}}
    say("Starting the service; Ctrl-C stops it.")
    # Not -m, which would look for `src` in the folder it is started in.
    os.execve(sys.executable, [sys.executable, "-P", "-c", _BOOT, str(ROOT)], environment)
