"""`aiml`: the command line, a thin client of the service's own HTTP API."""

import sys
from io import TextIOWrapper


def main() -> None:
    """Runs the command line; exits with 0, 1 (it failed, and stderr says why), 2 (wrong usage) or 130 (Ctrl-C)."""
    from src.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever a model says can be printed anywhere
    app(prog_name="aiml")
