"""Channels: what ``calotype.toml`` says of them, and where their credentials come from."""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from calotype.domain.channel import Channel, Served
from calotype.domain.secret import Secret
from calotype.settings import Settings, SettingsError

Write = Callable[[str], Path]

CHANNEL = """
[[channels]]
id = 10
slug = "paid"
name = "Paid"
provider = "sandbox"
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a calotype.toml and return where it lies."""

    def written(content: str) -> Path:
        path = tmp_path / "calotype.toml"
        path.write_text(content, encoding="utf-8")
        return path

    return written


def refused(environment: Mapping[str, str], file: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.load(environment, file)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_channel_is_read_with_its_defaults(write: Write) -> None:
    settings = Settings.load({}, write(CHANNEL))
    (channel,) = settings.channels
    assert channel == Channel(id=10, slug="paid", name="Paid", provider="sandbox")
    assert channel.options == {}


def test_a_channel_is_read_with_all_its_keys(write: Write) -> None:
    more = """
description = "The first."
base_url = "https://images.example.com/v1"
api_key_env = "PAID_KEY"
callback_secret_file = "callback"
callbacks = true
priority = -3
weight = 2
concurrency = 7
requests_per_minute = 60
timeout_seconds = 90
eta_seconds = 12
free = false
idempotent = true
enabled = false
options = { api_version = "2025-04-01" }
models = { "gpt-image-2" = { id = "theirs", edit = "edits", price = { 1k = 5 }, cost = 3 } }
"""
    path = write('public_url = "https://a.example"\n' + CHANNEL + more)
    path.with_name("callback").write_text("whsec_1\n")
    (channel,) = Settings.load({"PAID_KEY": "sk-1"}, path).channels
    assert channel == Channel(
        id=10,
        slug="paid",
        name="Paid",
        provider="sandbox",
        description="The first.",
        base_url="https://images.example.com/v1",
        api_key=Secret("sk-1"),
        callback_secret=Secret("whsec_1"),
        callbacks=True,
        priority=-3,
        weight=2,
        concurrency=7,
        requests_per_minute=60,
        timeout_seconds=90.0,
        eta_seconds=12,
        free=False,
        idempotent=True,
        enabled=False,
        options={"api_version": "2025-04-01"},
        models={"gpt-image-2": Served(id="theirs", edit="edits", price={"1k": 5}, cost=3)},
    )


@pytest.mark.parametrize(
    ("written", "served"),
    [
        ('["a", "b"]', {"a": Served(), "b": Served()}),
        ('{ a = "x/a" }', {"a": Served(id="x/a")}),
        ('{ a = "x/a", b = { price = 4 } }', {"a": Served(id="x/a"), "b": Served(price=4)}),
        ("{ a = {} }", {"a": Served()}),
    ],
)
def test_models_are_written_as_a_list_as_ids_or_as_tables(
    written: str, served: dict[str, Served], write: Write
) -> None:
    (channel,) = Settings.load({}, write(f"{CHANNEL}models = {written}\n")).channels
    assert channel.models == served


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("channels = 5\n", "channels: write each channel as a [[channels]] table"),
        ("[channels]\nid = 10\n", "channels: write each channel as a [[channels]] table"),
        ("channels = [5]\n", "channels[1]: write each channel as a [[channels]] table"),
        ("[[channels]]\nid = 10\n", "channels[1].slug: is missing; add it"),
        (
            CHANNEL + "wieght = 2\n",
            "channels[1].wieght: there is no such key; did you mean weight?",
        ),
        (
            CHANNEL + "weight = 0\n",
            "channels[1].weight: this is out of bounds; expected `int` >= 1",
        ),
        (CHANNEL + "weight = 1001\n", "channels[1].weight: this is out of bounds; "),
        (CHANNEL + "priority = 1001\n", "channels[1].priority: this is out of bounds; "),
        (CHANNEL + "priority = -1001\n", "channels[1].priority: this is out of bounds; "),
        (CHANNEL + "priority = 1.5\n", "channels[1].priority: this is `float`; write `int`"),
        (CHANNEL + "concurrency = -1\n", "channels[1].concurrency: this is out of bounds; "),
        (CHANNEL + "requests_per_minute = -1\n", "requests_per_minute: this is out of bounds; "),
        (CHANNEL + "requests_per_minute = 100_001\n", "requests_per_minute: this is out of "),
        (CHANNEL + "timeout_seconds = 0.5\n", "timeout_seconds: this is out of bounds; "),
        (CHANNEL + "timeout_seconds = 3601\n", "timeout_seconds: this is out of bounds; "),
        (CHANNEL + "timeout_seconds = nan\n", "timeout_seconds: this is out of bounds; "),
        (CHANNEL + "eta_seconds = 0\n", "eta_seconds: this is out of bounds; "),
        (CHANNEL + 'free = "yes"\n', "channels[1].free: this is `str`; write `bool`"),
        (CHANNEL + CHANNEL, "channels: id 10 is used twice; give each channel its own"),
        (CHANNEL + CHANNEL.replace("10", "11"), "channels: slug 'paid' is used twice"),
        (CHANNEL.replace("10", "9"), "channels[1].id: 1 to 9 are the built-in channels'"),
        (CHANNEL.replace("10", "0"), "take 10 or more"),
        (CHANNEL.replace("10", '"10"'), "channels[1].id: this is `str`; write `int`"),
        (CHANNEL + CHANNEL.replace("10", "-4").replace('"paid"', '"b"'), "channels[2].id: "),
        (CHANNEL.replace('"paid"', '"Paid"'), "channels[1].slug: a slug has lower-case letters"),
        (CHANNEL.replace('"paid"', '"a b"'), "channels[1].slug: "),
        (CHANNEL.replace('"paid"', f'"{"a" * 64}"'), "channels[1].slug: "),
        (CHANNEL.replace('"Paid"', '" "'), "channels[1].name: is empty"),
        # models
        (CHANNEL + "models = 5\n", "channels[1].models: write a list of models"),
        (CHANNEL + "models = {}\n", "channels[1].models: is empty; name a model"),
        (CHANNEL + "models = []\n", "channels[1].models: is empty; name a model"),
        (CHANNEL + 'models = ["a", 5]\n', "channels[1].models[1]: this is no id of a model"),
        (CHANNEL + "models = { a = 5 }\n", "channels[1].models.a: write the upstream's id"),
        (CHANNEL + 'models = { a = " x" }\n', "channels[1].models.a: this is no id"),
        (CHANNEL + 'models = { "a.b" = "" , c = { di = "x" } }\n', "models.c.di: there is no such"),
        (CHANNEL + 'models = { "a.b" = { price = -1 } }\n', 'models."a.b".price: this is out of '),
        (
            CHANNEL + "models = { a = { price = { 1k = -1 } } }\n",
            "models.a.price.1k: this is out of",
        ),
        (
            CHANNEL + 'models = { a = { price = "5" } }\n',
            "price: this is `str`; write `int | table`",
        ),
        (CHANNEL + "models = { a = { price = 0.05 } }\n", "models.a.price: money is counted in "),
        (CHANNEL + "models = { a = { price = 0.05 } }\n", "0.05 USDC is 50000."),
        (CHANNEL + "models = { a = { price = { 1k = 0.1 } } }\n", "price.1k: money is counted in "),
        (CHANNEL + "models = { a = { cost = 1.0 } }\n", "cost: money is counted in millionths"),
        # options
        (CHANNEL + "options = 5\n", "channels[1].options: this is `int`; write `table`"),
        (CHANNEL + "options = { steps = 5 }\n", "options.steps: this is `int`; write `str`"),
        # base_url
        (
            CHANNEL + 'base_url = "api.example.com"\n',
            "base_url: is no URL of the web; write it like",
        ),
        (CHANNEL + 'base_url = "ftp://api.example.com"\n', "base_url: is no URL of the web"),
        (CHANNEL + 'base_url = "https://a.example/ v1"\n', "base_url: is no URL"),
        (CHANNEL + 'base_url = "https://a:99999/"\n', "base_url: is no URL"),
        (CHANNEL + 'base_url = "https:///v1"\n', "base_url: is no URL"),
        (CHANNEL + 'base_url = "https://me:hush@a.example"\n', "base_url: holds a credential"),
        (CHANNEL + 'base_url = "https://hush@a.example"\n', "base_url: holds a credential"),
        (CHANNEL + 'base_url = "https://a.example?key=hush"\n', "base_url: has a query"),
        (CHANNEL + 'base_url = "https://a.example/#"\n', "base_url: has a query or a fragment"),
        (
            CHANNEL + 'base_url = "http://2130706433/"\n',
            "base_url: names its host in an unusual way",
        ),
        # callbacks
        (CHANNEL + "callbacks = true\n", "channels: paid: callbacks need public_url"),
    ],
)
def test_a_wrong_channel_is_told_by_its_place_and_key(
    content: str, told: str, write: Write
) -> None:
    path = write(content)
    message = refused({}, path)
    assert message.startswith(f"{path}: channels")
    assert told in message
    assert "hush" not in message


# Credentials

KEYED = CHANNEL + 'api_key_env = "PAID_KEY"\n'
FILED = CHANNEL + 'api_key_file = "keys/paid"\n'


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Where ``FILED`` says that the key is."""
    (tmp_path / "keys").mkdir()
    return tmp_path / "keys" / "paid"


def key_of(settings: Settings) -> str | None:
    (channel,) = settings.channels
    return channel.api_key.value if channel.api_key else None


@pytest.mark.parametrize("content", ["sk-1 2", "sk-1 2\n", "sk-1 2\r\n"])
def test_a_key_is_read_from_a_file_beside_the_configuration(
    content: str, write: Write, key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_file.write_bytes(content.encode())
    path = write(FILED)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert key_of(Settings.load({}, path)) == "sk-1 2"


def test_a_key_may_be_in_a_file_anywhere(write: Write, key_file: Path) -> None:
    key_file.write_text("sk-1")
    assert key_of(Settings.load({}, write(CHANNEL + f'api_key_file = "{key_file}"\n'))) == "sk-1"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "the variable PAID_KEY is not set; set it where Calotype starts."),
        ("", "it is empty; put the secret in, or take this line out."),
        (" sk-1", "there is white space around the secret"),
        ("sk-1\n", "there is white space around the secret"),
        ("sk-1\nsk-2", "the secret holds a line end or a letter that no secret has"),
        ("sk-1\tx", "the secret holds a line end or a letter"),
        ("sk-1…x", "the secret holds a line end or a letter that no secret has"),
    ],
)
def test_a_variable_that_holds_no_key_is_refused(
    value: str | None, told: str, write: Write
) -> None:
    path = write(KEYED)
    message = refused({} if value is None else {"PAID_KEY": value}, path)
    assert message.startswith(f"{path}: channels[1].api_key_env: {told}")
    assert "sk-" not in message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "the file cannot be read (No such file or directory); relative paths begin in "),
        (b"", "it is empty; put the secret in"),
        (b"\n", "it is empty; put the secret in"),
        (b"sk-1\n\n", "there is white space around the secret"),
        (b" sk-1\n", "there is white space around the secret"),
        (b"sk-1\nsk-2\n", "the secret holds a line end"),
        (b"sk-1\xff", "the file is no text; write it as UTF-8"),
        (b"s" * 65_537, "the file is too large; it may have 65536 bytes"),
    ],
)
def test_a_file_that_holds_no_key_is_refused(
    content: bytes | None, told: str, write: Write, key_file: Path
) -> None:
    if content is not None:
        key_file.write_bytes(content)
    path = write(FILED)
    message = refused({}, path)
    assert message.startswith(f"{path}: channels[1].api_key_file: {told}")
    assert "sk-" not in message


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('api_key = "hush-1"', "api_key: a secret has no place in this file; name a variable as "),
        ('callback_secret = "hush-1"', "callback_secret: a secret has no place in this file"),
        ('api_key = "hush-1"', "name a variable as api_key_env, or a file as api_key_file."),
        ('api_key_env = "hush-1"', "api_key_env: this is no name of a variable; "),
        ('api_key_env = ""', "api_key_env: this is no name of a variable; "),
        ("api_key_env = 5", "api_key_env: this is no name of a variable; "),
        ('api_key_env = "hush1"', "api_key_env: the variable named here is not set; "),
        ('api_key_file = "hush-1"', "api_key_file: the file cannot be read"),
        ('api_key_file = "~nobody-at-all/hush"', "api_key_file: the file cannot be read (no such "),
        ('api_key_file = ""', "api_key_file: this is no path of a file; "),
        ('api_key_file = "a\\u0000b"', "api_key_file: this is no path of a file; "),
        ('api_key_file = "keys"', "api_key_file: the file cannot be read (Is a directory)"),
        ('api_key_env = "A"\napi_key_file = "b"', "api_key_env: api_key_file is there too; "),
        ('api_key_evn = "A"', "api_key_evn: there is no such key; did you mean api_key_env?"),
    ],
)
def test_a_credential_is_named_and_never_written_here(
    line: str, told: str, write: Write, key_file: Path
) -> None:
    path = write(f"{CHANNEL}{line}\n")
    assert not key_file.exists()
    message = refused({}, path)
    assert told in message
    assert "hush" not in message


def test_a_variable_that_a_channel_names_may_begin_like_a_setting(write: Write) -> None:
    path = write(CHANNEL + 'api_key_env = "CALOTYPE_PAID_KEY"\n')
    assert key_of(Settings.load({"CALOTYPE_PAID_KEY": "sk-1"}, path)) == "sk-1"
    assert "CALOTYPE_OTHER" in refused({"CALOTYPE_PAID_KEY": "x", "CALOTYPE_OTHER": "x"}, path)


def test_a_key_shows_itself_in_no_channel(write: Write) -> None:
    settings = Settings.load({"PAID_KEY": "hush-hush"}, write(KEYED))
    assert "hush" not in f"{settings!r} {settings.channels!r} {settings.channels}"


# Reading again


def test_channels_are_read_again_and_nothing_else(write: Write) -> None:
    path = write(f"port = 4\n{KEYED}")
    before = msgspec.structs.replace(Settings.load({"PAID_KEY": "sk-1"}, path), host="::1")
    write("port = 5\n" + KEYED + CHANNEL.replace("10", "11").replace('"paid"', '"more"'))
    after = before.reloaded({"PAID_KEY": "sk-2"})
    assert [channel.slug for channel in after.channels] == ["paid", "more"]
    assert after.channels[0].api_key == Secret("sk-2")
    assert after == msgspec.structs.replace(before, channels=after.channels)


def test_a_file_that_went_wrong_is_refused_when_it_is_read_again(write: Write) -> None:
    settings = Settings.load({}, write(CHANNEL))
    path = write(CHANNEL + "wieght = 1\n")
    with pytest.raises(SettingsError, match=r"channels\[1\]\.wieght"):
        settings.reloaded({})
    path.unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        settings.reloaded({})
