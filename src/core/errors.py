"""The error tree. It imports nothing and knows no HTTP; `src.api.errors` maps it to statuses.

PlatformError
├── ConfigurationError              settings that cannot work; stops the start
├── ConflictError                   the thing exists already, or changed meanwhile
└── InferenceError                  whatever `inference_manager.infer` can answer with
    ├── ValidationError             shape, types, unknown option, unknown task or engine
    ├── InvalidInputError           well formed but unusable input (error_type "ValueError")
    ├── AuthenticationError         no key, or a wrong one
    ├── ForbiddenError              a foreign Host or Origin; a gated model
    ├── NotFoundError
    │   └── ModelNotFoundError      no such model, version, alias or file
    ├── PayloadTooLargeError        past a size bound
    ├── RateLimitedError            this caller asks more than one caller may
    ├── InferenceTimeoutError       the `timeout` option passed; generation was stopped
    ├── CancelledError              the caller went away; generation was stopped
    ├── InsufficientMemoryError     did not fit, while loading or inferring
    ├── IntegrityError              stored bytes differ from their digest
    ├── EngineError                 the engine itself failed
    │   └── ModelLoadError          the model's files could not be loaded
    └── UnavailableError            try again later
        ├── EngineUnavailableError  the engine's server cannot be reached
        ├── RegistryUnavailableError
        ├── StoreUnavailableError
        ├── SourceUnavailableError  the hub that models come from cannot be reached
        ├── JobsUnavailableError    jobs cannot be taken or written down
        ├── QueueFullError
        ├── WorkerDiedError         the model's process ended mid-request
        ├── ModelQuarantinedError   the model's process keeps dying
        └── DrainingError           the service is stopping
"""

from typing import Any, ClassVar


class PlatformError(Exception):
    """Something the platform expects to go wrong, in words for its user."""

    retryable: ClassVar[bool] = False
    retry_after: float | None = None

    def __init__(self, message: str, *, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details or {}

    @property
    def error_type(self) -> str:
        """The documented name that answers carry."""
        return type(self).__name__


class ConfigurationError(PlatformError):
    """The settings cannot work as they are."""


class ConflictError(PlatformError):
    """The thing exists already, or was changed meanwhile."""


class InferenceError(PlatformError):
    """An inference request could not be served."""


class IntegrityError(InferenceError):
    """Stored bytes differ from the digest they were stored under."""


class ValidationError(InferenceError):
    """The request has the wrong shape, or names an option, task or engine that does not exist."""


class InvalidInputError(InferenceError, ValueError):
    """The input is well formed but cannot be used."""

    @property
    def error_type(self) -> str:
        return "ValueError"


class AuthenticationError(InferenceError):
    """The request carries no valid API key."""


class ForbiddenError(InferenceError):
    """The request comes from a place that may not drive this service, or its source refuses what it asks for."""


class NotFoundError(InferenceError):
    """What the request names does not exist."""


class ModelNotFoundError(NotFoundError):
    """No such model, version or alias."""


class PayloadTooLargeError(InferenceError):
    """The input is larger than the bound."""


class RateLimitedError(InferenceError):
    """This caller asks more at once, or in a minute, than one caller may; `retry_after` in seconds."""

    retryable = True
    retry_after = 1.0

    def __init__(
        self, message: str, *, details: dict[str, Any] | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, details=details)
        if retry_after is not None:
            self.retry_after = retry_after


class InferenceTimeoutError(InferenceError):
    """The time allowed by the option `timeout` has passed."""

    retryable = True


class CancelledError(InferenceError):
    """The caller went away before the answer."""

    retryable = True


class InsufficientMemoryError(InferenceError):
    """The model, or this request to it, does not fit into memory."""


class EngineError(InferenceError):
    """The engine failed on this request."""


class ModelLoadError(EngineError):
    """The model's files could not be loaded."""


class UnavailableError(InferenceError):
    """Something needed is not there at the moment."""

    retryable = True
    retry_after = 1.0


class EngineUnavailableError(UnavailableError):
    """The engine's server cannot be reached."""

    retry_after = 5.0


class RegistryUnavailableError(UnavailableError):
    """The model registry cannot be reached or believed."""

    retry_after = 5.0


class StoreUnavailableError(UnavailableError):
    """The version store cannot be reached."""

    retry_after = 5.0


class SourceUnavailableError(UnavailableError):
    """The hub that models come from cannot be reached."""

    retry_after = 5.0


class JobsUnavailableError(UnavailableError):
    """Jobs cannot be taken or looked up at the moment."""

    retry_after = 5.0


class QueueFullError(UnavailableError):
    """Too many requests wait for this model."""


class WorkerDiedError(UnavailableError):
    """The model's process ended while it held this request."""


class ModelQuarantinedError(UnavailableError):
    """The model's process keeps dying, and is not started for a while."""


class DrainingError(UnavailableError):
    """The service is stopping and takes no new work."""
