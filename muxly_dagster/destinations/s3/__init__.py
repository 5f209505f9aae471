"""The `s3` destination: each stretch of changes as objects in a bucket of S3, of what speaks its protocol, or of Google Cloud Storage.

An object's key says which delivery and which changes it holds, and nothing is ever written over; `committing` tells how a delivery becomes
whole.
"""

import threading
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, field_validator, model_validator

from muxly_dagster.auth import Auth, NoAuth
from muxly_dagster.destination import Delivery, Receipt
from muxly_dagster.destinations.s3.objects import Objects
from muxly_dagster.errors import MuxlyError
from muxly_dagster.resource import CheckResult
from muxly_dagster.writing.partition import levels
from muxly_dagster.writing.record_files import RecordFiles

_SCHEMES = ("s3://", "gs://")
_AMAZONS = ("region", "profile", "access_key_id", "secret_access_key", "session_token", "encryption")


class S3(RecordFiles):
    """A bucket of JSON, NDJSON, CSV, Parquet or Arrow objects, with a manifest for each delivery."""

    type: ClassVar[str] = "s3"
    title: ClassVar[str] = "Amazon S3 and Google Cloud Storage"
    example: ClassVar[dict[str, Any]] = {"bucket": "acme-archive", "prefix": "muxly", "format": "parquet"}

    # What is refused may hold a key: pydantic must not quote it.
    model_config = ConfigDict(hide_input_in_errors=True)

    bucket: str = Field(description="The bucket: its name (of S3), `s3://name/prefix` or `gs://name/prefix`.")
    prefix: str = Field("", description="What all keys begin with, such as `exports/crm`.")
    endpoint_url: str = Field("", description="The address of another service that speaks S3's protocol, such as MinIO.")
    region: str = Field("", description="The bucket's region; the machine's own setting unless told otherwise.")
    access_key_id: SecretStr | None = Field(None, description="The access key's id; without it, the machine's own credentials are used.")
    secret_access_key: SecretStr | None = Field(None, description="The secret access key.")
    session_token: SecretStr | None = Field(None, description="The session token of temporary credentials.")
    profile: str = Field("", description="A profile of the machine's AWS settings.")
    auth: Auth = Field(
        NoAuth(), description="Google only: a service account, or a user by OAuth; without it, the machine's own identity is used."
    )
    encryption: Literal["AES256", "aws:kms"] | None = Field(
        None, description="How S3 encrypts the objects; as the bucket says unless told otherwise."
    )
    kms_key_id: str = Field("", description="The key of AWS KMS (with `aws:kms`) or of Cloud KMS that encrypts the objects.")

    _made: list[Objects] = PrivateAttr(default_factory=list)
    _making: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @field_validator("bucket")
    @classmethod
    def _a_bucket(cls, bucket: str) -> str:
        name = bucket.partition("://")[2] if bucket.startswith(_SCHEMES) else bucket
        if "://" in name or not name.strip("/"):
            raise ValueError("the bucket is a name, s3://name/prefix or gs://name/prefix")
        return bucket

    @model_validator(mode="after")
    def _consistent(self) -> "S3":
        if self._is_google:
            said = [name for name in _AMAZONS if getattr(self, name)]
            if said:
                raise ValueError(f"`{said[0]}` is for S3; a gs:// bucket signs in with `auth` and encrypts with `kms_key_id`")
        elif not isinstance(self.auth, NoAuth):
            raise ValueError("`auth` is for gs:// buckets; S3 signs in with `access_key_id` and `secret_access_key`")
        elif bool(self.access_key_id) != bool(self.secret_access_key):
            raise ValueError("`access_key_id` and `secret_access_key` go together")
        elif self.kms_key_id and self.encryption != "aws:kms":
            raise ValueError("`kms_key_id` needs `encryption: aws:kms`")
        return self

    def deliver(self, delivery: Delivery) -> Receipt:
        """Store the stretch as objects, then its manifest. Objects of an earlier attempt at any part of it are removed."""
        from muxly_dagster.destinations.s3.committing import MANIFESTS, commit, written

        pieces, detail = self.pieces(delivery)
        folder = self.table_folder(delivery.table)
        objects = self._objects()
        with written(pieces, self.form, delivery, f"{self._prefix}{folder}/") as files:
            done = commit(objects, files, self.form, delivery, f"{self._prefix}{MANIFESTS}/{folder}/")
            detail |= {"manifest": f"{objects.url}/{done.manifest}", "bytes": sum(file.size for file in files), "files": len(files)}
        if done.repeated:
            detail["repeated"] = True
        if done.removed:
            detail["files_removed"] = done.removed
        return Receipt(len(delivery.rows), detail=detail)

    def check(self) -> CheckResult:
        """See whether the bucket can be reached; nothing is written."""
        tried = f"look at {self._scheme}{self._name}"
        try:
            return CheckResult("ok", tried, self._objects().check())
        except MuxlyError as error:
            return CheckResult.failed(tried, error)

    def public_name(self, table: str) -> str:
        """The table's folder and what its objects are called."""
        below = [f"{level.name}=*" if level.name else "*" for level in levels(self.partition)]
        path = "/".join([self.table_folder(table), *below, f"*.{self.form.extension}"])
        return f"{self._scheme}{self._name}/{self._prefix}{path}"

    @property
    def _is_google(self) -> bool:
        return self.bucket.startswith("gs://")

    @property
    def _scheme(self) -> str:
        return "gs://" if self._is_google else "s3://"

    @property
    def _name(self) -> str:
        return self.bucket.removeprefix(self._scheme).partition("/")[0]

    @property
    def _prefix(self) -> str:
        """What keys begin with, empty or with a slash at its end."""
        parts = [self.bucket.removeprefix(self._scheme).partition("/")[2].strip("/"), self.prefix.strip("/")]
        return "".join(f"{part}/" for part in parts if part)

    def _objects(self) -> Objects:
        """The bucket, with a client that lives as long as this destination: making one costs longer than a small delivery."""
        with self._making:
            if not self._made:
                self._made.append(self._google() if self._is_google else self._amazon())
            return self._made[0]

    def _amazon(self) -> Objects:
        from muxly_dagster.destinations.s3.amazon import Amazon, resource

        asked = {"ServerSideEncryption": self.encryption, "SSEKMSKeyId": self.kms_key_id}
        made = resource(
            region=self.region,
            endpoint_url=self.endpoint_url,
            profile=self.profile,
            access_key_id=_revealed(self.access_key_id),
            secret_access_key=_revealed(self.secret_access_key),
            session_token=_revealed(self.session_token),
        )
        return Amazon(self._name, made, {name: value for name, value in asked.items() if value})

    def _google(self) -> Objects:
        from muxly_dagster.destinations.s3.google_cloud import GoogleCloud

        return GoogleCloud(self._name, self.auth, endpoint=self.endpoint_url, kms_key=self.kms_key_id)


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
