"""What is said of Dagster's statuses and errors."""

import dagster as dg
import pytest
from dagster_shared.error import SerializableErrorInfo

from muxly_dagster.errors import BusyError, ConfigurationError, RetryLater
from muxly_dagster.orchestrator.troubles import dagster_troubles
from muxly_dagster.orchestrator.words import STATUSES, in_words


def _error(message: str, cause: SerializableErrorInfo | None = None) -> SerializableErrorInfo:
    return SerializableErrorInfo(message, [], None, cause)


def test_every_status_of_dagster_is_one_of_ours() -> None:
    assert set(STATUSES) == set(dg.DagsterRunStatus)


def test_the_error_at_bottom_is_what_happened() -> None:
    ours = _error("muxly_dagster.errors.ConfigurationError: muxly.yaml:3:1: sources: is missing\n")
    wrapped = _error("dagster._core.errors.DagsterUserCodeLoadError: Error occurred during the loading", ours)
    assert in_words(wrapped) == ("muxly.yaml:3:1: sources: is missing", True)
    assert in_words(_error("ours", _error("ValueError: boom\n"))) == ("ValueError: boom", False)
    deeper = _error("muxly_dagster.errors.RetryLater: the API is down\n", _error("httpx.ConnectError: refused\n"))
    assert in_words(_error("dagster.X: y", deeper)) == ("the API is down", True)


def test_troubles_are_sorted_by_what_to_do_next() -> None:
    with pytest.raises(BusyError, match="mine"), dagster_troubles():
        raise BusyError("mine")
    with pytest.raises(ConfigurationError, match="Dagster refuses this: no"), dagster_troubles():
        raise dg.DagsterInvalidDefinitionError("no")
    with pytest.raises(RetryLater, match="storage"), dagster_troubles():
        raise OSError("disk full")
    with pytest.raises(KeyError), dagster_troubles():
        raise KeyError("a mistake of ours is none of Dagster's")
