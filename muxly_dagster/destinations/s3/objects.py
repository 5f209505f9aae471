"""What the destination needs of a store of objects: put what is not there yet, list, read, delete."""

from collections.abc import Collection, Sequence
from typing import BinaryIO, Protocol

SHA256 = "muxly-sha256"
"""The object's metadata that holds the SHA-256 of its content, in hex."""

CONTENT_TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.file",
}


class TakenError(Exception):
    """An object of this key is there, and its content is another one."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class Objects(Protocol):
    """One bucket. Used from several threads.

    Every method raises SignInError, ConfigurationError and RetryLater as `Destination.deliver` does.
    """

    @property
    def url(self) -> str:
        """The bucket as people write it: `s3://name`."""

    def put(self, key: str, body: BinaryIO, size: int, sha256: str, content_type: str) -> None:
        """Store an object unless one is there. One with the same content is as good as ours.

        Raises TakenError where one with other content is there, which stays as it is.
        """

    def names(self, prefix: str, beyond: str) -> list[str]:
        """The keys that begin with `prefix` and come after the key `beyond`, in their order."""

    def read(self, key: str) -> bytes | None:
        """An object's content; None where there is none."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, whether they are there or not."""

    def drop_unfinished(self, keys: Collection[str]) -> None:
        """Drop what was uploaded of these keys by processes that were killed on the way."""

    def check(self) -> str:
        """See whether the bucket can be reached and listed, in words; nothing is written."""
