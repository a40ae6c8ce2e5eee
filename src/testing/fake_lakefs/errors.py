"""What the fake lakeFS refuses, in the words of the real one."""


class ApiError(Exception):
    """A refusal: the HTTP status and the text that goes out under `message`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ConflictError(Exception):
    """A merge that meets the same path changed differently on both sides."""


def not_authenticated() -> ApiError:
    """Returns the answer to missing or wrong credentials."""
    return ApiError(401, "error authenticating request")


def not_found(what: str = "") -> ApiError:
    """Returns the answer to a missing `repository`, `branch`, `commit`, `tag`, or (without a word) object or ref."""
    return ApiError(404, f"{what} not found".lstrip())


def invalid(what: str) -> ApiError:
    """Returns the answer to a name or reference that cannot be one."""
    return ApiError(400, f"{what}: invalid value: validation error")


def no_branch(name: str) -> ApiError:
    """Returns the answer to an upload onto a branch that is not there."""
    return ApiError(404, f"branch '{name}' not found")


def not_unique(what: str) -> ApiError:
    """Returns the answer to creating what exists."""
    return ApiError(409, f"{what}: not unique")


def path_exists() -> ApiError:
    """Returns the answer to an upload that asked for a free path."""
    return ApiError(412, "path already exists")


def precondition_failed() -> ApiError:
    """Returns the answer to an upload that asked for another object under its path."""
    return ApiError(412, "Precondition failed")


def no_changes(doing: str) -> ApiError:
    """Returns the answer to a commit or a merge that would change nothing."""
    return ApiError(400, f"{doing}: no changes")


def dirty_branch() -> ApiError:
    """Returns the answer to a merge into a branch with uncommitted changes."""
    return ApiError(400, "uncommitted changes (dirty branch)")


def read_only() -> ApiError:
    """Returns the answer to a change of a read-only repository."""
    return ApiError(403, "read-only repository")


def cannot_presign() -> ApiError:
    """Returns the answer of a store on a local disk to a request for a signed address."""
    return ApiError(400, "local adapter presigned URL: operation not supported")


def bad_body(schema: str, where: str, problem: str) -> ApiError:
    """Returns the answer to JSON that does not fit its schema; `where` is a JSON pointer."""
    told = f"doesn't match schema #/components/schemas/{schema}: Error at {where}: {problem}"
    return ApiError(400, f"request body has an error: {told}")
