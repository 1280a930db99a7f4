"""What is in force, as it may be shown."""

from pathlib import Path

import msgspec
import pytest

from calotype.catalog import load_catalog
from calotype.domain.channel import Channel, Served
from calotype.domain.secret import Secret
from calotype.domain.task import Request
from calotype.domain.wire import Field, Wire
from calotype.services.effective import (
    offers,
    settings_in_force,
    shortfalls,
    source_of,
    without_credentials,
)
from calotype.settings import Settings

MARKED = "hunter2-and-then-some"
CATALOG = load_catalog()
SHIPPED = Path(__file__).parents[2] / "src" / "calotype" / "catalog"


def test_every_setting_is_shown_with_its_value_and_where_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "calotype.toml"
    file.write_text('log_level = "debug"\nsandbox_seconds = 1\nwebhook_allow_hosts = ["a", "b"]\n')
    settings = Settings.load({"CALOTYPE_SANDBOX_SECONDS": "2.5"}, file)

    found = {one.name: (one.value, one.source) for one in settings_in_force(settings)}

    assert found["log_level"] == ("debug", f"{file}: log_level")
    assert found["sandbox_seconds"] == ("2.5", "CALOTYPE_SANDBOX_SECONDS")
    assert found["webhook_allow_hosts"] == ("a, b", f"{file}: webhook_allow_hosts")
    assert found["port"] == ("8080", "default")
    assert found["catalog_dir"] == ("", "default")
    assert found["config"] == (str(file), "--config or CALOTYPE_CONFIG")
    assert "channels" not in found


def test_no_secret_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "calotype.toml"
    file.write_text(
        f'secret = "{MARKED}"\npublic_url = "https://me:{MARKED}@images.example.com/x"\n'
        f'database_url = "postgresql://u:{MARKED}@host/name?password={MARKED}"\n'
        '[[channels]]\nid = 10\nslug = "bfl"\nname = "BFL"\nprovider = "bfl"\n'
        'api_key_env = "BFL_KEY"\n'
    )
    shown = settings_in_force(Settings.load({"BFL_KEY": MARKED}, file))

    values = {one.name: one.value for one in shown}
    assert MARKED not in repr(shown)
    assert values["secret"] == "set"
    assert values["database_url"] == "postgresql://host/name"
    assert values["public_url"] == "https://images.example.com/x"
    assert {one.name: one.value for one in settings_in_force(Settings())}["secret"] == "not set"


def test_every_secret_of_the_settings_is_hidden_however_many_there_come_to_be() -> None:
    secrets = [field.name for field in msgspec.structs.fields(Settings) if field.type is Secret]
    settings = msgspec.structs.replace(Settings(), **{name: Secret(MARKED) for name in secrets})
    shown = settings_in_force(settings)

    assert MARKED not in repr(shown)
    assert [one.value for one in shown if one.name in secrets] == ["set"] * len(secrets)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", ""),
        ("sqlite:///data/calotype.db", "sqlite:///data/calotype.db"),
        ("postgresql://db.example:5432/name", "postgresql://db.example:5432/name"),
        ("postgresql://user@one,two/name", "postgresql://one,two/name"),
        ("postgresql://user:pw@host/name?sslmode=require", "postgresql://host/name"),
        (f"postgresql://u:{MARKED}@x@host/name", "postgresql://…"),
        (f"postgresql://u:a/{MARKED}@host/name", "postgresql://…"),
        (f"postgresql://u:a?{MARKED}@host/name", "postgresql://…"),
        (f"postgresql://host/name?password=x@{MARKED}", "postgresql://…"),
        (f"postgresql://host/name#{MARKED}", "postgresql://…"),
        (f"{MARKED}", "…"),
    ],
)
def test_a_url_is_shown_without_what_may_be_a_credential(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_a_model_comes_from_the_operators_file_where_there_is_one(tmp_path: Path) -> None:
    own = tmp_path / "flux-2-pro.toml"
    own.write_text((SHIPPED / "flux-2-pro.toml").read_text())
    catalog = load_catalog(tmp_path)

    assert source_of(catalog, "flux-2-pro") == str(own)
    assert source_of(catalog, "gpt-image-2") == "shipped"
    assert source_of(CATALOG, "flux-2-pro") == "shipped"


def test_a_model_is_shown_as_each_channel_offers_it() -> None:
    model = CATALOG.models["flux-2-pro"]
    plain = Channel(id=1, slug="plain", name="", provider="bfl")
    own = Channel(
        id=2,
        slug="own",
        name="",
        provider="bfl",
        enabled=False,
        models={"flux-2-pro": Served(id="pro-x", price=5, cost=0)},
    )
    other = Channel(id=3, slug="other", name="", provider="bfl", models={"flux-2-max": Served()})

    first, second = offers(CATALOG, model, [plain, own, other])

    tiers = {tier.id: tier.price_micro_usdc for tier in model.pricing.tiers}
    wire = CATALOG.upstreams["bfl"].models["flux-2-pro"]
    assert (first.slug, first.upstream_id, first.prices) == ("plain", wire.id, tiers)
    assert (first.cost, first.overrides) == (None, frozenset())
    assert (second.upstream_id, set(second.prices.values()), second.cost) == ("pro-x", {5}, 0)
    assert second.overrides == {"id", "price", "cost"}


def test_a_channel_may_set_the_price_of_each_tier() -> None:
    model = next(each for each in CATALOG.models.values() if len(each.pricing.tiers) > 1)
    first, *rest = model.pricing.tiers
    prices = {tier.id: place for place, tier in enumerate(model.pricing.tiers)}
    channel = Channel(
        id=1, slug="own", name="", provider="sandbox", models={model.id: Served(price=prices)}
    )

    (offer,) = offers(CATALOG, model, [channel])

    assert offer.prices == prices
    assert offer.overrides == {"price"}
    assert (first.id, len(rest)) == (next(iter(prices)), len(prices) - 1)


def test_what_a_channel_cannot_do_of_a_model_is_told_in_words() -> None:
    model = CATALOG.models["nano-banana-2"]
    ratio, resolution, *_ = model.parameters
    wire = Wire(
        parameters={
            ratio.name: Field(field="ratio", enum=ratio.enum),
            resolution.name: Field(field="size", enum=("1K", "2K", "9K")),
        },
        max_references=3,
        prompt_length=1_200,
        without=("output_format",),
    )

    assert shortfalls(model, None) == []
    assert shortfalls(model, wire) == [
        "at most 3 references",
        "prompts of at most 1,200 characters",
        f"{resolution.name} 1K, 2K only",
        *[f"no {each.name}" for each in model.parameters[2:]],
    ]
    many = CATALOG.models["recraft-v4.1"]
    assert "one image at a time" in shortfalls(many, Wire())


@pytest.mark.parametrize("provider", sorted(CATALOG.upstreams))
def test_a_channel_that_can_do_all_refuses_no_request(provider: str) -> None:
    """And one that cannot refuses one, so that the words are neither too few nor too many."""
    for model in CATALOG.models.values():
        wire = CATALOG.upstreams[provider].wire(model.id)
        if wire is None:
            continue
        refused = [
            wire.unable(Request(model.id, "a" * length, n, {name: value}), references=count)
            for length in (1, model.prompt.max_length)
            for n in {1, model.n.maximum}
            for count in {0, model.references.max_items}
            for each in model.parameters
            for name, value in [(each.name, one) for one in each.enum or ("any",)]
        ]
        assert any(refused) == bool(shortfalls(model, wire)), model.id
