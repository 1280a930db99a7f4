"""Settings: from file and environment, judged whole, refused with file, key and cure."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.domain.secret import Secret
from calotype.settings import CLIENT_VARIABLES, Settings, SettingsError

Write = Callable[[str], Path]


class Row(NamedTuple):
    """One setting: a value in TOML and what it comes to, another in the environment and what."""

    toml: str
    in_file: Any
    text: str
    in_environment: Any


ROWS = {
    "data_dir": Row('"/srv/a"', Path("/srv/a"), "/srv/b", Path("/srv/b")),
    "host": Row('"::"', "::", "10.0.0.1", "10.0.0.1"),
    "port": Row("9000", 9000, "0", 0),
    "public_url": Row('"https://a.lan"', "https://a.lan", "http://b.lan", "http://b.lan"),
    "secret": Row(
        '"hush, hush, hush hush"',
        Secret("hush, hush, hush hush"),
        "shush, shush, shush",
        Secret("shush, shush, shush"),
    ),
    "admin_password": Row(
        '"let me in, please"',
        Secret("let me in, please"),
        "open sesame, now",
        Secret("open sesame, now"),
    ),
    "database_url": Row('"sqlite:////a.db"', "sqlite:////a.db", "sqlite:///b", "sqlite:///b"),
    "catalog_dir": Row('"/srv/a"', Path("/srv/a"), "b", Path("b")),
    "reference_allow_hosts": Row('["a.lan"]', ("a.lan",), "b.lan, ::1,", ("b.lan", "::1")),
    "webhook_allow_hosts": Row('["a.lan"]', ("a.lan",), "b.lan, ::1,", ("b.lan", "::1")),
    "reference_timeout_seconds": Row("2.5", 2.5, "7", 7.0),
    "account_tasks": Row("500", 500, "0", 0),
    "account_per_minute": Row("60", 60, "0", 0),
    "client_seconds": Row("2.5", 2.5, "7", 7.0),
    "asset_url_seconds": Row("120", 120, "60", 60),
    "provenance": Row("false", False, "true", True),
    "keep_upstream_metadata": Row("true", True, "false", False),
    "result_days": Row("0", 0, "90", 90),
    "reference_days": Row("7", 7, "36500", 36_500),
    "assets_url": Row('"/srv/a"', "/srv/a", "s3://b/c", "s3://b/c"),
    "asset_delivery": Row('"proxy"', "proxy", "redirect", "redirect"),
    "asset_base_url": Row('"https://a.lan"', "https://a.lan", "http://b.lan", "http://b.lan"),
    "worker_concurrency": Row("9", 9, "8", 8),
    "worker_lease_seconds": Row("30", 30.0, "2.5", 2.5),
    "drain_seconds": Row("7", 7.0, "0.5", 0.5),
    "sandbox_seconds": Row("0", 0.0, "1e1", 10.0),
    "sandbox_processes": Row("3", 3, "1", 1),
    "c2pa_certificate": Row('"a.pem"', Path("a.pem"), "b.pem", Path("b.pem")),
    "c2pa_key": Row('"a.key"', Path("a.key"), "b.key", Path("b.key")),
    "conversion_processes": Row("3", 3, "1", 1),
    "log_level": Row('"debug"', "debug", "error", "error"),
    "log_format": Row('"json"', "json", "pretty", "pretty"),
    "access_log": Row("true", True, "false", False),
    "metrics_host": Row('"::"', "::", "10.0.0.1", "10.0.0.1"),
    "metrics_port": Row("9464", 9464, "0", 0),
    "otlp_endpoint": Row('"http://a.lan"', "http://a.lan", "https://b.lan", "https://b.lan"),
}
WRONG = {
    "data_dir": ("5", ""),
    "host": ("[]", ""),
    "port": ('"web"', "web"),
    "public_url": ('"a.example"', "a.example"),
    "secret": ("5", "hush"),
    "admin_password": ("5", "sesame"),
    "database_url": ('"mysql://a/b"', "mysql://a/b"),
    "catalog_dir": ("true", ""),
    "reference_allow_hosts": ('"a.lan"', ""),
    "webhook_allow_hosts": ('"a.lan"', ""),
    "reference_timeout_seconds": ("0.5", "0.5"),
    "account_tasks": ("-1", "10000001"),
    "account_per_minute": ("-1", "few"),
    "client_seconds": ("0", "0.05"),
    "asset_url_seconds": ("59", "59"),
    "provenance": ('"yes"', "maybe"),
    "keep_upstream_metadata": ("1", "maybe"),
    "result_days": ("-1", "36501"),
    "reference_days": ("-1", "two"),
    "assets_url": ("5", ""),
    "asset_delivery": ('"mail"', "mail"),
    "asset_base_url": ('"cdn.example.com"', "ftp://cdn.example.com"),
    "worker_concurrency": ("-1", "-1"),
    "worker_lease_seconds": ("1", "1.9"),
    "drain_seconds": ("-1", "-1"),
    "sandbox_seconds": ('"long"', "nan"),
    "sandbox_processes": ("0", "0"),
    "c2pa_certificate": ("5", ""),
    "c2pa_key": ("5", ""),
    "conversion_processes": ("0", "0"),
    "log_level": ('"loud"', "loud"),
    "log_format": ('"xml"', "xml"),
    "access_log": ('"yes"', "maybe"),
    "metrics_host": ('" "', " "),
    "metrics_port": ("-1", "65536"),
    "otlp_endpoint": ('"collector:4318"', "collector:4318"),
}
"""Setting → a value that is none, as TOML and in the environment (empty: every text is one)."""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a calotype.toml and return where it lies."""

    def written(content: str) -> Path:
        path = tmp_path / "calotype.toml"
        path.write_text(content, encoding="utf-8")
        return path

    return written


def variable(name: str) -> str:
    return f"CALOTYPE_{name.upper()}"


def refused(environment: Mapping[str, str], file: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.load(environment, file)
    message = str(caught.value)
    assert "\n" not in message
    return message


def said(settings: Settings) -> Settings:
    """The settings, whoever said them."""
    return msgspec.structs.replace(settings, said_by={})


def test_the_tables_of_this_test_name_every_setting() -> None:
    fields = {field.name for field in msgspec.structs.fields(Settings)}
    assert set(ROWS) == set(WRONG) == fields - {"config", "channels", "said_by"}


def test_with_nothing_set_the_defaults_run_on_a_laptop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.load({})
    assert settings == Settings()
    assert settings.said_by == {}
    assert settings.host == "127.0.0.1"
    assert settings.database_path == Path("calotype-data/calotype.db")


@pytest.mark.parametrize("name", ROWS)
def test_a_setting_is_read_from_the_file(name: str, write: Write) -> None:
    path = write(f"{name} = {ROWS[name].toml}\n")
    expected = Settings(**{name: ROWS[name].in_file}, config=path)
    settings = Settings.load({}, path)
    assert said(settings) == expected
    assert settings.said_by[name] == f"{path}: {name}"


@pytest.mark.parametrize("name", ROWS)
def test_a_setting_is_read_from_the_environment_and_wins_over_the_file(
    name: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = Settings(**{name: ROWS[name].in_environment})
    environment = {variable(name): ROWS[name].text}
    assert said(Settings.load(environment)) == expected
    path = write(f"{name} = {ROWS[name].toml}\n")
    both = Settings.load(environment, path)
    assert said(both) == msgspec.structs.replace(expected, config=path)
    assert both.said_by[name] == variable(name)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_in_the_file_is_told_by_file_and_key(name: str, write: Write) -> None:
    path = write(f"{name} = {WRONG[name][0]}\n")
    assert refused({}, path).startswith(f"{path}: {name}: ")


@pytest.mark.parametrize("name", [name for name in WRONG if WRONG[name][1] and name != "port"])
def test_a_wrong_value_in_the_environment_is_told_by_variable(name: str, write: Write) -> None:
    environment = {variable(name): WRONG[name][1]}
    assert refused(environment, write("host = '::1'\n")).startswith(f"{variable(name)}: ")


def test_a_variable_of_another_type_is_told_by_its_name() -> None:
    assert refused({"CALOTYPE_PORT": "web"}).startswith("CALOTYPE_PORT: Expected `int`")


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("port", "65536", "0 to 65535"),
        ("port", "-1", "0 or more"),
        ("log_level", '"loud"', "debug, info, warning or error"),
        ("database_url", '"mysql://a/b"', "sqlite:///path/to/file.db"),
        ("public_url", '"ftp://a"', "http:// or https://"),
        ("asset_url_seconds", "1", "60 or more"),
        ("sandbox_processes", "0", "1 or more"),
        ("reference_timeout_seconds", "0", "1 or more"),
        ("drain_seconds", "1e9", "sensible"),
        ("drain_seconds", "inf", "sensible"),
        ("sandbox_seconds", "nan", "0 or more"),
        ("port", "8080.5", "int"),
        ("port", "true", "int"),
        ("host", "5", "str"),
        ("data_dir", '""', "path of a folder"),
        ("data_dir", r'"a\u0000b"', "path of a folder"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_its_cure(
    name: str, value: str, cure: str, write: Write
) -> None:
    assert cure in refused({}, write(f"{name} = {value}\n"))


def test_an_unknown_key_is_refused_with_the_key_it_may_have_meant(write: Write) -> None:
    path = write("prot = 80\n")
    assert refused({}, path) == f"{path}: prot: there is no such setting; did you mean port?"


def test_a_key_like_none_is_refused_with_all_that_there_are(write: Write) -> None:
    message = refused({}, write("zzz = 80\n"))
    assert all(name in message for name in ROWS)


@pytest.mark.parametrize("name", ["CALOTYPE_PROT", "CALOTYPE_port", "CALOTYPE_PORT_"])
def test_an_unknown_variable_is_refused_with_the_one_it_may_have_meant(name: str) -> None:
    message = refused({name: "80"})
    assert message.startswith(f"{name}: there is no such setting; ")
    assert name == "CALOTYPE_port" or message.endswith("did you mean CALOTYPE_PORT?")


def test_channels_stand_in_the_file_only() -> None:
    assert refused({"CALOTYPE_CHANNELS": "[]"}).startswith("CALOTYPE_CHANNELS: ")


@pytest.mark.parametrize(
    "name", ["PATH", "calotype_port", "XCALOTYPE_PORT", *sorted(CLIENT_VARIABLES)]
)
def test_what_is_not_the_servers_is_left_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_text("")
    assert Settings.load({name: "x"}) == Settings()


@pytest.mark.parametrize("name", ROWS)
def test_an_empty_variable_is_the_default(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said(Settings.load({variable(name): ""})) == Settings()


def test_the_file_in_the_working_folder_is_found(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("port = 4\n")
    monkeypatch.chdir(tmp_path)
    assert Settings.load({}).port == 4
    other = tmp_path / "other.toml"
    other.write_text("port = 5\n")
    assert Settings.load({"CALOTYPE_CONFIG": str(other)}).port == 5
    assert Settings.load({"CALOTYPE_CONFIG": str(other)}, tmp_path / "calotype.toml").port == 4


def test_settings_know_the_file_they_came_from(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("")
    assert Settings.load({}, path).config == path
    assert Settings.load({"CALOTYPE_CONFIG": str(path)}).config == path
    monkeypatch.chdir(tmp_path)
    assert Settings.load({}).config == Path("calotype.toml")
    path.unlink()
    assert Settings.load({}).config is None


def test_a_file_does_not_name_itself(write: Write) -> None:
    path = write('config = "other.toml"\n')
    assert refused({}, path).startswith(f"{path}: config: is for CALOTYPE_CONFIG or --config")


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    for message in (refused({}, missing), refused({"CALOTYPE_CONFIG": str(missing)})):
        assert message.startswith(f"{missing}: cannot be read")
        assert message.endswith("check the path.")
    assert refused({}, tmp_path).startswith(f"{tmp_path}: cannot be read")


@pytest.mark.parametrize("content", [b"port = \n", b"port = 1\nport = 2\n", b"= 3", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_refused_by_its_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "calotype.toml"
    path.write_bytes(content)
    assert refused({}, path).startswith(f"{path}: ")


def test_a_folder_may_begin_at_home(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert Settings.load({}, write('data_dir = "~/images"\n')).data_dir == Path("/somewhere/images")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("", "/data/calotype.db"),
        ("sqlite:////srv/c.db", "/srv/c.db"),
        ("sqlite:///near.db", "near.db"),
    ],
)
def test_the_database_lies_in_the_data_folder_unless_a_url_says_otherwise(
    url: str, path: str
) -> None:
    assert Settings(data_dir=Path("/data"), database_url=url).database_path == Path(path)


@pytest.mark.parametrize(
    ("url", "shared"),
    [("", False), ("sqlite:///a.db", False), ("postgresql://a/b", True), ("postgres://a/b", True)],
)
def test_only_postgresql_is_shared_between_machines(url: str, *, shared: bool) -> None:
    assert Settings.load({"CALOTYPE_DATABASE_URL": url}).shared_database is shared


# Secrets


@given(st.text(st.characters(exclude_characters="Secrt('…)"), min_size=4))
def test_a_secret_shows_itself_to_nobody_who_does_not_ask(value: str) -> None:
    settings = Settings(secret=Secret(value))
    for shown in (
        repr(settings.secret),
        str(settings.secret),
        f"{settings.secret}",
        f"{settings.secret!r:>9}",
        "{!s}".format(settings.secret),  # noqa: UP032 -- the old way is one more way out
        "%s" % settings.secret,  # noqa: UP031 -- the oldest way is one more way out
    ):
        assert shown.strip() == "Secret('…')"
    assert re.search(r"secret=Secret\('…'\)", repr(settings))
    assert settings.secret.value == value


def test_a_secret_is_in_no_refusal(write: Write) -> None:
    path = write('secret = "hush-hush"\nport = -5\n')
    assert "hush" not in refused({}, path)
    assert "hush" not in refused({"CALOTYPE_SECRET": "hush-hush-hush-hush", "CALOTYPE_PORT": "x"})
    assert "5" not in refused({}, write("secret = 5\n")).removeprefix(str(path))


@pytest.mark.parametrize(
    ("name", "text"), [("port", "65536"), ("log_level", "loud"), ("public_url", "a.example")]
)
def test_the_environment_is_blamed_for_its_own_values_only(
    name: str, text: str, write: Write
) -> None:
    path = write(f"{name} = {ROWS[name].toml}\n")
    assert refused({variable(name): text}, path).startswith(f"{variable(name)}: ")
    wrong = write(f"{name} = {WRONG[name][0]}\n")
    assert refused({"CALOTYPE_HOST": "::1"}, wrong).startswith(f"{wrong}: {name}: ")


def test_the_standard_variable_names_the_collector_where_no_setting_does() -> None:
    standard = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.lan:4318"}
    settings = Settings.load(standard)
    assert settings.otlp_endpoint == "http://collector.lan:4318"
    assert settings.said_by["otlp_endpoint"] == "OTEL_EXPORTER_OTLP_ENDPOINT"
    ours = {"CALOTYPE_OTLP_ENDPOINT": "http://ours.lan:4318"}
    assert Settings.load(standard | ours).otlp_endpoint == "http://ours.lan:4318"
    assert Settings.load(standard | {"CALOTYPE_OTLP_ENDPOINT": ""}).otlp_endpoint == ""
