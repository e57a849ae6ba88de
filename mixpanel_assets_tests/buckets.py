"""An S3 server on loopback, with a bucket; and how processes are told of it."""

import json
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3  # type: ignore[import-untyped]
import requests
from moto.server import ThreadedMotoServer

BUCKET = "mixpanel-staging"


@dataclass(frozen=True)
class Buckets:
    """The server.

    Attributes:
        port: Where it listens.
    """

    port: int

    @property
    def environment(self) -> dict[str, str]:
        """The variables that name it, and an account."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "an-account",
            "AWS_SECRET_ACCESS_KEY": "its-secret",
            "AWS_REGION": "us-east-1",
        }

    def keys(self, prefix: str = "") -> list[str]:
        """What is in the bucket."""
        found = self._client().list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for entry in found.get("Contents", [])]

    def make(self) -> None:
        """Make the bucket."""
        self._client().create_bucket(Bucket=BUCKET)

    @contextmanager
    def guarded(self, *allowed: str) -> Iterator[dict[str, str]]:
        """The variables of an account that may do no more than this, e.g. `s3:PutObject`, while accounts are looked
        at: a wrong secret is refused too."""
        iam, guest = self._client("iam"), uuid.uuid4().hex  # One process may have several servers, and one IAM.
        iam.create_user(UserName=guest)
        key = iam.create_access_key(UserName=guest)["AccessKey"]
        policy = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": [*allowed], "Resource": "*"}}
        iam.put_user_policy(UserName=guest, PolicyName="guest", PolicyDocument=json.dumps(policy))
        self._look_at_accounts(after=0)
        try:
            account = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
            yield {**self.environment, **account}
        finally:
            self._look_at_accounts(after=10**9)

    def _look_at_accounts(self, after: int) -> None:
        url = f"http://127.0.0.1:{self.port}/moto-api/reset-auth"
        requests.post(url, data=str(after), timeout=10).raise_for_status()

    def _client(self, service: str = "s3") -> Any:
        said = self.environment
        return boto3.client(
            service,
            endpoint_url=said["AWS_ENDPOINT_URL"],
            aws_access_key_id=said["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=said["AWS_SECRET_ACCESS_KEY"],
            region_name=said["AWS_REGION"],
        )


@contextmanager
def buckets() -> Iterator[Buckets]:
    """The server, for as long as the block lasts."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        made = Buckets(port)
        made.make()
        yield made
    finally:
        server.stop()
