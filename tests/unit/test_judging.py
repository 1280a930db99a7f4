"""Configured channels against providers, upstreams' files and the catalog."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from calotype.catalog import load_catalog
from calotype.core import build_core, channels_of
from calotype.domain.catalog import Catalog
from calotype.domain.channel import Channel, Served
from calotype.domain.secret import Secret
from calotype.domain.wire import Size, Upstream, Wire
from calotype.judging import judged
from calotype.providers.kind import Kind, kind_of
from calotype.providers.sandbox import SANDBOX, built_in_channel
from calotype.settings import Settings, SettingsError

SHIPPED = load_catalog()
SIZE = Size(field="size")
CATALOG = msgspec.structs.replace(
    SHIPPED,
    upstreams={
        "openai": Upstream(
            base_url="https://api.openai.com/v1",
            models={
                "gpt-image-2": Wire(id="gpt-image-2", size=SIZE),
                "gpt-image-2.5-flare": Wire(id="flare", size=SIZE),
                "flux-2-pro": Wire(size=SIZE, formats=("png",)),
            },
        ),
        "openai-compatible": Upstream(models={"*": Wire(size=SIZE, formats=("png",))}),
        "nobody-wrote-this": Upstream(models={"*": Wire()}),
    },
)
KEY = Secret("sk-1")
WHOLE = Wire(size=SIZE, formats=("png", "jpg"), max_references=16)


def channel(**said: Any) -> Channel:
    chosen = {"id": 10, "slug": "main", "name": "Main", "provider": "openai", "api_key": KEY}
    return Channel(**{**chosen, **said})


def local(**said: Any) -> Channel:
    chosen = {"provider": "openai-compatible", "base_url": "http://127.0.0.1:8080/v1"}
    return channel(**{**chosen, "api_key": None, "models": {"flux-2-pro": Served()}, **said})


def judge(*channels: Channel, catalog: Catalog = CATALOG) -> tuple[Channel, ...]:
    return judged(Settings(channels=channels, config=Path("calotype.toml")), catalog)


@pytest.mark.parametrize(
    "good",
    [
        channel(models={"gpt-image-2": Served()}),
        channel(models={"flux-2-pro": Served(id="mine")}),
        channel(models={"gpt-image-2": Served(price=0, cost=5)}),
        channel(models={"gpt-image-2": Served(price={"1k": 1, "2k": 2, "4k": 0})}),
        channel(models={"gpt-image-2": Served()}, options={"project": "p"}),
        local(),
        local(base_url="http://images:8080/v1", api_key=KEY),
        local(base_url="http://10.0.0.5/v1", api_key=KEY),
        local(base_url="http://[::1]:8080", api_key=KEY),
        local(base_url="http://gpu.lan", api_key=KEY),
        local(base_url="http://images.example.com"),
        local(base_url="https://images.example.com", api_key=KEY),
        channel(provider=SANDBOX, api_key=None),
        channel(provider=SANDBOX, api_key=None, models={"gpt-image-2": Served(id="theirs")}),
    ],
)
def test_a_channel_that_can_do_what_it_is_to_stays_as_it_is(good: Channel) -> None:
    assert judge(good) == (good,)


def test_a_channel_without_models_serves_those_whose_ids_are_the_same_for_everybody() -> None:
    (judged_,) = judge(channel())
    assert judged_.models == {"gpt-image-2": Served()}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (channel(provider="opnai"), "provider: there is no provider 'opnai'; did you mean openai?"),
        (
            channel(provider="zzz"),
            "provider: there is no provider 'zzz'; there are sandbox, openai, openai-compatible.",
        ),
        (channel(provider="nobody-wrote-this"), "provider: there is no provider 'nobody-wrote"),
        (channel(provider="../openai"), "provider: there is no provider '../openai'"),
        (channel(options={"projct": "p"}), "options.projct: openai has no such option; did you "),
        (channel(options={"x.y": ""}), 'options."x.y": openai has no such option; there are '),
        (channel(api_key=None), "api_key_env: openai wants a key; name the variable that holds it"),
        (local(base_url=""), "base_url: is missing; openai-compatible is nowhere in particular"),
        (local(base_url="http://a.example", api_key=KEY), "base_url: everybody on the way would"),
        (local(base_url="http://8.8.8.8", api_key=KEY), "base_url: everybody on the way would"),
        (local(models=None), "models: is missing; openai-compatible may serve any model, so name"),
        (
            channel(models={"gpt-imag-2": Served()}),
            "models.gpt-imag-2: there is no such model; did",
        ),
        (local(models={"zzz": Served()}), "models.zzz: there is no such model; there are flux-2-"),
        (
            channel(models={"seedream-5.5": Served()}),
            'models."seedream-5.5": the provider does not have it; it has flux-2-pro, gpt-',
        ),
        (channel(models={"flux-2-pro": Served()}), "models.flux-2-pro: the upstream's id is not "),
        (
            channel(models={"gpt-image-2.5-flare": Served()}),
            'models."gpt-image-2.5-flare": the provider has no background, which every request ',
        ),
        (
            channel(models={"gpt-image-2": Served(price={"1k": 1, "2k": 2, "8k": 3})}),
            "models.gpt-image-2.price.8k: gpt-image-2 has no such tier; there are 1k, 2k, 4k.",
        ),
        (
            channel(models={"gpt-image-2": Served(price={"1k": 1})}),
            "models.gpt-image-2.price: says nothing of 2k, 4k; give each tier its price.",
        ),
        (
            channel(provider=SANDBOX, api_key=None, models={"zzz": Served()}),
            "models.zzz: there is no such model",
        ),
    ],
)
def test_a_channel_that_cannot_is_refused_with_file_key_and_cure(wrong: Channel, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        judge(local(id=11, slug="other"), wrong)
    message = str(caught.value)
    assert message.startswith(f"calotype.toml: channels[2].{told}")
    assert message.endswith(".")
    assert "\n" not in message
    assert KEY.value not in message


@pytest.mark.parametrize(("provider", "option"), [("kie", "upload_url"), ("fal", "rest_url")])
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://uploads.example.com", "everybody on the way would read the key; write https://"),
        ("http://8.8.8.8/x", "everybody on the way would read the key; write https://"),
        ("uploads.example.com", "is no URL of the web; write it like https://"),
        ("ftp://uploads.example.com", "is no URL of the web; write it like https://"),
        ("https://u:secret@uploads.example.com", "holds a credential; take it out"),
        ("https://uploads.example.com/?a=secret", "has a query or a fragment; end it with"),
        ("https://127.1/x", "names its host in an unusual way; write it as 127.0.0.1."),
    ],
)
def test_an_option_that_the_key_goes_to_is_judged_like_a_base_url(
    provider: str, option: str, url: str, told: str
) -> None:
    wrong = channel(provider=provider, options={option: url})
    with pytest.raises(SettingsError) as caught:
        judge(wrong, catalog=SHIPPED)
    message = str(caught.value)
    assert message.startswith(f"calotype.toml: channels[1].options.{option}: {told}")
    assert message.endswith(".")
    assert "secret" not in message


@pytest.mark.parametrize(("provider", "option"), [("kie", "upload_url"), ("fal", "rest_url")])
@pytest.mark.parametrize("url", ["https://uploads.example.com/x", "http://gpu.lan:9000", ""])
def test_an_option_that_the_key_may_go_to_is_taken(provider: str, option: str, url: str) -> None:
    (judged_,) = judge(channel(provider=provider, options={option: url}), catalog=SHIPPED)
    assert judged_.options == {option: url}


def test_options_that_the_key_goes_to_are_among_the_options() -> None:
    for name in SHIPPED.upstreams:
        kind = kind_of(name)
        assert set(kind.urls) <= set(kind.options)
        assert not any(each.endswith("_url") for each in set(kind.options) - set(kind.urls))


@pytest.mark.parametrize(
    ("provider", "model", "own"),
    [("runware", "flux-2-pro", "bfl:5@1"), ("stability", "flux-2-klein-4b", "ultra")],
)
def test_an_upstream_that_cannot_know_our_ids_wants_its_own(
    provider: str, model: str, own: str
) -> None:
    message = rf"models\.{model}: the upstream does not know the catalog's id; write its own here\."
    catalog = _taking(provider, model)
    with pytest.raises(SettingsError, match=message):
        judge(channel(provider=provider, models={model: Served()}), catalog=catalog)
    (judged_,) = judge(channel(provider=provider, models={model: Served(id=own)}), catalog=catalog)
    assert judged_.served(model).id == own


def test_an_upstreams_file_may_have_the_id() -> None:
    assert judge(channel(provider="runware", models={"gpt-image-2": Served()}), catalog=SHIPPED)
    (every,) = judge(channel(provider="runware"), catalog=SHIPPED)
    assert every.models == {"gpt-image-2": Served()}


def _taking(provider: str, model: str) -> Catalog:
    """The catalog, with a model that this provider takes in full, under no id of its own."""
    return msgspec.structs.replace(
        SHIPPED,
        models={model: SHIPPED.models[model]},
        upstreams={provider: Upstream(base_url="https://x.example", models={"*": WHOLE})},
    )


def test_without_a_file_the_place_still_tells_which_channel_it_is() -> None:
    with pytest.raises(SettingsError, match=r"^channels\[1\]\.provider: "):
        judged(Settings(channels=(channel(provider="zzz"),)), CATALOG)


# What is in force


def test_the_sandbox_serves_what_no_channel_does() -> None:
    settings = Settings(channels=(channel(),), sandbox_seconds=1.5)
    main, sandbox = channels_of(settings, CATALOG)
    assert main.serves("gpt-image-2")
    assert sandbox.provider == SANDBOX
    assert sandbox.eta_seconds == 3
    assert sandbox.models == {
        name: Served(id=name)
        for name, model in SHIPPED.models.items()
        if name != "gpt-image-2" and not model.needs_channel
    }


# Local pictures


def drawing(models: tuple[str, ...] = ("sd-turbo",), **options: str) -> Channel:
    served = {name: Served() for name in models}
    return channel(provider="diffusers", api_key=None, models=served, options=options)


def test_a_model_that_needs_a_channel_is_offered_by_none_but_a_configured_one(
    tmp_path: Path,
) -> None:
    bare = build_core(Settings(data_dir=tmp_path))
    assert "sd-turbo" not in bare.catalog.models
    assert not bare.router.channels[0].serves("sd-turbo")
    core = build_core(Settings(data_dir=tmp_path, channels=(drawing(),)))
    assert "sd-turbo" in core.catalog.models
    assert "sdxl-turbo" not in core.catalog.models
    with pytest.raises(SettingsError, match=r"restart, and it is offered"):
        channels_of(Settings(channels=(drawing(("sdxl-turbo",)),)), core.catalog)


@pytest.mark.parametrize(
    ("options", "concurrency"),
    [({}, 8), ({"device": "cpu"}, 2), ({"batch": "6"}, 12), ({"device": "cuda:1"}, 8)],
)
def test_a_local_channel_runs_what_is_drawn_and_what_gathers(
    options: dict[str, str], concurrency: int
) -> None:
    (judged_,) = judge(drawing(("sd-turbo",), **options), catalog=SHIPPED)
    assert judged_.concurrency == concurrency
    assert judged_.options["weights"] == "stabilityai/sd-turbo"


def test_weights_are_a_folder_beside_the_configuration_or_a_repository(tmp_path: Path) -> None:
    (tmp_path / "acme" / "mine").mkdir(parents=True)
    found = {
        said: judged(
            Settings(channels=(drawing(weights=said),), config=tmp_path / "calotype.toml"), SHIPPED
        )[0].options["weights"]
        for said in ("acme/mine", "acme/theirs", "./acme/theirs", "/weights")
    }
    assert found == {
        "acme/mine": str(tmp_path / "acme" / "mine"),
        "acme/theirs": "acme/theirs",
        "./acme/theirs": str(tmp_path / "acme" / "theirs"),
        "/weights": "/weights",
    }


@pytest.mark.parametrize(
    ("bad", "key", "cure"),
    [
        (drawing(device="gpu"), "options.device", "write auto, cpu, cuda or cuda:0"),
        (drawing(dtype="int8"), "options.dtype", "write one of auto, float32"),
        (drawing(offload="disk"), "options.offload", "write one of none, model, sequential"),
        (drawing(compile="yes"), "options.compile", 'write "true" or "false"'),
        (drawing(batch="0"), "options.batch", "write a whole number, 1 to 64"),
        (drawing(batch="0000000649"), "options.batch", "write a whole number, 1 to 64"),
        (drawing(batch_window_ms="-1"), "options.batch_window_ms", "whole number, 0 to 10000"),
        (drawing(weights="x" * 300), "options.weights", "write ./folder, or owner/name"),
        (drawing(weights="here"), "options.weights", "write ./folder, or owner/name"),
        (drawing(("sd-turbo", "sdxl-turbo")), "models", "give each model a channel of its own"),
        (channel(provider="diffusers", api_key=None), "models", "a channel of its own"),
        (drawing(sampler="x"), "options.sampler", "has no such option"),
    ],
)
def test_a_local_channel_that_is_set_up_wrongly_is_refused(
    bad: Channel, key: str, cure: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        judge(bad, catalog=SHIPPED)
    assert str(caught.value).startswith(f"calotype.toml: channels[1].{key}: ")
    assert cure in str(caught.value)


def test_a_channel_that_is_switched_off_is_not_replaced_by_the_sandbox() -> None:
    off = channel(enabled=False, models={name: Served(id="x") for name in ["gpt-image-2"]})
    assert not channels_of(Settings(channels=(off,)), CATALOG)[1].serves("gpt-image-2")


def test_a_sandbox_that_is_configured_serves_everything() -> None:
    rehearsal = channel(provider=SANDBOX, api_key=None)
    assert channels_of(Settings(channels=(rehearsal,)), CATALOG) == (rehearsal,)


def test_a_core_knows_how_each_upstream_takes_the_models(tmp_path: Path) -> None:
    core = build_core(Settings(data_dir=tmp_path))
    assert core.upstreams == core.catalog.upstreams
    assert [each.id for each in core.router.channels] == [built_in_channel(4.0).id]


# What is shipped


def test_every_shipped_upstream_has_its_provider_and_the_other_way_round() -> None:
    for name in (SANDBOX, *SHIPPED.upstreams):
        kind = kind_of(name)
        assert isinstance(kind, Kind)
        assert all(option and what for option, what in kind.options.items())


def test_the_sandbox_wants_no_key_and_has_no_options() -> None:
    kind = kind_of(SANDBOX)
    assert not kind.needs_key
    assert kind.options == {}


# Documentation

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "connect-an-upstream.md"
EXAMPLES = re.findall(
    r"<!-- test(?:: ([A-Z_ ]+))? -->\n```toml\n(.*?)```",
    GUIDE.read_text(encoding="utf-8"),
    re.DOTALL,
)


@pytest.mark.parametrize(("variables", "example"), EXAMPLES)
def test_an_example_of_the_guide_is_what_it_says(
    variables: str, example: str, tmp_path: Path
) -> None:
    path = tmp_path / "calotype.toml"
    path.write_text(example, encoding="utf-8")
    settings = Settings.load(dict.fromkeys(variables.split(), "sk-1"), path)
    assert all(each.models for each in judged(settings, SHIPPED))


def test_the_guide_has_examples() -> None:
    assert len(EXAMPLES) == 4
