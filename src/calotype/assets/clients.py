"""The library's client for each cloud store."""

import atexit
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from calotype.assets.address import Bucket
from calotype.assets.faults import reason
from calotype.assets.port import Misconfigured

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, RetryConfig, S3Config

Client = S3Store | GCSStore | AzureStore

SETTLING_SECONDS: Final = 0.1
RETRY_SECONDS: Final = 20
"""For so long the library tries again by itself what a store refuses for the moment."""
_STALL_SECONDS: Final = 60
"""A store that is silent for so long is gone; a part of an image must be sent in this time."""


@atexit.register
def _settle() -> None:
    """Let the library's threads come to rest before the interpreter goes.

    They let go of Python's objects a moment after a call has ended or was given up. One that does
    so while the interpreter is being taken apart aborts the process: 2 of 100 that ended with
    downloads under way did (``docs/decisions/0017-asset-stores.md``).
    """
    time.sleep(SETTLING_SECONDS)


def client_of(bucket: Bucket, *, patient: bool = True) -> Client:
    """A client, with credentials from the vendor's usual variables.

    Args:
        bucket: where the images lie.
        patient: whether it tries again what fails; else it soon says so.

    Raises:
        Misconfigured: the options or the credentials cannot be read.

    """
    try:
        return _made(bucket, _how(bucket, patient=patient), _tries(patient=patient))
    except (BaseError, ValueError, OSError) as error:
        raise Misconfigured(f"{bucket}: cannot be used: {reason(error)}.") from None


def _how(bucket: Bucket, *, patient: bool) -> "ClientConfig":
    how: ClientConfig = {
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": timedelta(seconds=_STALL_SECONDS if patient else 5),
        "timeout": timedelta(days=1),  # of a whole answer: a slow reader is no fault
    }
    if bucket.options.get("endpoint", "").startswith("http://"):
        how["allow_http"] = True
    return how


def _tries(*, patient: bool) -> "RetryConfig":
    return {
        "max_retries": 100 if patient else 2,
        "retry_timeout": timedelta(seconds=RETRY_SECONDS if patient else 5),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
    }


def _made(bucket: Bucket, how: "ClientConfig", tries: "RetryConfig") -> Client:
    said, prefix = bucket.options, bucket.prefix or None
    if bucket.vendor == "s3":
        s3: S3Config = {}
        if "endpoint" in said:
            s3["endpoint"] = said["endpoint"]
        if "region" in said:
            s3["region"] = said["region"]
        if "style" in said:
            s3["virtual_hosted_style_request"] = said["style"] == "virtual"
        return S3Store(
            bucket.name, prefix=prefix, config=s3, client_options=how, retry_config=tries
        )
    if bucket.vendor == "gs":
        gs: GCSConfig = {"base_url": said["endpoint"]} if "endpoint" in said else {}
        return GCSStore(
            bucket.name, prefix=prefix, config=gs, client_options=how, retry_config=tries
        )
    az: AzureConfig = {}
    if "endpoint" in said:
        az["endpoint"] = said["endpoint"]
    if "account" in said:
        az["account_name"] = said["account"]
    return AzureStore(bucket.name, prefix=prefix, config=az, client_options=how, retry_config=tries)
