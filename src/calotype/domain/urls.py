"""Which URLs a user may hand us: judged from their text alone, before any name is looked up.

The judgement is strict on purpose: what two parsers could read in two ways is refused, so that
what is judged here is what ``net/fetcher.py`` connects to. A public-looking name can still lead
to a private address; that is judged again, on the addresses, when the URL is fetched.
"""

import ipaddress
import re
import unicodedata
from typing import Final, NoReturn
from urllib.parse import quote

import msgspec

from calotype.domain.errors import InvalidParameter

MAX_URL_CHARS: Final = 4096
_MAX_HOST_CHARS: Final = 253
_MAX_PORT: Final = 65_535
_PORTS: Final = {"http": 80, "https": 443}
_MAX_BYTE: Final = 255
_IPV4_LABELS: Final = 4
_PUNYCODE: Final = "xn--"
# What may stand in a path or query as it is; anything else is percent-encoded for the wire.
# The rest is left alone to the byte: a signed URL must not be spelled anew.
_URL_CHARS: Final = "!#$%&'()*+,/:;=?@[]~"

_URL: Final = re.compile(r"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)
_IPV6_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\])(?::([^:]*))?")
_NAME_AUTHORITY: Final = re.compile(r"([^:\[\]]*)(?::([^:]*))?")
_ENTRY_WITH_PORT: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*):[^:]*")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_ASCII_JUNK: Final = re.compile(r"[\x00-\x20\x7f\\]")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"0x[0-9a-f]*|[0-9]+")

_PRIVATE_SUFFIXES: Final = (
    ".localhost",
    ".localdomain",
    ".local",
    ".lan",
    ".intranet",
    ".internal",
    ".home.arpa",
    ".svc",
)
_METADATA_NAMES: Final = frozenset(
    {"metadata.google.internal", "metadata.goog", "metadata.tencentyun.com"}
)

# ``ipaddress`` knows only what the registries said when this Python was released, and calls
# multicast and the old site-local range global, so the ranges are spelled out here.
_IPV4_CLOSED: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata service
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host agent, served to every virtual machine
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_IPV6_OPEN: Final = ipaddress.IPv6Network("2000::/3")
_IPV6_CLOSED: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address in disguise, and long retired
        "3ffe::/16",
        "3fff::/20",
    )
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class ReferenceUrl(msgspec.Struct, frozen=True):
    """A URL taken apart, each part in the one spelling in which it goes on the wire."""

    scheme: str
    """``http`` or ``https``."""
    host: str
    """As ``canonical_host`` gives it: no brackets, no final dot."""
    port: int | None
    """None where the URL names none."""
    target: str
    """Path and query, percent-encoded; never empty, never with a fragment."""

    @property
    def endpoint(self) -> str:
        """Host and port that it leads to."""
        return with_port(self.host, self.port or _PORTS[self.scheme])

    def __str__(self) -> str:
        """The URL as text."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"


class _Wrong(ValueError):
    """What is wrong with a URL, in words that carry no part of it."""


def judge_reference_url(
    url: object, *, allow_hosts: frozenset[str], param: str = "image_input"
) -> str:
    """The URL, unchanged, where we may try to fetch it.

    Args:
        url: what the client sent, of any type.
        allow_hosts: names and addresses that are fetched from though they are not public.
        param: the request field, for the error.

    Raises:
        InvalidParameter: the URL is malformed or leads to no public host. The message holds no
            part of the URL, as that may carry credentials.

    """
    parse_reference_url(url, allow_hosts=allow_hosts, param=param)
    return str(url)


def parse_reference_url(
    url: object, *, allow_hosts: frozenset[str], param: str = "image_input"
) -> ReferenceUrl:
    """The parts of a URL that ``judge_reference_url`` accepts, for the one who fetches it.

    Raises:
        InvalidParameter: as ``judge_reference_url`` does.

    """
    try:
        parts, written = _take_apart(url)
        _check_host(parts, written, allow_hosts)
    except _Wrong as wrong:
        raise InvalidParameter(str(wrong), param=param) from None
    return parts


def endpoint_of(url: str) -> str:
    """Host and port that a URL leads to, in their one spelling; empty where it cannot be read."""
    try:
        parts, _ = _take_apart(url)
    except ValueError:
        return ""
    return parts.endpoint


def canonical_host(host: str) -> str:
    """The one spelling of a host: lower case, no brackets, no final dot, addresses written out.

    Every spelling of an IPv4 address that some resolver understands (``2130706433``, ``0x7f.1``,
    full-width digits, mapped into IPv6) comes out as four decimal numbers.

    Raises:
        ValueError: it is neither an address nor a name that DNS could hold.

    """
    if ":" in host or "[" in host:
        return _canonical_ipv6(host)
    name = _ascii_name(host)
    address = _ipv4(name)
    if address is not None:
        return str(address)
    if not all(_LABEL.fullmatch(label) and _sane_punycode(label) for label in name.split(".")):
        _refuse_name()
    return name


def canonical_hosts(hosts: frozenset[str]) -> frozenset[str]:
    """The hosts, each in its ``canonical_host`` spelling, or ``with_port`` where it has a port.

    Raises:
        ValueError: one of them is no host.

    """
    return frozenset(map(_canonical_entry, hosts))


def with_port(host: str, port: int) -> str:
    """A canonical host and a port as one text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_public(address: str) -> bool:
    """Whether the text is an address that is reachable by everyone on the internet.

    An IPv4 address within an IPv6 one (mapped, NAT64) is judged as itself; the other tunnels are
    never public. Neither are text that is no address and addresses with a zone.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv4Address):
        return _is_public_ipv4(found)
    if "%" in address:
        return False
    if found.ipv4_mapped is not None:
        return _is_public_ipv4(found.ipv4_mapped)
    if found in _NAT64:
        return _is_public_ipv4(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF))
    return found in _IPV6_OPEN and not any(found in closed for closed in _IPV6_CLOSED)


def _is_public_ipv4(address: ipaddress.IPv4Address) -> bool:
    return not any(address in closed for closed in _IPV4_CLOSED)


def _take_apart(url: object) -> tuple[ReferenceUrl, str]:
    """The parts, and the host as it was written."""
    if not isinstance(url, str):
        raise _Wrong("A URL must be given as text that begins with http:// or https://.")
    if len(url) > MAX_URL_CHARS:
        raise _Wrong(f"A URL must have at most {MAX_URL_CHARS} characters.")
    if _has_junk(url):
        raise _Wrong(
            "A URL must not contain spaces, control characters or backslashes; percent-encode them."
        )
    matched = _URL.match(url)
    if matched is None:
        raise _Wrong("A URL must begin with http:// or https://.")
    scheme, authority, target = matched.groups()
    if "@" in authority:
        raise _Wrong(
            "A URL must not carry a user name or a password; use a URL that is public or signed."
        )
    written, port = _split_authority(authority)
    parts = ReferenceUrl(
        scheme=scheme.lower(),
        host=canonical_host(written),
        port=port,
        target=quote(target if target.startswith("/") else f"/{target}", safe=_URL_CHARS),
    )
    return parts, written


def _has_junk(url: str) -> bool:
    """Whether anything in the text is a space, a control character, a surrogate or a backslash."""
    if _ASCII_JUNK.search(url):
        return True
    return not url.isascii() and any(
        (category := unicodedata.category(char)) in {"Cc", "Cs"} or category[0] == "Z"
        for char in url
    )


def _split_authority(authority: str) -> tuple[str, int | None]:
    """The host as written, and the port."""
    pattern = _IPV6_AUTHORITY if authority.startswith("[") else _NAME_AUTHORITY
    matched = pattern.fullmatch(authority)
    if matched is None:
        raise _Wrong(
            "The host of a URL cannot be read; write a host name, with an IPv6 address in brackets."
        )
    host, port = matched.groups()
    if host in {"", "."}:
        raise _Wrong("A URL must name a host, as in https://example.com/path.")
    if port is None:
        return host, None
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= _MAX_PORT:
        raise _Wrong("The port of a URL must be a number from 1 to 65535.")
    return host, int(port)


def _check_host(parts: ReferenceUrl, written: str, allow_hosts: frozenset[str]) -> None:
    """Refuse a canonical host that is not public, unless the operator listed it."""
    problem = _host_problem(parts.host, written)
    if problem is not None and not {parts.host, parts.endpoint} & _readable(allow_hosts):
        raise _Wrong(problem)


def _canonical_entry(entry: str) -> str:
    if not _ENTRY_WITH_PORT.fullmatch(entry):
        return canonical_host(entry)
    host, port = _split_authority(entry)
    return canonical_host(host) if port is None else with_port(canonical_host(host), port)


def _readable(hosts: frozenset[str]) -> set[str]:
    found = set()
    for host in hosts:
        try:
            found.add(_canonical_entry(host))
        except ValueError:
            continue
    return found


def _host_problem(host: str, written: str) -> str | None:
    if ":" in host or _NUMBER.fullmatch(host.rpartition(".")[2]):
        if not is_public(host):
            return "A URL must lead to a public address, not to a private, local or reserved one."
        if ":" not in host and written != host:
            return "Write the address in a URL as four plain decimal numbers."
        return None
    if "." not in host:
        return "A URL must have a full public host name, as in images.example.com."
    if host.endswith(_PRIVATE_SUFFIXES) or host in _METADATA_NAMES:
        return "A URL must have a public host name, not one of a private network."
    return None


def _refuse_name() -> NoReturn:
    raise _Wrong("The host of a URL is neither a valid domain name nor an address.")


def _canonical_ipv6(host: str) -> str:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if "%" in bare:
        raise _Wrong("An IPv6 address in a URL must not have a zone.")
    try:
        address = ipaddress.IPv6Address(bare)
    except ValueError:
        _refuse_name()
    return str(address.ipv4_mapped or address)


def _ascii_name(host: str) -> str:
    """The host in the letters of DNS; full-width and circled characters become plain ones."""
    # The limit comes first: the time that the IDNA codec takes grows with the square.
    if len(host) > _MAX_HOST_CHARS + 1:
        _refuse_name()
    if not host.isascii():
        if any(unicodedata.category(char) == "Cf" for char in host):
            _refuse_name()
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            _refuse_name()
    name = host.lower().removesuffix(".")
    if not 0 < len(name) <= _MAX_HOST_CHARS:
        _refuse_name()
    return name


def _sane_punycode(label: str) -> bool:
    """Whether a label that says it is punycode is, and hides no plain or odd characters."""
    if not label.startswith(_PUNYCODE):
        return True
    try:
        text = label.removeprefix(_PUNYCODE).encode("ascii").decode("punycode")
    except UnicodeError:
        return False
    return not (text.isascii() or _has_junk(text) or text != unicodedata.normalize("NFKC", text))


def _ipv4(name: str) -> ipaddress.IPv4Address | None:
    """The address that a name is a spelling of, by the rules of browsers and ``inet_aton``."""
    labels = name.split(".")
    if not _NUMBER.fullmatch(labels[-1]):
        return None
    *heads, last = numbers = [_number(label) for label in labels]
    room = _IPV4_LABELS + 1 - len(numbers)
    if room < 1 or last >= 256**room or any(head > _MAX_BYTE for head in heads):
        _refuse_name()
    value = sum(head << 8 * (3 - place) for place, head in enumerate(heads)) + last
    return ipaddress.IPv4Address(value)


def _number(label: str) -> int:
    if _NUMBER.fullmatch(label):
        if label.startswith("0x"):
            return int(label[2:] or "0", 16)
        if not label.startswith("0"):
            return int(label)
        if not set(label) - set("01234567"):
            return int(label, 8)
    _refuse_name()
