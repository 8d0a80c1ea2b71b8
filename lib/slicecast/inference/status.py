"""Which HTTP status an error of ours becomes; shared by everything that speaks HTTP (`server/` and `monai/`)."""

from slicecast import errors

STATUS: dict[type[errors.SlicecastError], int] = {
    errors.InputError: 422,
    errors.TooLarge: 413,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.SessionClosed: 410,
    errors.TooMany: 429,
    errors.StateError: 409,
    errors.ResourceError: 503,
    errors.Cancelled: 499,
    errors.SlicecastError: 500,
}
"""The nearest ancestor in the error tree decides."""

RETRY_AFTER_S = "5"
"""How long a client should wait before it asks a busy server again."""


def http_status(error: errors.SlicecastError) -> int:
    """Return the HTTP status of an error, by its nearest ancestor in `STATUS`."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def http_headers(error: errors.SlicecastError) -> dict[str, str]:
    """Return the headers that belong to the status: when to come back, where that helps."""
    return {"Retry-After": RETRY_AFTER_S} if isinstance(error, errors.ResourceError | errors.TooMany) else {}
