"""Google Cloud Storage, through Google's own client."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import requests
from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from muxly_dagster.auth import Auth, NoAuth, ServiceAccount
from muxly_dagster.destinations.s3.objects import SHA256, TakenError
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError
from muxly_dagster.google import google_credentials

_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)
_RETRY = DEFAULT_RETRY.with_timeout(8)
_TIMEOUT = 60
_PART = 16 << 20  # a multiple of 256 KiB, as resumable uploads want it


class GoogleCloud:
    """A bucket of Google Cloud Storage. `endpoint` is another address than Google's own; `kms_key` a key of Cloud KMS."""

    def __init__(self, bucket: str, auth: Auth, *, endpoint: str, kms_key: str) -> None:
        self.url = f"gs://{bucket}"
        self._kms_key = kms_key or None
        credentials = google_credentials(ServiceAccount() if isinstance(auth, NoAuth) else auth, _SCOPES)
        client: Any = storage.Client(
            # No call here is about a project, so nobody need say one.
            project=getattr(credentials, "project_id", None) or "none",
            credentials=credentials,
            client_options={"api_endpoint": endpoint} if endpoint else None,
        )
        self._client, self._bucket = client, client.bucket(bucket)

    def put(self, key: str, body: BinaryIO, size: int, sha256: str, content_type: str) -> None:
        """With a precondition (generation 0: there is none) and a checksum of what arrived."""
        blob = self._bucket.blob(key, chunk_size=_PART if size > _PART else None, kms_key_name=self._kms_key)
        blob.metadata = {SHA256: sha256}
        with self._explained(f"write {key}"):
            try:
                blob.upload_from_file(
                    body, size=size, content_type=content_type, if_generation_match=0, checksum="crc32c", retry=_RETRY, timeout=_TIMEOUT
                )
            except google_errors.PreconditionFailed:
                held = self._bucket.get_blob(key, retry=_RETRY, timeout=_TIMEOUT)
                if held is None or (held.metadata or {}).get(SHA256) != sha256:
                    raise TakenError(key) from None

    def names(self, prefix: str, beyond: str) -> list[str]:
        """In the order of UTF-8 bytes."""
        with self._explained(f"list {prefix}"):
            found = self._client.list_blobs(self._bucket, prefix=prefix, start_offset=beyond, retry=_RETRY, timeout=_TIMEOUT)
            return [blob.name for blob in found if blob.name > beyond]

    def read(self, key: str) -> bytes | None:
        """The whole object."""
        with self._explained(f"read {key}"):
            try:
                content: bytes = self._bucket.blob(key).download_as_bytes(retry=_RETRY, timeout=_TIMEOUT)
            except google_errors.NotFound:
                return None
            return content

    def delete(self, keys: Sequence[str]) -> None:
        """One by one."""
        for key in keys:
            with self._explained(f"delete {key}"), suppress(google_errors.NotFound):
                self._bucket.blob(key).delete(retry=_RETRY, timeout=_TIMEOUT)

    def drop_unfinished(self, keys: Collection[str]) -> None:
        """Nothing: Google forgets an unfinished upload itself, and nobody pays for it."""

    def check(self) -> str:
        """A listing of one key."""
        with self._explained("look at the bucket"):
            list(self._client.list_blobs(self._bucket, max_results=1, retry=_RETRY, timeout=_TIMEOUT))
        return "the bucket is there and can be listed"

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        """Turn Google's errors into Muxly's, without their causes, which hold requests with their headers."""
        try:
            yield
        except (google_errors.GoogleAPIError, auth_errors.GoogleAuthError, requests.RequestException, OSError) as error:
            raise _as_muxly_error(error, doing, self.url) from None
        except AttributeError:  # Google's client takes an answer whose headers were cut off for bytes, and asks them for items
            raise _as_muxly_error(ValueError("the answer came without its headers"), doing, self.url) from None
        except (InvalidResponse, DataCorruption, ValueError) as error:
            raise _as_muxly_error(error, doing, self.url) from None


def _as_muxly_error(error: Exception, doing: str, where: str) -> MuxlyError:
    text = getattr(error, "message", "") or (error.args[0] if error.args else "") or type(error).__name__
    said = " ".join(str(text).split())[:400]
    what = f"could not {doing}: {said}"
    kinds: list[tuple[tuple[type[Exception], ...], Callable[..., MuxlyError], str]] = [
        ((google_errors.Unauthorized, auth_errors.RefreshError), SignInError, "correct `auth`"),
        ((google_errors.Forbidden,), SignInError, "see `auth`, and give the account the role Storage Object User on the bucket"),
        ((google_errors.NotFound,), ConfigurationError, "correct `bucket`, or make it"),
        (
            (google_errors.TooManyRequests, google_errors.ServerError, google_errors.RetryError),
            RetryLater,
            "the next run goes on from here",
        ),
        ((google_errors.GoogleAPIError,), ConfigurationError, "correct the destination's settings"),
    ]
    for types, kind, do in kinds:
        if isinstance(error, types):
            return kind(what, do=do, where=where)
    return RetryLater(what, do="the next run goes on from here", where=where)
