"""What the fake Ollama refuses, in the words of the real one."""


class ApiError(Exception):
    """A refusal: the HTTP status and the text that goes out under `error`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def model_missing(name: str) -> ApiError:
    """Returns the answer to a name that nothing is stored under."""
    return ApiError(404, f"model '{name}' not found")


def runner_died() -> ApiError:
    """Returns what a request sees whose runner ends under it."""
    return ApiError(500, "an error was encountered while running the model: unexpected EOF")


def server_busy() -> ApiError:
    """Returns the answer of a full queue (two spaces, as recorded)."""
    return ApiError(503, "server busy, please try again.  maximum pending requests exceeded")
