"""Every error that this package raises on purpose, named by what to do about it.

    MixpanelAssetsError
    ├── ConfigurationError        stop: a setting or argument is wrong; nothing was sent
    │   └── MissingCredentialsError
    ├── InstanceError             stop: Dagster's settings or its history in DAGSTER_HOME cannot be used
    ├── WarehouseError            stop: the DuckDB file cannot be used; what it holds is as it was
    ├── Cancelled                 stop: somebody asked the run to end
    ├── IncompleteSyncError       fetch again what is missing; what came is stored
    └── MixpanelError             Mixpanel's answer, or its absence
        ├── TransientError        retry: the same request may succeed in seconds
        ├── QuotaError            wait: the rolling hour is spent; a retry in seconds cannot help
        ├── RestartError          start over: the session is gone or changed, its pages no longer fit together
        └── FatalError            stop: the same request will fail again
            ├── AuthenticationError
            └── PlanError

Messages are one line: what happened, to what, and what to do. Secrets never reach them. HTTP and DuckDB errors are
turned into these where they arise (client/http.py, storage/warehouse.py); don't let a library's exception pass
beyond.
"""


class MixpanelAssetsError(Exception):
    """Base of all errors of this package."""


class ConfigurationError(MixpanelAssetsError):
    """A setting or argument is missing or wrong."""


class MissingCredentialsError(ConfigurationError):
    """The environment does not say who asks, or for which project."""


class InstanceError(MixpanelAssetsError):
    """Dagster's instance, its settings or its storage, cannot be opened, read or written."""


class WarehouseError(MixpanelAssetsError):
    """The DuckDB file cannot be opened, read or written."""


class Cancelled(MixpanelAssetsError):
    """The run was asked to stop while this waited."""


class IncompleteSyncError(MixpanelAssetsError):
    """A sync stored what came, and something is missing.

    Args:
        message: What is missing, in one line.
        result: What is stored: the result that the sync would have had.
    """

    def __init__(self, message: str, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class MixpanelError(MixpanelAssetsError):
    """A request to Mixpanel failed."""


class TransientError(MixpanelError):
    """The same request may succeed soon.

    Args:
        message: What happened, in one line.
        retry_after: Seconds that the server asked to wait, if it did.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QuotaError(MixpanelError):
    """The hourly quota is spent.

    Args:
        message: What happened, in one line.
        retry_after: Seconds until the window has room again, where known.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RestartError(MixpanelError):
    """The session is gone, or its answers no longer fit the first page."""


class FatalError(MixpanelError):
    """The same request will fail again, however often it is sent."""


class AuthenticationError(FatalError):
    """Mixpanel does not accept the credentials for this project."""


class PlanError(FatalError):
    """The project's plan does not include this API."""


def kind_of(error: MixpanelAssetsError) -> str:
    """The name of the class above that the error belongs to, however specific its own class is."""
    return next(base.__name__ for base in type(error).__mro__ if base.__module__ == __name__)


def error_of(kind: str, message: str) -> MixpanelAssetsError:
    """The error that `kind_of` named, anew; where only names and messages travel, as in Dagster's events."""
    error_type = globals().get(kind, MixpanelAssetsError)
    error: MixpanelAssetsError = error_type(message)
    return error
