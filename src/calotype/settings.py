"""The only reader of ``calotype.toml`` and of the environment: one frozen object, made once.

A setting is a field of ``Settings``: ``data_dir`` in the file, ``CALOTYPE_DATA_DIR`` in the
environment, which wins. Channels stand in the file only. ``docs/reference/settings.md`` tells
what each setting is for; a test fails when one is missing there.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from calotype.domain.channel import Channel

PREFIX: Final = "CALOTYPE_"
CONFIG_FILE: Final = "calotype.toml"
POSTGRES: Final = ("postgresql://", "postgres://")
CLIENT_VARIABLES: Final = frozenset({"CALOTYPE_CONFIG", "CALOTYPE_API_KEY", "CALOTYPE_BASE_URL"})
"""Read by the command line, not by the server."""


class SettingsError(Exception):
    """A setting is wrong; the message names the file (or variable), the key and the cure."""


class Secret(msgspec.Struct, frozen=True):
    """Text that shows itself to nobody who does not ask."""

    value: str

    def __repr__(self) -> str:
        return "Secret('…')"

    __str__ = __repr__


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an operator can set; the defaults run on a laptop."""

    data_dir: Path = Path("calotype-data")
    """Folder of the embedded database, the stored images and the secret."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8080
    """Port to listen on; 0 takes a free one."""
    public_url: str = ""
    """How clients reach this server, such as ``https://images.example.com``; empty takes the
    host that each request names."""
    secret: Secret = Secret("")
    """Signs asset URLs; empty makes one and keeps it in the data folder."""
    database_url: str = ""
    """``sqlite:///path/to/file.db`` or ``postgresql://user@host/name``; empty is ``calotype.db``
    in the data folder."""
    catalog_dir: Path | None = None
    """Folder of the operator's own model files, which add to or replace the shipped ones."""
    reference_allow_hosts: tuple[str, ...] = ()
    """Names and addresses that references may be fetched from although they are private."""
    reference_timeout_seconds: float = 30.0
    """Longest time for one try at fetching one reference."""
    asset_url_seconds: int = 86_400
    """How long a signed image URL is good for, at least."""
    worker_concurrency: int = 0
    """Most tasks at a time in one worker process on PostgreSQL; 0 is no limit."""
    worker_lease_seconds: float = 12.0
    """After so long without a sign of life a worker on PostgreSQL has lost its tasks to others;
    the same in every worker."""
    drain_seconds: float = 20.0
    """How long a stopping server waits for work that cannot be parked."""
    sandbox_seconds: float = 4.0
    """Simulated work of the sandbox channel; 0 is none."""
    sandbox_processes: int = 2
    """Processes that draw the sandbox's pictures."""
    log_level: str = "info"
    """``debug``, ``info``, ``warning`` or ``error``."""
    channels: tuple[Channel, ...] = ()
    """Upstreams; in ``calotype.toml`` only."""

    def __repr__(self) -> str:
        """Without what it holds: the database's URL may carry a password."""
        return f"Settings(data_dir={str(self.data_dir)!r}, secret={self.secret!r}, …)"

    @property
    def shared_database(self) -> bool:
        """Whether other machines may work on the same database."""
        return self.database_url.startswith(POSTGRES)

    @property
    def database_path(self) -> Path:
        """The file of the embedded database."""
        if self.database_url:
            return Path(self.database_url.removeprefix("sqlite:///"))
        return self.data_dir / "calotype.db"

    @property
    def worker_lock_path(self) -> Path:
        """Held by the one process that develops tasks of the embedded database."""
        return self.database_path.with_name("worker.lock")

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None, file: Path | None = None) -> Self:
        """Read file and environment, and refuse what is unknown, malformed or contradictory.

        Raises:
            SettingsError: with file or variable, key and cure.

        """
        environment = dict(os.environ) if environment is None else environment  # noqa: TID251 -- the one reader
        values: dict[str, Any] = {}
        named = file or (
            Path(environment["CALOTYPE_CONFIG"]) if environment.get("CALOTYPE_CONFIG") else None
        )
        path = named or Path(CONFIG_FILE)
        if named is not None or path.exists():
            values = _from_file(path)
        overrides = _from_environment(environment)
        said_by = {name: f"{path}: {name}" for name in values}
        said_by |= {name: f"{PREFIX}{name.upper()}" for name in overrides}
        values |= overrides
        _check(values, said_by)
        return cls(**values)


_FIELDS: Final = {field.name: field for field in msgspec.structs.fields(Settings)}


def _where(name: str, source: str) -> str:
    return f"{source}: {name}"


def _from_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}); check the path.") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: is not TOML: {error}.") from error
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name not in _FIELDS:
            raise SettingsError(_unknown(_where(name, str(path)), name, list(_FIELDS)))
        if name == "channels":
            values[name] = _channels(value, str(path))
        else:
            values[name] = _convert(_where(name, str(path)), name, value)
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    known = {f"{PREFIX}{name.upper()}": name for name in _FIELDS if name != "channels"}
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable in CLIENT_VARIABLES:
            continue
        if variable not in known:
            raise SettingsError(_unknown(variable, variable, [*known, *CLIENT_VARIABLES]))
        name = known[variable]
        if text or name in {"public_url", "database_url", "reference_allow_hosts"}:
            value: Any = (
                [part.strip() for part in text.split(",") if part.strip()]
                if name == "reference_allow_hosts"
                else text
            )
            values[name] = _convert(variable, name, value)
    return values


def _convert(where: str, name: str, value: Any) -> Any:
    kind: Any = _FIELDS[name].type
    if kind is Secret:
        if not isinstance(value, str):
            raise SettingsError(f"{where}: must be text.")
        return Secret(value)
    if name in {"data_dir", "catalog_dir"}:
        if not isinstance(value, str) or not value or "\0" in value:
            raise SettingsError(f"{where}: must be the path of a folder.")
        return Path(value).expanduser()
    try:
        return msgspec.convert(value, kind, strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: {error}; got {value!r}.") from None


def _channels(value: Any, source: str) -> tuple[Channel, ...]:
    if not isinstance(value, list):
        raise SettingsError(f"{source}: channels: write each channel as a [[channels]] table.")
    channels: list[Channel] = []
    fields = [field.name for field in msgspec.structs.fields(Channel)]
    for place, table in enumerate(value, start=1):
        where = f"{source}: channels[{place}]"
        for key in table if isinstance(table, dict) else ():
            if key not in fields:
                raise SettingsError(_unknown(f"{where}.{key}", key, fields))
        try:
            channels.append(msgspec.convert(table, Channel))
        except msgspec.ValidationError as error:
            raise SettingsError(f"{where}: {error}") from None
    for what in ("id", "slug"):
        seen = [getattr(channel, what) for channel in channels]
        for one in seen:
            if seen.count(one) > 1:
                raise SettingsError(f"{source}: channels: {what} {one!r} is used twice.")
    for place, channel in enumerate(channels, start=1):
        where = f"{source}: channels[{place}]"
        if channel.id <= RESERVED_CHANNEL_IDS:
            raise SettingsError(
                f"{where}.id: 1 to {RESERVED_CHANNEL_IDS} are the built-in channels'; "
                f"take {RESERVED_CHANNEL_IDS + 1} or more."
            )
        if channel.weight < 1 or channel.concurrency < 0:
            raise SettingsError(f"{where}: weight must be 1 or more, concurrency 0 or more.")
    return tuple(channels)


RESERVED_CHANNEL_IDS: Final = 9
MIN_SECRET: Final = 16


def _check(values: Mapping[str, Any], said_by: Mapping[str, str]) -> None:
    """What no type can say."""
    low = {
        "port": 0,
        "sandbox_seconds": 0,
        "drain_seconds": 0,
        "asset_url_seconds": 60,
        "sandbox_processes": 1,
        "worker_concurrency": 0,
        "worker_lease_seconds": 2,
        "reference_timeout_seconds": 1,
    }
    for name, least in low.items():
        if name in values and not least <= values[name] <= 10_000_000:  # noqa: PLR2004 -- 115 days
            raise SettingsError(f"{said_by[name]}: must be {least} or more, and sensible.")
    if values.get("port", 0) > 65_535:  # noqa: PLR2004 -- the largest port there is
        raise SettingsError(f"{said_by['port']}: must be 0 to 65535.")
    if "host" in values and not values["host"].strip():
        raise SettingsError(f"{said_by['host']}: must be an address, such as 127.0.0.1.")
    if values.get("log_level", "info") not in {"debug", "info", "warning", "error"}:
        raise SettingsError(f"{said_by['log_level']}: must be debug, info, warning or error.")
    database = values.get("database_url", "")
    if database and not database.startswith(("sqlite:///", *POSTGRES)):
        raise SettingsError(
            f"{said_by['database_url']}: write sqlite:///path/to/file.db or "
            "postgresql://user@host/name, or leave it out for the database in the data folder."
        )
    secret = values.get("secret", Secret("")).value
    if secret and len(secret) < MIN_SECRET:
        raise SettingsError(
            f"{said_by['secret']}: must have {MIN_SECRET} characters or more; whoever "
            "guesses it can make image URLs."
        )
    public = values.get("public_url", "")
    if public and not public.startswith(("http://", "https://")):
        raise SettingsError(f"{said_by['public_url']}: write http:// or https:// and the host.")


def _unknown(where: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}."
    return f"{where}: there is no such setting; {hint}"
