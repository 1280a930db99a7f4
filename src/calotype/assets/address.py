"""Where images lie, as ``assets_url`` says it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from calotype.assets.port import Misconfigured

Vendor = Literal["s3", "gs", "az"]

OPTIONS: Final[Mapping[Vendor, frozenset[str]]] = {
    "s3": frozenset({"endpoint", "region", "style"}),
    "gs": frozenset({"endpoint"}),
    "az": frozenset({"endpoint", "account"}),
}
"""What may stand behind the question mark; ``style`` is ``path`` or ``virtual``."""
_VENDORS: Final[Mapping[str, Vendor]] = {each: each for each in OPTIONS}
_FORMS: Final = "a folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"


class Bucket(msgspec.Struct, frozen=True):
    """A place in a cloud store."""

    vendor: Vendor
    name: str
    """Of the bucket; Azure calls it a container."""
    prefix: str
    """Stands before every key; empty, or a path without slashes at its ends."""
    options: Mapping[str, str]

    def __str__(self) -> str:
        """As an operator writes it, without options."""
        return f"{self.vendor}://{self.name}" + (f"/{self.prefix}" if self.prefix else "")


def parse(url: str) -> Path | Bucket:
    """A folder, or a place in a cloud store.

    Raises:
        Misconfigured: it is neither; the URL itself is not repeated, as it may hold a secret.

    """
    scheme, told, _ = url.partition("://")
    if not told:
        return Path(url).expanduser()
    vendor = _VENDORS.get(scheme)
    try:
        parts = urlsplit(url)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        port = parts.port
    except ValueError as error:
        raise Misconfigured(f"is no URL ({error}); write {_FORMS}.") from None
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise Misconfigured("holds credentials; take them out and set the vendor's own variables.")
    if scheme == "file":
        if parts.netloc or not parts.path.startswith("/") or parts.query:
            raise Misconfigured("is no folder; write file:///path/to/folder, or just the path.")
        return Path(unquote(parts.path))
    if vendor is None:
        raise Misconfigured(f"there is no asset store '{scheme}'; write {_FORMS}.")
    prefix = unquote(parts.path).strip("/")
    if not parts.netloc or port is not None or parts.fragment:
        raise Misconfigured(
            f"write {scheme}://<bucket>/<prefix>; a host goes into the option endpoint."
        )
    if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
        raise Misconfigured("the prefix is no path of plain names; write it like team/images.")
    return Bucket(vendor, parts.netloc, prefix, _judged(vendor, options))


def _judged(vendor: Vendor, pairs: list[tuple[str, str]]) -> dict[str, str]:
    options: dict[str, str] = {}
    known = ", ".join(sorted(OPTIONS[vendor]))
    for name, value in pairs:
        if name not in OPTIONS[vendor]:
            raise Misconfigured(
                f"there is no option '{name}' for {vendor}://; there are {known}. "
                "Credentials go into the vendor's own variables."
            )
        if name in options or not value:
            raise Misconfigured(f"the option {name} needs one value.")
        options[name] = value
    _judge_endpoint(options.get("endpoint", "https://s3.example.com"))
    if options.get("style", "path") not in ("path", "virtual"):
        raise Misconfigured("the option style is path or virtual.")
    return options


def _judge_endpoint(endpoint: str) -> None:
    """It is shown to clients, in redirects, and to the log."""
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Misconfigured("the option endpoint is a URL, such as https://s3.example.com.")
    if "@" in parts.netloc:
        raise Misconfigured(
            "the option endpoint holds credentials; take them out and set the vendor's own "
            "variables."
        )
    if "?" in endpoint or "#" in endpoint:
        raise Misconfigured(
            "the option endpoint is a scheme, a host and perhaps a path; take out what stands "
            "behind ? or #."
        )
