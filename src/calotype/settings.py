"""The only reader of ``calotype.toml`` and of the environment: one frozen object, made once.

A setting is a field of ``Settings``: ``data_dir`` in the file, ``CALOTYPE_DATA_DIR`` in the
environment, which wins. Channels stand in the file only; ``channels`` says what they may hold.
``docs/reference/settings.md`` tells what each setting is for; a test fails when one is missing
there.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Self

import msgspec

from calotype.channels import ChannelFault, Sources, check_together, read_channel, variables
from calotype.domain.catalog import MAX_DAYS, REFERENCE_DAYS, RESULT_DAYS
from calotype.domain.channel import Channel
from calotype.domain.secret import Secret

PREFIX: Final = "CALOTYPE_"
CONFIG_FILE: Final = "calotype.toml"
_CONFIG_VARIABLE: Final = "CALOTYPE_CONFIG"
_OTLP_VARIABLE: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_LARGEST_SECRET: Final = 65_536
"""Bytes."""
POSTGRES: Final = ("postgresql://", "postgres://")
CLIENT_VARIABLES: Final = frozenset({"CALOTYPE_API_KEY", "CALOTYPE_BASE_URL"})
"""Read by the command line, not by the server."""


class SettingsError(Exception):
    """A setting is wrong; the message names the file (or variable), the key and the cure."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an operator can set; the defaults run on a laptop."""

    config: Path | None = None
    """The file that was read; None when there was none. Not in the file itself, of course."""
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
    admin_password: Secret = Secret("")
    """Opens the operator's pages of the console; empty leaves one-time links only."""
    database_url: str = ""
    """``sqlite:///path/to/file.db`` or ``postgresql://user@host/name``; empty is ``calotype.db``
    in the data folder."""
    catalog_dir: Path | None = None
    """Folder of the operator's own model files, which add to or replace the shipped ones."""
    reference_allow_hosts: tuple[str, ...] = ()
    """Names and addresses that references may be fetched from although they are private."""
    reference_timeout_seconds: float = 30.0
    """Longest time for one try at fetching one reference."""
    webhook_allow_hosts: tuple[str, ...] = ()
    """Names and addresses that webhooks may be sent to although they are private."""
    account_tasks: int = 100_000
    """Most unfinished tasks of an account, unless it has a limit of its own; 0 is no limit."""
    account_per_minute: int = 0
    """Tasks that an account may submit at once, and that many more with every minute, unless it
    has a limit of its own; 0 is no limit."""
    client_seconds: float = 60.0
    """How long a client may take to send a request's head, over a part of its body, and to take
    the next part of an answer."""
    assets_url: str = ""
    """Where images lie: a folder, ``s3://bucket/prefix``, ``gs://bucket/prefix`` or
    ``az://container/prefix``; empty is ``assets`` in the data folder."""
    asset_delivery: Literal["redirect", "proxy"] = "redirect"
    """How images of a cloud store reach clients: by a redirect to it, or through this server."""
    asset_base_url: str = ""
    """What image URLs begin with where a CDN stands before ``/v1/assets/``."""
    asset_url_seconds: int = 86_400
    """How long a signed image URL is good for, at least."""
    result_days: int = RESULT_DAYS
    """How many days the images of a task are kept after its end; 0 keeps them until they are
    deleted. Accounts and models may say otherwise."""
    reference_days: int = REFERENCE_DAYS
    """How many days reference images are kept after their last task; 0, accounts and models as
    above."""
    provenance: bool = True
    """Write into results where they come from."""
    keep_upstream_metadata: bool = False
    """Leave in results what their upstreams wrote into them."""
    c2pa_certificate: Path | None = None
    """Chain in PEM with which results are signed; None: they are not."""
    c2pa_key: Path | None = None
    """Private key of it, in PEM."""
    conversion_processes: int = 2
    """Processes that make images another format or size."""
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
    log_format: Literal["auto", "pretty", "json"] = "auto"
    """How a record looks; ``auto``: pretty on a terminal, else JSON."""
    access_log: bool = False
    """Log a line for each request."""
    metrics_host: str = "127.0.0.1"
    """Address on which metrics are shown."""
    metrics_port: int | None = None
    """Port on which metrics are shown to whoever asks; 0 takes a free one, None shows none."""
    otlp_endpoint: str = ""
    """Base URL of the collector that traces are sent to; empty makes none."""
    channels: tuple[Channel, ...] = ()
    """Upstreams; in ``calotype.toml`` only."""
    said_by: dict[str, str] = {}
    """Where each setting that is not the default was said: ``<file>: <key>``, or the variable."""

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
    def redirects_assets(self) -> bool:
        """Whether clients are sent to a store that signs URLs; a CDN is to get images from us."""
        return self.asset_delivery == "redirect" and not self.asset_base_url

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
        named = environment.get(_CONFIG_VARIABLE)
        path = file or Path(named or CONFIG_FILE)
        found = bool(file or named or path.exists())
        content = _content(path) if found else {}
        values = _from_file(content, path)
        overrides = _from_environment(environment, variables(content.get("channels")))
        said_by = {name: f"{path}: {name}" for name in values}
        said_by |= {name: f"{PREFIX}{name.upper()}" for name in overrides}
        values |= overrides
        if "otlp_endpoint" not in values and (standard := environment.get(_OTLP_VARIABLE)):
            values["otlp_endpoint"], said_by["otlp_endpoint"] = standard, _OTLP_VARIABLE
        if "channels" in content:
            sources = Sources(variable=environment.get, text=partial(_secret_text, path.parent))
            values["channels"] = _channels(content["channels"], str(path), sources)
            said_by["channels"] = f"{path}: channels"
        _check(values, said_by)
        if found:
            values["config"] = path
            given = file or named
            said_by["config"] = f"--config or {_CONFIG_VARIABLE}" if given else "in this folder"
        return cls(**values, said_by=said_by)

    def reloaded(self, environment: Mapping[str, str] | None = None) -> Self:
        """These settings with the channels as they stand in the file now, secrets read anew.

        The whole file is judged, but nothing besides the channels is taken over from it.

        Raises:
            SettingsError: the file is wrong now; go on with what there was.

        """
        now = type(self).load(environment, self.config)
        return msgspec.structs.replace(self, channels=now.channels)


_FIELDS: Final = {
    field.name: field for field in msgspec.structs.fields(Settings) if field.name != "said_by"
}
_HOSTS: Final = frozenset({"reference_allow_hosts", "webhook_allow_hosts"})
"""Lists; in the environment their entries are separated by commas."""
_EMPTIED: Final = frozenset(
    {"public_url", "database_url", "assets_url", "asset_base_url", "otlp_endpoint"}
)
"""An empty variable says that they are not set; of others it says nothing."""
_IN_FILE: Final = [name for name in _FIELDS if name != "config"]


def _content(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}); check the path.") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: is not TOML: {error}.") from error


def _from_file(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in content.items():
        where = f"{path}: {name}"
        if name == "config":
            raise SettingsError(f"{where}: is for {_CONFIG_VARIABLE} or --config; take it out.")
        if name not in _FIELDS:
            raise SettingsError(_unknown(where, name, _IN_FILE))
        if name != "channels":
            values[name] = _convert(where, name, value)
    return values


def _from_environment(environment: Mapping[str, str], secrets: Iterable[str]) -> dict[str, Any]:
    """What variables say of settings; ``secrets`` are variables that channels name."""
    known = {f"{PREFIX}{name.upper()}": name for name in _FIELDS if name != "channels"}
    others = {_CONFIG_VARIABLE, *CLIENT_VARIABLES, *secrets}
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable in others:
            continue
        if variable not in known:
            raise SettingsError(_unknown(variable, variable, [*known, *CLIENT_VARIABLES]))
        name = known[variable]
        if text or name in {*_EMPTIED, *_HOSTS}:
            value: Any = (
                [part.strip() for part in text.split(",") if part.strip()]
                if name in _HOSTS
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
    if name in {"data_dir", "catalog_dir", "c2pa_certificate", "c2pa_key"}:
        if not isinstance(value, str) or not value or "\0" in value:
            what = "file" if name.startswith("c2pa_") else "folder"
            raise SettingsError(f"{where}: must be the path of a {what}.")
        return Path(value).expanduser()
    try:
        return msgspec.convert(value, kind, strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: {error}; got {value!r}.") from None


def _channels(value: Any, path: str, sources: Sources) -> tuple[Channel, ...]:
    if not isinstance(value, list):
        raise SettingsError(f"{path}: channels: write each channel as a [[channels]] table.")
    where = f"{path}: channels"
    channels: list[Channel] = []
    try:
        for place, table in enumerate(value, start=1):
            where = f"{path}: channels[{place}]"
            channels.append(read_channel(table, sources))
        where = f"{path}: channels"
        check_together(channels)
    except ChannelFault as fault:
        raise SettingsError(f"{where}{fault}") from None
    return tuple(channels)


def _secret_text(folder: Path, name: str) -> str:
    """What stands in a file, without the end of its last line; relative paths begin in a folder.

    Raises:
        ValueError: with the cure. It does not repeat the name, which may be a secret put there.

    """
    try:
        with (folder / Path(name).expanduser()).open("rb") as file:
            text = file.read(_LARGEST_SECRET + 1).decode()
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no such home folder
        why = error.strerror if isinstance(error, OSError) else "no such home folder"
        raise ValueError(
            f"the file cannot be read ({why}); relative paths begin in {folder.absolute()}"
        ) from None
    except UnicodeDecodeError:
        raise ValueError("the file is no text; write it as UTF-8") from None
    if len(text) > _LARGEST_SECRET:
        raise ValueError(f"the file is too large; it may have {_LARGEST_SECRET} bytes")
    return text.removesuffix("\n").removesuffix("\r")


MIN_SECRET: Final = 16
MIN_PASSWORD: Final = 12


def _check(values: Mapping[str, Any], said_by: Mapping[str, str]) -> None:
    """What no type can say."""
    low = {
        "port": 0,
        "account_tasks": 0,
        "account_per_minute": 0,
        "client_seconds": 0.1,
        "metrics_port": 0,
        "sandbox_seconds": 0,
        "drain_seconds": 0,
        "asset_url_seconds": 60,
        "sandbox_processes": 1,
        "conversion_processes": 1,
        "worker_concurrency": 0,
        "worker_lease_seconds": 2,
        "reference_timeout_seconds": 1,
    }
    for name, least in low.items():
        if name in values and not least <= values[name] <= 10_000_000:  # noqa: PLR2004 -- 115 days
            raise SettingsError(f"{said_by[name]}: must be {least} or more, and sensible.")
    _check_days(values, said_by)
    _check_addresses(values, said_by)
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
    password = values.get("admin_password", Secret("")).value
    if password and len(password) < MIN_PASSWORD:
        raise SettingsError(
            f"{said_by['admin_password']}: must have {MIN_PASSWORD} characters or more; whoever "
            "guesses it may do all that the operator may."
        )
    _check_asset_base_url(values, said_by)
    for channel in values.get("channels", ()):
        if channel.callbacks and not values.get("public_url"):
            raise SettingsError(
                f"{said_by['channels']}: {channel.slug}: callbacks need public_url, the address "
                "at which the upstream reaches this server; set it, or take callbacks out."
            )


def _check_addresses(values: Mapping[str, Any], said_by: Mapping[str, str]) -> None:
    for name in ("port", "metrics_port"):
        if values.get(name, 0) > 65_535:  # noqa: PLR2004 -- the largest port there is
            raise SettingsError(f"{said_by[name]}: must be 0 to 65535.")
    for name in ("host", "metrics_host"):
        if name in values and not values[name].strip():
            raise SettingsError(f"{said_by[name]}: must be an address, such as 127.0.0.1.")
    for name in ("public_url", "otlp_endpoint"):
        if values.get(name) and not values[name].startswith(("http://", "https://")):
            raise SettingsError(f"{said_by[name]}: write http:// or https:// and the host.")


def _check_days(values: Mapping[str, Any], said_by: Mapping[str, str]) -> None:
    for name in ("result_days", "reference_days"):
        if not 0 <= values.get(name, 0) <= MAX_DAYS:
            raise SettingsError(
                f"{said_by[name]}: must be 0 to {MAX_DAYS} days; 0 keeps images until they are "
                "deleted."
            )


def _check_asset_base_url(values: Mapping[str, Any], said_by: Mapping[str, str]) -> None:
    base = values.get("asset_base_url", "")
    if not base:
        return
    if not base.startswith(("http://", "https://")) or "?" in base or "#" in base:
        raise SettingsError(
            f"{said_by['asset_base_url']}: write http:// or https:// and the host, "
            "such as https://cdn.example.com."
        )
    if values.get("asset_delivery") == "redirect":
        raise SettingsError(
            f"{said_by['asset_delivery']}: a CDN at asset_base_url can cache images only when this "
            "server sends them; write proxy, or take asset_base_url out."
        )


def _unknown(where: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}."
    return f"{where}: there is no such setting; {hint}"
