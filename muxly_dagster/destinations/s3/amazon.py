"""Amazon S3 and what speaks its protocol, through dagster-aws's client of boto3."""

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from os.path import commonprefix
from typing import Any, BinaryIO

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore import exceptions as boto  # type: ignore[import-untyped]
from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]
from dagster_aws.s3 import S3Resource

from muxly_dagster.destinations.s3.objects import SHA256, TakenError
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError

# What botocore tells at the level of debugging holds headers that sign in.
logging.getLogger("botocore").setLevel(logging.INFO)

_PART = 16 << 20
_ATTEMPTS = 2  # after the first one, as boto3 counts them
_AT_ONCE = 1_000  # keys in one request to delete

_SIGN_IN = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "InvalidSecurity", "TokenRefreshRequired",
    "AuthFailure", "UnrecognizedClientException", "InvalidClientTokenId", "RequestTimeTooSkewed", "401",
}  # fmt: skip
_DENIED = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "UnauthorizedAccess", "403"}
_PLACE = {
    "NoSuchBucket", "InvalidBucketName", "PermanentRedirect", "MovedPermanently", "IllegalLocationConstraintException",
    "AuthorizationHeaderMalformed", "301", "404",
}  # fmt: skip
_PASSING = {
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "RequestTimeTooSlow", "Throttling", "ThrottlingException",
    "TooManyRequests", "OperationAborted", "ConditionalRequestConflict", "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody",
    "NoSuchUpload", "InvalidPart",
}  # fmt: skip
_NO_CREDENTIALS = (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.TokenRetrievalError)
_BAD_LINE = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
    boto.FlexibleChecksumError,
    Boto3Error,
)
_UNKNOWN_THERE = {"NotImplemented", "MethodNotAllowed"}


class Amazon:
    """A bucket of S3. `encryption` is what each write asks for (`ServerSideEncryption`, `SSEKMSKeyId`)."""

    def __init__(self, bucket: str, resource: S3Resource, encryption: dict[str, str]) -> None:
        self._bucket, self._encryption = bucket, encryption
        self.url = f"s3://{bucket}"
        with self._explained("sign in"):
            self._client: Any = resource.get_client()
        # boto3's transfers do not pass the condition on, so it is added to what they send: nothing here ever writes over an object.
        for operation in ("PutObject", "CompleteMultipartUpload"):
            self._client.meta.events.register(f"provide-client-params.s3.{operation}", _unless_there)

    def put(self, key: str, body: BinaryIO, size: int, sha256: str, content_type: str) -> None:
        """Large objects go in parts, which are given up together when one fails."""
        extra = {"Metadata": {SHA256: sha256}, "ContentType": content_type, **self._encryption}
        config = TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART, max_concurrency=4)
        with self._explained(f"write {key}"):
            try:
                if size < _PART:
                    self._client.put_object(Bucket=self._bucket, Key=key, Body=body, **extra)
                else:
                    self._client.upload_fileobj(body, self._bucket, key, ExtraArgs=extra, Config=config)
            except boto.ClientError as error:
                if _code(error) not in ("PreconditionFailed", "412"):
                    raise
                held = self._client.head_object(Bucket=self._bucket, Key=key)
                if held["Metadata"].get(SHA256) != sha256:
                    raise TakenError(key) from None

    def names(self, prefix: str, beyond: str) -> list[str]:
        """By ListObjectsV2, which answers in the order of UTF-8 bytes."""
        with self._explained(f"list {prefix}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix, StartAfter=beyond)
            return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def read(self, key: str) -> bytes | None:
        """The whole object."""
        with self._explained(f"read {key}"):
            try:
                content: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None
            return content

    def delete(self, keys: Sequence[str]) -> None:
        """A thousand with one request."""
        for start in range(0, len(keys), _AT_ONCE):
            some = [{"Key": key} for key in keys[start : start + _AT_ONCE]]
            with self._explained(f"delete {some[0]['Key']}"):
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": some, "Quiet": True})
                for failed in answer.get("Errors", ()):
                    raise boto.ClientError({"Error": {"Code": failed["Code"], "Message": failed.get("Message", "")}}, "DeleteObjects")

    def drop_unfinished(self, keys: Collection[str]) -> None:
        """Parts of an upload cost money until they are given up, and no listing of objects shows them."""
        with self._explained("give up unfinished uploads"):
            try:
                prefix = commonprefix(sorted(keys))  # noqa: RUF071  (of texts, which need not end at a slash)
                pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=prefix)
                for upload in [each for page in pages for each in page.get("Uploads", ()) if each["Key"] in keys]:
                    self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            except boto.ClientError as error:
                if _code(error) not in _UNKNOWN_THERE:
                    raise

    def check(self) -> str:
        """A listing of one key: unlike HeadBucket, a refusal says why."""
        with self._explained("look at the bucket"):
            self._client.list_objects_v2(Bucket=self._bucket, MaxKeys=1)
        return "the bucket is there and can be listed"

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        """Turn boto3's errors into Muxly's, without their causes, which hold requests with their headers."""
        try:
            yield
        except (boto.ClientError, boto.BotoCoreError, Boto3Error, ResponseParserError, ValueError) as error:
            raise _as_muxly_error(error, doing, self.url) from None


def resource(
    *, region: str, endpoint_url: str, profile: str, access_key_id: str | None, secret_access_key: str | None, session_token: str | None
) -> S3Resource:
    """dagster-aws's resource, with these credentials or the machine's own."""
    return S3Resource(
        region_name=region or None,
        endpoint_url=endpoint_url or None,
        profile_name=profile or None,
        max_attempts=_ATTEMPTS,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        aws_session_token=session_token,
    )


def _unless_there(params: dict[str, Any], **_: object) -> None:
    params["IfNoneMatch"] = "*"  # RFC 9110, 13.1.2


def _code(error: boto.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _as_muxly_error(error: Exception, doing: str, where: str) -> MuxlyError:
    if isinstance(error, boto.ClientError):
        return _refusal(error, doing, where)
    said = " ".join(str(error).split())
    if isinstance(error, _NO_CREDENTIALS):
        do = "set `access_key_id` and `secret_access_key`, or give the machine credentials of its own"
        return SignInError(f"there are no credentials to {doing} with: {said}", do=do, where=where)
    if isinstance(error, boto.SSLError):
        do = "correct `endpoint_url`, or make its certificate one that this machine trusts"
        return ConfigurationError(f"the connection to {doing} is not secure: {said}", do=do, where=where)
    if isinstance(error, _BAD_LINE):
        return RetryLater(f"could not {doing}: {said}", do="the next run goes on from here", where=where)
    if isinstance(error, ResponseParserError):
        do = "see whether `endpoint_url` is the address of S3, with nothing in between"
        return RetryLater(f"the answer to {doing} is not S3's", do=do, where=where)
    return ConfigurationError(f"could not {doing}: {said}", do="correct `bucket`, `region`, `endpoint_url` or `profile`", where=where)


def _refusal(error: boto.ClientError, doing: str, where: str) -> MuxlyError:
    code = _code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = error.response.get("Error", {}).get("Message", "") or code
    what = f"could not {doing}: {code}: {said}" if said != code else f"could not {doing}: {code}"
    if code in _PASSING or status == 429 or status >= 500:
        return RetryLater(what, do="the next run goes on from here", where=where)
    if code in _SIGN_IN:
        return SignInError(what, do="correct the credentials, and the machine's clock if they are right", where=where)
    if code in _DENIED or status in (401, 403):
        do = "see the credentials, and allow them s3:ListBucket, GetObject, PutObject, DeleteObject and AbortMultipartUpload there"
        return SignInError(what, do=do, where=where)
    if code in _PLACE or status in (301, 404):
        return ConfigurationError(what, do="correct `bucket`, `region` or `endpoint_url`, or make the bucket", where=where)
    return ConfigurationError(what, do="correct the destination's settings", where=where)
