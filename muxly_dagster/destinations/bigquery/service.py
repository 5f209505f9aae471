"""Signed in at BigQuery: Google's own client, made for one destination, and the dataset that its tables are in."""

import ipaddress
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from muxly_dagster.auth import OAuth2, ServiceAccount
from muxly_dagster.destinations.bigquery.refusals import in_words
from muxly_dagster.errors import ConfigurationError

SCOPES = ("https://www.googleapis.com/auth/bigquery",)
_PATIENCE = 60.0  # seconds that a request is tried again for, where the trouble may pass
_ANSWER_SECONDS = 60.0


@dataclass(slots=True)
class Identity:
    """Who signs in. The credentials are made once: reading a key takes longer than using it, and a token serves for an hour."""

    auth: ServiceAccount | OAuth2
    _credentials: Any = None

    @property
    def credentials(self) -> Any:
        """Google's own credentials. Raises ConfigurationError for a key that is none, SignInError where the machine has no identity."""
        from muxly_dagster.google import google_credentials

        if self._credentials is None:
            self._credentials = google_credentials(self.auth, SCOPES)
        return self._credentials

    @property
    def is_deployments_own(self) -> bool:
        """Whether it is what the machine has, and not said here."""
        return isinstance(self.auth, ServiceAccount) and self.auth.key is None and not self.auth.key_file


@dataclass(frozen=True, slots=True)
class Service:
    """A client, and where the tables are."""

    client: Any
    """A `google.cloud.bigquery.Client` of the project that runs the jobs."""

    credentials: Any
    project: str
    dataset: str
    location: str
    """The dataset's own. Without it a job in a single region is not found by its id, and would be taken for one that never was."""

    retry: Any
    """Google's own retry, given up after a minute."""

    labels: dict[str, str]

    @property
    def asking(self) -> dict[str, Any]:
        """How requests are made: Google's client itself would wait for ever for an answer."""
        return {"retry": self.retry, "timeout": _ANSWER_SECONDS}

    @property
    def account(self) -> str:
        """Who is signed in, as far as the credentials know."""
        email = str(getattr(self.credentials, "service_account_email", "") or "")
        return email if "@" in email else ""

    def name(self, table: str) -> str:
        """A table of the dataset, in full."""
        return f"{self.project}.{self.dataset}.{table}"

    def quoted(self, table: str) -> str:
        """The same for GoogleSQL. Names hold no backticks: the destination's fields see to that."""
        return f"`{self.name(table)}`"


@contextmanager
def signed_in(
    identity: Identity, *, project: str, job_project: str, dataset: str, location: str, api_endpoint: str, label: str = ""
) -> Iterator[Service]:
    """A client, closed at the end. Errors of Google's libraries within the block leave it as MuxlyErrors.

    Raises ConfigurationError for a key that is none, where no project is said, and where there is no such dataset; SignInError for an
    identity that is refused.
    """
    # Google's libraries take most of a second to import, which a project can be listed and checked without.
    from google.cloud import bigquery

    with ExitStack() as stack:
        stack.enter_context(in_words(f"{project}.{dataset}" if project else dataset))
        credentials = identity.credentials
        project = project or str(getattr(credentials, "project_id", "") or "")
        if identity.is_deployments_own and not api_endpoint:
            client = stack.enter_context(_deployments_client(job_project or project, location))
        else:
            own = job_project or project
            if not own:
                raise _no_project()
            options = {"api_endpoint": api_endpoint.rstrip("/")} if api_endpoint else None
            client = bigquery.Client(project=own, credentials=credentials, location=location or None, client_options=options)
        stack.callback(client.close)
        retry = bigquery.DEFAULT_RETRY.with_timeout(_PATIENCE)
        project = project or client.project
        where = location or str(client.get_dataset(f"{project}.{dataset}", retry=retry, timeout=_ANSWER_SECONDS).location)
        yield Service(client, credentials, project, dataset, where, retry, {"muxly": label or "muxly"})


def checked_endpoint(address: str) -> str:
    """An address of an API, if it may be used. Raises ValueError: without TLS, only this machine itself."""
    parts = urlsplit(address)
    if not address or (parts.scheme == "https" and parts.hostname):
        return address
    if parts.scheme == "http" and parts.hostname and _is_loopback(parts.hostname):
        return address
    raise ValueError("must begin with https://; http:// is for this machine alone (http://127.0.0.1:PORT)")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _deployments_client(project: str, location: str) -> Iterator[Any]:
    """The client of the identity that the deployment itself has, as every other Dagster asset gets it.

    With a key of its own that resource would set an environment variable for the whole process, so such destinations make their client.
    """
    from dagster_gcp import BigQueryResource

    with ExitStack() as stack:
        try:
            client = stack.enter_context(BigQueryResource(project=project or None, location=location or None).get_client())
        except OSError:  # what Google's client raises where neither the identity nor the environment says a project
            raise _no_project() from None
        yield client


def _no_project() -> ConfigurationError:
    return ConfigurationError("nothing says which project the dataset is in", do="set the destination's `project`")
