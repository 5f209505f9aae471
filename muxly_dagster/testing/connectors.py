"""The promises every connector keeps, as tests against a stand-in of its provider: built-in, manifest or plugin.

class TestMine(ConnectorContract):
    @pytest.fixture
    def provider(self):
        with MyFake() as fake:  # a Provider
            yield fake
"""

import logging
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest

from muxly_dagster import pulling, records
from muxly_dagster.assembly import Pull
from muxly_dagster.connector import Connector
from muxly_dagster.errors import ConfigurationError, MuxlyError, SignInError
from muxly_dagster.lake import Lake
from muxly_dagster.outcome import Outcome
from muxly_dagster.state import State


class Provider(Protocol):
    """A stand-in for a connector's provider, with one stream under test. Records are told apart by whole numbers from 1.

    Every record has a text that can change; which columns number and text become is for `number` and `text` to say.
    """

    secrets: Sequence[str]
    """What signs in: tokens, keys, passwords. None of it may be seen anywhere."""

    pull: Mapping[str, Any]
    """The settings of the pull under test; `stream` among them."""

    def connector(self, *, wrong: bool = False) -> Connector:
        """The connector, signed in at the stand-in; `wrong`: with credentials that it refuses."""

    def put(self, *numbers: int, text: str = "") -> None:
        """Create these records, or change their text (and whatever says that they changed)."""

    def delete(self, number: int) -> None:
        """Delete one."""

    def number(self, row: Mapping[str, Any]) -> int:
        """The number of a record as it lies in the lake: data columns by name."""

    def text(self, row: Mapping[str, Any]) -> str:
        """Its text."""

    def drift(self) -> None:
        """From now on, records that are put have a field more."""

    def fail_once(self, status: int) -> None:
        """Answer the next request for records with 401 (the access token ran out) or 429 (with Retry-After: 0)."""

    def break_after(self, requests: int) -> None:
        """Refuse every request for records after so many more with an error that does not pass, until `mend`."""

    def mend(self) -> None:
        """Work again."""

    def expire(self) -> None:
        """Forget the cursors and tokens of changes that were given out so far. Only for streams with sync "delta"."""


@dataclass
class Pulled:
    """A lake and a state of their own, into which one pull of a provider is run."""

    provider: Provider
    folder: Path
    name: str = "source.stream"
    told: list[str] = field(default_factory=list)

    def run(self, connector: Connector | None = None, **options: Any) -> Outcome:
        """Run the pull once. What it raises is kept in `told`, with the whole traceback."""
        connector = connector or self.provider.connector()
        settings = connector.Pull.model_validate(dict(self.provider.pull))
        pull = Pull(self.name, "source", connector, settings, connector.stream(settings))
        state = State.open(f"sqlite:///{self.folder / 'state.db'}", self.folder)
        try:
            return pulling.pull(Lake(str(self.folder / "lake")), state, pull, run_id="run", **options)
        except MuxlyError as error:
            self.told += [str(error), error.do, "".join(traceback.format_exception(error))]
            raise
        finally:
            state.close()

    def rows(self) -> dict[int, dict[str, Any]]:
        """The current records by number."""
        table = Lake(str(self.folder / "lake")).table(self.name)
        found = table.current().to_pylist() if table else []
        assert len({self.provider.number(row) for row in found}) == len(found), "a record is in the lake twice"
        return {self.provider.number(row): row for row in found}

    def texts(self) -> dict[int, str]:
        """The current records' texts by number."""
        return {number: self.provider.text(row) for number, row in self.rows().items()}

    def ops(self) -> list[str]:
        """Every change that was ever stored, in order."""
        table = Lake(str(self.folder / "lake")).table(self.name)
        ops: list[str] = table.changes(0, table.head)[records.OP].to_pylist() if table else []
        return ops


class ConnectorContract:
    """What every connector must do. Subclass it with a pytest fixture `provider`, and say what the stream under test can."""

    two_pages: ClassVar[int] = 5
    """So many records take at least two requests; the provider's pages are made small for it."""

    hears_deletes: ClassVar[bool] = True
    """Whether a deleted record is deleted in the lake by the next pull."""

    refreshes: ClassVar[bool] = False
    """Whether the connector under test signs in with tokens that it can ask for again."""

    expires: ClassVar[bool] = False
    """Whether the stream under test has sync "delta"."""

    drifts: ClassVar[bool] = True
    """Whether records can get new fields without anybody asking for them."""

    signs_in: ClassVar[bool] = True
    """Whether the provider asks for credentials at all; a file does not."""

    speaks_http: ClassVar[bool] = True
    """Whether the provider answers requests with a status; a database does not, and has no rate limit or access token."""

    @pytest.fixture
    def pulled(self, provider: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Pulled]:
        """A place to pull into. Afterwards: no secret was told to anybody."""
        caplog.set_level(logging.DEBUG)
        place = Pulled(provider, tmp_path)
        yield place
        told = "\n".join([caplog.text, *place.told, repr(provider.connector())])
        assert not [number for number, secret in enumerate(provider.secrets) if secret in told], "a secret was told"

    def test_it_signs_in(self, provider: Any) -> None:
        """`muxly check` says what was tried."""
        result = provider.connector().test_connection()
        assert (result.status, result.do) == ("ok", "")
        assert result.tried

    def test_wrong_credentials_are_told_with_what_to_do(self, provider: Any) -> None:
        """And are no exception."""
        self._skip_unless(self.signs_in, "the provider asks for no credentials")
        result = provider.connector(wrong=True).test_connection()
        assert result.status == "failed"
        assert result.tried and result.what and result.do
        assert not [secret for secret in provider.secrets if secret in f"{result.tried} {result.what} {result.do}"]

    def test_the_stream_is_discovered(self, provider: Any) -> None:
        """By its name, and as it is pulled."""
        connector = provider.connector()
        settings = connector.Pull.model_validate(dict(provider.pull))
        found = {stream.name: stream for stream in connector.streams()}
        assert settings.stream in found
        assert found[settings.stream].sync in ("full", "cursor", "delta")

    def test_what_it_knows_of_the_account_can_be_asked(self, provider: Any) -> None:
        """`muxly connectors show` tells it."""
        assert provider.connector().metadata() is not None

    def test_the_template_names_the_connector_and_holds_no_secret(self, provider: Any) -> None:
        """A commented piece of muxly.yaml to begin with."""
        connector = provider.connector()
        template = connector.config_template("mine")
        assert f"connector: {connector.id}" in template
        assert not [secret for secret in provider.secrets if secret in template]

    def test_every_page_arrives_once(self, provider: Any, pulled: Pulled) -> None:
        """And a second pull, with nothing new, stores nothing."""
        numbers = range(1, self.two_pages + 1)
        provider.put(*numbers, text="first")
        assert pulled.run().changed == self.two_pages
        assert pulled.texts() == dict.fromkeys(numbers, "first")
        assert pulled.run().changed == 0
        assert len(pulled.ops()) == self.two_pages

    def test_an_empty_stream_is_no_error(self, pulled: Pulled) -> None:
        """Nothing is there yet."""
        assert pulled.run().changed == 0

    def test_only_what_changed_is_stored(self, provider: Any, pulled: Pulled) -> None:
        """One of many."""
        provider.put(*range(1, self.two_pages + 1), text="first")
        pulled.run()
        provider.put(2, text="second")
        provider.put(self.two_pages + 1, text="new")
        assert pulled.run().changed == 2
        assert pulled.texts() == {**dict.fromkeys(range(1, self.two_pages + 1), "first"), 2: "second", self.two_pages + 1: "new"}

    def test_a_pull_that_broke_off_goes_on_and_repeats_nothing(self, provider: Any, pulled: Pulled) -> None:
        """Wherever it broke off."""
        provider.put(*range(1, 2 * self.two_pages + 1), text="first")
        for requests in range(4):
            provider.break_after(requests)
            try:
                pulled.run()
            except MuxlyError as error:
                advice = [problem.do for problem in error.problems] if isinstance(error, ConfigurationError) else [error.do]
                assert error.what and any(advice), "an error says what happened and what to do"
            provider.mend()
        pulled.run()
        assert pulled.texts() == dict.fromkeys(range(1, 2 * self.two_pages + 1), "first")
        assert len(pulled.ops()) == 2 * self.two_pages

    def test_an_access_token_that_ran_out(self, provider: Any, pulled: Pulled) -> None:
        """Is asked for again where that can be done; else the error asks for credentials, and nothing is lost."""
        self._skip_unless(self.speaks_http, "the provider has no access tokens")
        provider.put(*range(1, self.two_pages + 1), text="first")
        provider.fail_once(401)
        if not self.refreshes:
            with pytest.raises(SignInError):
                pulled.run()
        pulled.run()
        assert len(pulled.texts()) == len(pulled.ops()) == self.two_pages

    def test_a_rate_limit_is_waited_for(self, provider: Any, pulled: Pulled) -> None:
        """As long as the provider asks."""
        self._skip_unless(self.speaks_http, "the provider has no rate limit")
        provider.put(*range(1, self.two_pages + 1), text="first")
        provider.fail_once(429)
        assert pulled.run().changed == self.two_pages

    def test_a_field_that_appears_becomes_a_column(self, provider: Any, pulled: Pulled) -> None:
        """Without anybody's doing."""
        if not self.drifts:
            pytest.skip("the pull names its fields")
        provider.put(1, 2, text="first")
        pulled.run()
        before = set(pulled.rows()[1])
        provider.drift()
        provider.put(2, text="second")
        pulled.run()
        assert set(pulled.rows()[2]) > before
        assert pulled.texts() == {1: "first", 2: "second"}

    def test_a_deleted_record_is_deleted(self, provider: Any, pulled: Pulled) -> None:
        """Once, and its number can come back."""
        provider.put(*range(1, self.two_pages + 1), text="first")
        pulled.run()
        provider.delete(2)
        outcome = pulled.run()
        if not self.hears_deletes:
            assert outcome.changed == 0
            return
        assert (outcome.changed, pulled.ops()[-1]) == (1, "delete")
        assert 2 not in pulled.texts()
        assert pulled.run().changed == 0

    def test_an_expired_token_of_changes_leads_to_a_full_pull(self, provider: Any, pulled: Pulled) -> None:
        """With everything that happened meanwhile, deletions too."""
        if not self.expires:
            pytest.skip("the stream has no token of changes")
        provider.put(*range(1, self.two_pages + 1), text="first")
        pulled.run()
        provider.expire()
        provider.put(1, text="second")
        provider.delete(2)
        pulled.run()
        assert pulled.texts() == {1: "second", **dict.fromkeys(range(3, self.two_pages + 1), "first")}
        assert len(pulled.ops()) == self.two_pages + 2

    def test_wrong_credentials_stop_a_pull_and_lose_nothing(self, provider: Any, pulled: Pulled) -> None:
        """The cursor stays where it was."""
        self._skip_unless(self.signs_in, "the provider asks for no credentials")
        provider.put(1, text="first")
        pulled.run()
        provider.put(2, text="second")
        with pytest.raises(SignInError):
            pulled.run(provider.connector(wrong=True))
        pulled.run()
        assert pulled.texts() == {1: "first", 2: "second"}

    def _skip_unless(self, able: bool, why: str) -> None:
        if not able:
            pytest.skip(why)
