"""Dagster's errors as Muxly's own: what passes by itself, and what somebody must correct."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater
from muxly_dagster.orchestrator.dagster_private import DagsterUserCodeProcessError, DagsterUserCodeUnreachableError
from muxly_dagster.orchestrator.words import in_words

_DATABASES = ("sqlalchemy", "psycopg2", "psycopg", "dagster_postgres", "dagster_mysql")
_SECONDS_TO_WAIT = 5.0


@contextmanager
def dagster_troubles(*, loading: bool = False) -> Iterator[None]:
    """Raise RetryLater where the code server or Dagster's storage is away, ConfigurationError for what Dagster refuses.

    A project that does not load is a ConfigurationError to who loads it (`loading`); to others it passes when somebody has corrected it.
    """
    try:
        yield
    except MuxlyError:
        raise
    except DagsterUserCodeProcessError as error:
        said = "; ".join(in_words(each)[0] for each in error.user_code_process_error_infos) or str(error)
        if loading:
            raise ConfigurationError(said) from error
        raise RetryLater(f"Dagster could not load the project: {said}", do="correct it", after=_SECONDS_TO_WAIT) from error
    except DagsterUserCodeUnreachableError as error:
        do = "look whether Dagster's code server runs"
        raise RetryLater("Dagster's code server cannot be reached", do=do, after=_SECONDS_TO_WAIT) from error
    except (dg.DagsterInvalidConfigError, dg.DagsterInvalidDefinitionError) as error:
        raise ConfigurationError(f"Dagster refuses this: {error}") from error
    except Exception as error:
        if not _is_of_storage(error):
            raise
        do = "look whether the database of Dagster's home runs and has room"
        raise RetryLater("Dagster's storage cannot be reached", do=do, after=_SECONDS_TO_WAIT) from error


def _is_of_storage(error: Exception) -> bool:
    return isinstance(error, OSError | sqlite3.Error) or any(
        kind.__module__.partition(".")[0] in _DATABASES for kind in type(error).__mro__
    )
