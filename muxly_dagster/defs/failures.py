"""Muxly's errors in Dagster's words: what fails a step at once, and what lets it wait and try again."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from muxly_dagster.errors import BusyError, ConfigurationError, MuxlyError, RetryLater, SignInError

MAX_RETRIES = 3
"""How often a step tries again. Connectors and destinations have waited out short troubles before a step ever fails."""

_BASE_SECONDS = 15.0
_LONGEST_WAIT = 300.0
"""A run that waits holds its place in the queue: what asks for longer is left to the next run."""


@contextmanager
def dagster_errors(attempt: int | None = None) -> Iterator[None]:
    """Turn Muxly's errors into Dagster's. `attempt` counts retries so far (None: a retry is not possible here)."""
    try:
        yield
    except MuxlyError as error:
        wait = None if attempt is None else _wait_before_retry(error, attempt)
        if wait is None:
            raise as_failure(error) from None
        # What lies beneath (a client library's exception) may show a URL with a secret in it; our own message never does.
        error.__cause__, error.__suppress_context__ = None, True
        raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=wait) from error


def as_failure(error: MuxlyError) -> dg.Failure:
    """The error as Dagster shows it: what happened, and beside it what to do. Only what may pass by itself allows retries."""
    told = {"what": error.what, "do": error.do, "where": error.where}
    if isinstance(error, ConfigurationError) and len(error.problems) == 1:
        told |= {"what": error.problems[0].what, "do": error.problems[0].do}
    return dg.Failure(
        description=str(error),
        metadata={name: text for name, text in told.items() if text},
        allow_retries=not isinstance(error, ConfigurationError | SignInError),
    )


def _wait_before_retry(error: MuxlyError, attempt: int) -> float | None:
    """Seconds to wait before the step is tried again; None when it should fail now."""
    if not isinstance(error, RetryLater | BusyError) or attempt >= MAX_RETRIES:
        return None
    asked = error.after if isinstance(error, RetryLater) else None
    if asked is not None:
        return asked + random.uniform(0, 1) if asked <= _LONGEST_WAIT else None
    return random.uniform(0, min(_LONGEST_WAIT, _BASE_SECONDS * 2**attempt))
