"""Signed in at BigQuery: Google's own clients for jobs and tables (REST) and for reading rows (gRPC), made for one source."""

import ipaddress
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from muxly_dagster.auth import OAuth2, ServiceAccount
from muxly_dagster.connectors.bigquery.refusals import in_words
from muxly_dagster.errors import ConfigurationError

_STORAGE = "https://bigquerystorage.googleapis.com/"
SCOPES = ("https://www.googleapis.com/auth/bigquery",)
_PATIENCE = 60.0  # seconds that a request is tried again for, where the trouble may pass
_LOCAL = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]


@dataclass(frozen=True, slots=True)
class Service:
    """Both clients, and whose data they read at whose cost."""

    rest: Any
    """A `google.cloud.bigquery.Client` of the project that runs the jobs."""

    storage: Any
    """A `google.cloud.bigquery_storage_v1.BigQueryReadClient`."""

    credentials: Any
    project: str
    job_project: str
    retry: Any
    """Google's own retry, given up after a minute."""

    @property
    def account(self) -> str:
        """Who is signed in, as far as the credentials know."""
        email = str(getattr(self.credentials, "service_account_email", "") or "")
        return email if "@" in email else ""

    def sign_in(self) -> None:
        """Have a token that is valid now. gRPC asks for one in a thread of its own, where a refusal would look like a broken connection.

        Raises what signing in raises.
        """
        from google.auth.transport.requests import Request

        self.credentials.before_request(Request(), "POST", _STORAGE, {})

    def sign_in_anew(self) -> None:
        """Ask for a new access token: the one there was has been refused."""
        from google.auth.transport.requests import Request

        self.credentials.refresh(Request())


@contextmanager
def signed_in(
    auth: ServiceAccount | OAuth2, *, project: str, job_project: str, location: str, api_endpoint: str, storage_endpoint: str
) -> Iterator[Service]:
    """Both clients, closed at the end. Errors of Google's libraries within the block leave it as MuxlyErrors.

    Raises ConfigurationError for a key that is none and where no project is said, SignInError for an identity that is refused.
    """
    # Google's libraries take most of a second to import, which a project can be listed and checked without.
    from google.cloud import bigquery
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient

    from muxly_dagster.google import google_credentials

    with ExitStack() as stack:
        stack.enter_context(in_words(project))
        credentials = google_credentials(auth, SCOPES)
        project = project or str(getattr(credentials, "project_id", "") or "")
        if _is_deployments_own(auth) and not api_endpoint:
            rest = stack.enter_context(_deployments_client(job_project or project, location))
        else:
            own = job_project or project
            if not own:
                raise _no_project()
            options = {"api_endpoint": api_endpoint.rstrip("/")} if api_endpoint else None
            rest = bigquery.Client(project=own, credentials=credentials, location=location or None, client_options=options)
        stack.callback(rest.close)
        transport = _transport(storage_endpoint, credentials)
        options = {"api_endpoint": urlsplit(storage_endpoint).netloc} if storage_endpoint and transport is None else None
        storage = (
            BigQueryReadClient(transport=transport)  # type: ignore[no-untyped-call]
            if transport
            else BigQueryReadClient(credentials=credentials, client_options=options)  # type: ignore[no-untyped-call]
        )
        stack.callback(storage.transport.close)
        yield Service(rest, storage, credentials, project or rest.project, rest.project, bigquery.DEFAULT_RETRY.with_timeout(_PATIENCE))


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


def _is_deployments_own(auth: ServiceAccount | OAuth2) -> bool:
    return isinstance(auth, ServiceAccount) and auth.key is None and not auth.key_file


@contextmanager
def _deployments_client(project: str, location: str) -> Iterator[Any]:
    """The client of the identity that the deployment itself has, as every other Dagster asset gets it.

    With a key of its own that resource would set an environment variable for the whole process, so such sources make their client.
    """
    from dagster_gcp import BigQueryResource

    with ExitStack() as stack:
        try:
            client = stack.enter_context(BigQueryResource(project=project or None, location=location or None).get_client())
        except OSError:  # what Google's client raises where neither the identity nor the environment says a project
            raise _no_project() from None
        yield client


def _no_project() -> ConfigurationError:
    return ConfigurationError("nothing says which project the data are in", do="set the source's `project`")


def _transport(endpoint: str, credentials: Any) -> Any:
    """A transport without TLS to a stand-in on this machine; None where Google's own choice is right."""
    if urlsplit(endpoint).scheme != "http":
        return None
    import grpc  # type: ignore[import-untyped]
    from google.auth.transport.grpc import AuthMetadataPlugin
    from google.auth.transport.requests import Request
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

    signing = grpc.metadata_call_credentials(AuthMetadataPlugin(credentials, Request()))  # type: ignore[no-untyped-call]
    local = grpc.composite_channel_credentials(grpc.local_channel_credentials(grpc.LocalConnectionType.LOCAL_TCP), signing)
    return BigQueryReadGrpcTransport(channel=grpc.secure_channel(urlsplit(endpoint).netloc, local, options=_LOCAL))
