"""What can go wrong for the command line, in sentences for its user."""

from typing import Any

JsonObject = dict[str, Any]


class CommandError(Exception):
    """A command failed. `answer` is what the service said about it, where it said something."""

    def __init__(self, message: str, *, answer: Any = None, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.answer = answer
        self.status = status


class UnreachableError(CommandError):
    """The service does not answer, or no longer does."""
