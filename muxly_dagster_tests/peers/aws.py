"""An S3 on loopback: moto's server in a process of its own, with signatures and permissions checked.

moto checks signatures once it has been told to, after an IAM user has been made; until then everything is allowed.
"""

import functools
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import httpx

REGION = "us-east-1"
BUCKET = "archive"


@dataclass(frozen=True)
class Aws:
    """A running server with the bucket `archive`, and the keys of a user who may do everything with it."""

    url: str
    access_key_id: str
    secret_access_key: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def client(self) -> Any:
        """boto3's own client, for looking."""
        return _client("s3", self.url, self.access_key_id, self.secret_access_key)

    @property
    def fields(self) -> Mapping[str, str]:
        """What a destination wants to know."""
        return {
            "bucket": BUCKET,
            "endpoint_url": self.url,
            "region": REGION,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
        }

    def keys(self, prefix: str = "") -> list[str]:
        """Every key in the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", ())]

    def read(self, key: str) -> bytes:
        """An object's content."""
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def unfinished(self) -> list[str]:
        """The keys of uploads in parts that nobody finished or gave up."""
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())]

    def user(self, name: str, *actions: str) -> dict[str, str]:
        """The keys of a new user who may do only these things ("s3:ListBucket")."""
        return _user(_client("iam", self.url, self.access_key_id, self.secret_access_key), name, *actions)


@contextmanager
def running() -> Iterator[Aws]:
    """A server until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=10)) as web:
            web.get("/moto-api/").raise_for_status()
            begun = Aws(url, "anybody", "anybody")
            begun.client.create_bucket(Bucket=BUCKET)
            keys = _user(_client("iam", url, "anybody", "anybody"), "owner", "*")
            web.post("/moto-api/reset-auth", content="0").raise_for_status()
        yield Aws(url, **keys)
    finally:
        server.terminate()
        server.wait()


@functools.lru_cache
def _client(service: str, url: str, key: str, secret: str) -> Any:
    return boto3.session.Session().client(
        service, endpoint_url=url, region_name=REGION, aws_access_key_id=key, aws_secret_access_key=secret
    )


def _user(iam: Any, name: str, *actions: str) -> dict[str, str]:
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="may", PolicyDocument=json.dumps(policy))
    made = iam.create_access_key(UserName=name)["AccessKey"]
    return {"access_key_id": made["AccessKeyId"], "secret_access_key": made["SecretAccessKey"]}
