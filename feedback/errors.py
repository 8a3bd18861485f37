"""Every failure a user can meet, by name.

Each message says what was asked, what was found and what to do. The classes also inherit the standard-library
exception a programmer would expect, so `except LookupError` works too. `assert` is kept for shapes and invariants.
"""

from __future__ import annotations


class MynahError(Exception):
    """Base of all errors that are the answer to a request rather than a defect.

    code: a short stable word for programs; param: the request field at fault, if one is.
    """

    code = "error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidInput(MynahError, ValueError):
    """The request itself is wrong, whoever sends it and whenever."""

    code = "invalid_request"


class NotFound(MynahError, LookupError):
    """No such object, or not the caller's: the two are never told apart."""

    code = "not_found"


class Conflict(MynahError, RuntimeError):
    """Right request, wrong moment: the state of things forbids it now."""

    code = "conflict"


class TooFewLabels(MynahError, RuntimeError):
    """An update was asked for before there is enough feedback to learn from."""

    code = "too_few_labels"

    def __init__(self, message: str, *, needed: int) -> None:
        super().__init__(message)
        self.needed = needed


class NotSignedIn(MynahError, PermissionError):
    """No credentials, or credentials nobody holds."""

    code = "invalid_api_key"


class Busy(MynahError, RuntimeError):
    """More than the server takes on at once; try again after `retry_after` seconds."""

    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OverQuota(Busy):
    """One person has taken all that one person may have; others are served."""

    code = "insufficient_quota"


class ModelServerError(Busy):
    """The server that writes the replies does not answer, or not as asked; nothing of what it said is shown."""

    code = "model_server"


class NotSaved(MynahError, OSError):
    """The disk refused: nothing was kept, and the answer says so."""

    code = "not_saved"


class BaseModelError(MynahError, RuntimeError):
    """The base model cannot be found, fetched, verified or used."""

    code = "base_model"


class CorruptFile(MynahError, RuntimeError):
    """A file on disk is not what its manifest says."""

    code = "corrupt_file"


class AdapterRefused(MynahError, ValueError):
    """An adapter that was made elsewhere cannot be used here; nothing of it was kept."""

    code = "adapter_refused"


class ExportFailed(MynahError):
    """What was made for use elsewhere did not pass its check, or could not be made; nothing is handed out."""

    code = "export_failed"


class NotSupported(MynahError, NotImplementedError):
    """Understood, but not something this server can do."""

    code = "not_supported"
