"""What a cloud store's refusal means: by its status and code, in words for operators.

The library gives both as text only. Nothing here repeats the query of a URL, which may hold a
credential.
"""

import re
from collections.abc import Mapping
from typing import Final

from calotype.assets.address import Bucket, Vendor

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w{1,60})</Code>")
_QUERY: Final = re.compile(r"\?[^\s)\"']*")
_LENGTH: Final = 300

_VARIABLES: Final[Mapping[Vendor, str]] = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_NO_CREDENTIALS: Final = ("169.254.169.254", "metadata.google.internal", "metadata/identity")
"""Where the library asks a cloud's machine who it is, having found nothing else."""
_CODES: Final[Mapping[str, str]] = {
    "InvalidAccessKeyId": "the store does not know this access key; check {variables}",
    "SignatureDoesNotMatch": "the secret key is wrong; check {variables}",
    "AuthenticationFailed": "the account's key is wrong; check {variables}",
    "ExpiredToken": "the credentials have expired; renew {variables}",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "AuthorizationHeaderMalformed": "the bucket lies in another region; set it by ?region=…",
    "PermanentRedirect": "the bucket lies in another region; set it by ?region=…",
    "NoSuchBucket": "there is no bucket {name}; make it, or check the name",
    "ContainerNotFound": "there is no container {name}; make it, or check the name",
}
"""Code of the store's answer → cause and cure."""
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404


def reason(error: BaseException) -> str:
    """What went wrong, in one line without secrets."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = str(error).partition("\n\nDebug source")[0]
    if (code := _CODE.search(text)) is not None:
        return f"{status_of(error) or ''} {code[1]}".strip()
    line = _QUERY.sub("?…", text.partition("\n")[0]).rstrip(" .:")
    return line[:_LENGTH] or type(error).__name__


def status_of(error: BaseException) -> int | None:
    """The HTTP status of the store's answer, where there was one."""
    found = _STATUS.search(str(error))
    return None if found is None else int(found[1])


def diagnosed(error: BaseException, bucket: Bucket, *, deed: str | None = None) -> str | None:
    """Cause and cure where the configuration is wrong; None where the store may just be away.

    Args:
        error: what the library raised.
        bucket: the store.
        deed: what was tried, as a verb; None judges by the answer's code alone.

    """
    text, status = str(error), status_of(error)
    named = {"name": bucket.name, "variables": _VARIABLES[bucket.vendor]}
    told: str | None = None
    if (code := _CODE.search(text)) is not None and code[1] in _CODES:
        told = f"{_CODES[code[1]]} ({code[1]})"
    elif deed is None:
        return None
    elif any(host in text for host in _NO_CREDENTIALS):
        told = "there are no credentials; set {variables}"
    elif "incorrectly configured region" in text:
        told = _CODES["PermanentRedirect"]
    elif status in (_UNAUTHORIZED, _FORBIDDEN):
        told = f"these credentials may not {deed} there; let them write, read, list and delete"
    elif status == _NOT_FOUND and deed in ("write", "list"):
        told = _CODES["NoSuchBucket"]
    return None if told is None else f"{bucket}: {told.format(**named)}."
