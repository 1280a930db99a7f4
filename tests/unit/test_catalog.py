"""The shipped models, and what the loader says of broken ones."""

from itertools import product
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from calotype.catalog import CatalogError, brand_mark, load_catalog, monogram
from calotype.domain.catalog import Catalog, Model, Value, pixel_size
from calotype.domain.channel import Served
from calotype.domain.errors import InternalError, UnknownModel
from calotype.domain.pricing import price

SHIPPED = load_catalog()

PRO_RATIOS = ["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9", "auto"]
GPT_RATIOS = ["auto", "1:1", "9:16", "16:9", "4:3", "3:4"]

GOOD = """\
id = "good"
name = "Good"
description = "A model for tests."
brand = "acme-labs"
upstream_id = "acme/good"
created_at = "2026-11-22T00:00:00Z"
updated_at = 2026-11-22T12:00:00Z
eta_seconds = 5
[prompt]
max_length = 100
[[parameters]]
name = "aspect_ratio"
type = "string"
enum = ["auto", "1:1", "2:1"]
default = "auto"
description = "Shape."
[[parameters]]
name = "resolution"
type = "string"
enum = ["1K", "2K"]
default = "1K"
depends_on = { aspect_ratio = { "auto" = ["1K"] } }
description = "Size."
[[parameters]]
name = "seed"
type = "integer"
minimum = 0
maximum = 9
description = "Seed."
[pricing]
mode = "resolution"
[[pricing.tiers]]
id = "1k"
label = "1K"
unit = "image"
price_micro_usdc = 10
when = { resolution = ["1K"] }
[[pricing.tiers]]
id = "2k"
label = "2K"
price_micro_usdc = 20
when = { resolution = ["2K"] }
[sizes]
"1:1" = { 1K = [100, 100], 2K = [200, 200] }
"2:1" = { 1K = [200, 100], 2K = [400, 200] }
"""


def write(folder: Path, text: str, name: str = "good") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def enums(model: Model) -> dict[str, list[Value]]:
    return {each.name: list(each.enum) for each in model.parameters if each.enum}


def defaults(model: Model) -> dict[str, Value | None]:
    return {each.name: each.default for each in model.parameters}


# The two models that must be there, as the contract has them


def test_nano_banana_pro_is_the_one_of_the_contract() -> None:
    model = SHIPPED.get("nano-banana-pro")
    assert model.upstream_id == "google/nano-banana-pro"
    assert enums(model) == {
        "aspect_ratio": PRO_RATIOS,
        "resolution": ["1K", "2K", "4K"],
        "output_format": ["png", "jpg"],
    }
    assert defaults(model) == {"aspect_ratio": "1:1", "resolution": "1K", "output_format": "png"}
    assert all(not each.depends_on for each in model.parameters)
    assert model.references.max_items == 8
    assert model.prompt.max_length == 10_000
    assert model.pricing.mode == "resolution"
    assert [(each.id, each.label) for each in model.pricing.tiers] == [
        ("1k_2k", "1K / 2K"),
        ("4k", "4K"),
    ]


def test_gpt_image_2_is_the_one_of_the_contract() -> None:
    model = SHIPPED.get("gpt-image-2")
    assert model.upstream_id == "openai/gpt-image-2"
    assert enums(model) == {"aspect_ratio": GPT_RATIOS, "resolution": ["1K", "2K", "4K"]}
    assert defaults(model) == {"aspect_ratio": "auto", "resolution": "1K"}
    assert model.parameters[1].depends_on == {
        "aspect_ratio": {"auto": ("1K",), "1:1": ("1K", "2K")}
    }
    assert model.references.max_items == 16
    assert model.prompt.max_length == 20_000
    assert [each.id for each in model.pricing.tiers] == ["1k", "2k", "4k"]


@pytest.mark.parametrize("model_id", ["nano-banana-pro", "gpt-image-2"])
def test_references_are_jpeg_png_and_webp_of_thirty_mebibytes(model_id: str) -> None:
    references = SHIPPED.get(model_id).references
    assert references.max_bytes == 31_457_280
    assert references.content_types == ("image/jpeg", "image/png", "image/webp")


# All shipped models


def test_every_model_asked_for_is_shipped() -> None:
    assert set(SHIPPED.models) == {
        *("nano-banana-pro", "nano-banana-2", "nano-banana-2.1", "nano-banana-2-lite"),
        *("gpt-image-2", "gpt-image-2.5-flare", "gpt-image-2.5-sunburst"),
        *("flux-2-pro", "flux-2-max", "flux-2-flex", "flux-2-klein-4b", "flux-2-klein-9b"),
        *("seedream-4.5", "seedream-5-lite", "seedream-5-pro", "seedream-5.5"),
        *("qwen-image-2.0", "qwen-image-2.0-pro", "qwen-image-3.0", "qwen-image-3.0-pro"),
        *("ideogram-v4", "recraft-v4.1"),
        *("sd-turbo", "sdxl-turbo", "qwen-image", "z-image-turbo"),
    }


@pytest.mark.parametrize("model", SHIPPED.models.values(), ids=lambda model: model.id)
def test_sizes_have_the_shape_that_their_ratio_says(model: Model) -> None:
    for ratio, row in model.sizes.items():
        width, _, height = ratio.partition(":")
        for size in row.values():
            assert size[0] / size[1] == pytest.approx(int(width) / int(height), rel=0.06)


@pytest.mark.parametrize("model", SHIPPED.models.values(), ids=lambda model: model.id)
def test_every_edge_is_one_that_image_formats_and_upstreams_take(model: Model) -> None:
    edges = [edge for row in model.sizes.values() for size in row.values() for edge in size]
    assert all(64 <= edge <= 8192 and edge % 8 == 0 for edge in edges)


def test_openai_is_only_asked_for_sizes_that_it_takes() -> None:
    for model in SHIPPED.models.values():
        if model.brand == "openai":
            for width, height in (size for row in model.sizes.values() for size in row.values()):
                assert width % 16 == height % 16 == 0
                assert max(width, height) <= 3840
                assert 655_360 <= width * height <= 8_294_400


def test_flux_stays_within_four_megapixels() -> None:
    for model in SHIPPED.models.values():
        if model.brand == "black-forest-labs":
            for width, height in (size for row in model.sizes.values() for size in row.values()):
                assert width % 16 == height % 16 == 0
                assert width * height <= 4_194_304


@pytest.mark.parametrize("brand", sorted({each.brand for each in SHIPPED.models.values()}))
def test_every_shipped_brand_has_a_mark_with_a_title_and_no_script(brand: str) -> None:
    mark = brand_mark(brand)
    assert mark is not None
    assert SHIPPED.marks[brand] == mark
    root = ET.fromstring(mark)  # noqa: S314 -- our own file
    assert root.attrib["viewBox"] == "0 0 64 64"
    assert root.findtext("{http://www.w3.org/2000/svg}title")
    assert not [each for each in root.iter() if each.tag.endswith(("script", "image", "use"))]


@pytest.mark.parametrize("name", ["nobody", "../checks", "", "..", "google.svg", "a/b", "\0"])
def test_there_is_no_mark_of_a_brand_that_is_not_shipped(name: str) -> None:
    assert brand_mark(name) is None


# Prices and sizes


def test_a_price_is_that_of_the_tier_times_the_number_of_images() -> None:
    model = SHIPPED.get("nano-banana-pro")
    at = {each.id: each.price_micro_usdc for each in model.pricing.tiers}
    assert price(model, {"resolution": "1K"}, 1) == at["1k_2k"]
    assert price(model, {"resolution": "2K"}, 1) == at["1k_2k"]
    assert price(model, {"resolution": "4K"}, 3) == at["4k"] * 3


def test_parameters_that_were_never_normalised_have_no_price() -> None:
    with pytest.raises(InternalError):
        price(SHIPPED.get("gpt-image-2"), {}, 1)


@pytest.mark.parametrize(
    ("own", "asked", "expected"),
    [
        (None, "4K", 2 * 120_000),
        (5, "4K", 10),
        (0, "4K", 0),
        ({"1k": 1, "2k": 2, "4k": 3}, "1K", 2),
        ({"1k": 1, "2k": 2, "4k": 3}, "4K", 6),
        ({"1k": 1, "2k": 2, "4k": 0}, "4K", 0),
    ],
)
def test_a_channels_own_price_takes_the_place_of_the_catalogs(
    own: int | dict[str, int] | None, asked: str, expected: int
) -> None:
    model = SHIPPED.get("gpt-image-2")
    assert price(model, {"resolution": asked}, 2, Served(price=own)) == expected


def test_a_channel_without_a_price_for_a_tier_was_never_judged() -> None:
    with pytest.raises(InternalError):
        price(SHIPPED.get("gpt-image-2"), {"resolution": "4K"}, 1, Served(price={"1k": 1}))


@pytest.mark.parametrize(
    ("reference", "size"),
    [
        (None, (1024, 1024)),
        ((4000, 4000), (1024, 1024)),
        ((1920, 1080), (1536, 864)),
        ((1080, 1920), (864, 1536)),
        ((1200, 900), (1152, 864)),
        ((10_000, 10), (1536, 864)),
        ((0, 10), (1024, 1024)),
    ],
)
def test_auto_follows_the_first_reference(
    reference: tuple[int, int] | None, size: tuple[int, int]
) -> None:
    parameters = {"aspect_ratio": "auto", "resolution": "1K"}
    model = SHIPPED.get("gpt-image-2")
    assert pixel_size(model, parameters, reference_size=reference) == size


def test_a_chosen_ratio_holds_against_the_reference() -> None:
    parameters = {"aspect_ratio": "16:9", "resolution": "4K"}
    model = SHIPPED.get("gpt-image-2")
    assert pixel_size(model, parameters, reference_size=(10, 10)) == (3840, 2160)


def test_auto_only_chooses_ratios_that_have_the_resolution(tmp_path: Path) -> None:
    text = GOOD.replace('"auto" = ["1K"]', '"1:1" = ["1K"]')
    text = text.replace("[100, 100], 2K = [200, 200] }", "[100, 100] }")
    text = text.replace("eta_seconds = 5", 'eta_seconds = 5\nauto_ratio = "2:1"')
    write(tmp_path, text)
    model = load_catalog(tmp_path).get("good")
    parameters = {"aspect_ratio": "auto", "resolution": "2K"}
    assert pixel_size(model, parameters, reference_size=(5, 5)) == (400, 200)


def test_a_model_without_ratio_and_resolution_has_one_size(tmp_path: Path) -> None:
    head, _, tail = GOOD.partition('[[parameters]]\nname = "aspect_ratio"')
    text = f'{head}[pricing]\nmode = "fixed"\n{tail.partition("[pricing]")[2].partition("when")[0]}'
    text = text.replace('mode = "resolution"\n', "") + "[sizes]\ndefault = { default = [64, 32] }\n"
    write(tmp_path, text)
    model = load_catalog(tmp_path).get("good")
    assert pixel_size(model, {}, reference_size=(9, 9)) == (64, 32)
    assert price(model, {}, 2) == 20


# The operator's folder


def test_an_unknown_model_is_answered_with_those_that_can_be_used() -> None:
    with pytest.raises(UnknownModel, match="nano-banana-pro") as caught:
        SHIPPED.get("nano-banana-9")
    assert caught.value.param == "model"


def test_an_operator_adds_models(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    catalog = load_catalog(tmp_path)
    assert set(catalog.models) == {*SHIPPED.models, "good"}
    assert list(catalog.models) == sorted(catalog.models)


def test_an_operator_replaces_a_shipped_model(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace('id = "good"', 'id = "gpt-image-2"'), "gpt-image-2")
    catalog = load_catalog(tmp_path)
    assert catalog.get("gpt-image-2").name == "Good"
    assert len(catalog.models) == len(SHIPPED.models)


def test_an_operators_brand_gets_a_monogram_unless_it_has_a_mark(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    generated = load_catalog(tmp_path).marks["acme-labs"]
    assert generated == monogram("acme-labs")
    assert ">AL</text>" in generated.decode()
    ET.fromstring(generated)  # noqa: S314 -- our own output
    (tmp_path / "brands").mkdir()
    (tmp_path / "brands" / "acme-labs.svg").write_bytes(b"<svg/>")
    assert load_catalog(tmp_path).marks["acme-labs"] == b"<svg/>"


def test_a_model_switched_off_stays_in_the_catalog_but_is_not_recommended(tmp_path: Path) -> None:
    write(tmp_path, f"enabled = false\n{GOOD}")
    catalog: Catalog = load_catalog(tmp_path)
    assert not catalog.get("good").enabled
    with pytest.raises(UnknownModel) as caught:
        catalog.get("nothing")
    assert "good" not in caught.value.message


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no such folder"):
        load_catalog(tmp_path / "missing")


# Broken files: (what stands in the good one, what stands instead, the key, words of the message)

TIER_2K = GOOD[GOOD.index('[[pricing.tiers]]\nid = "2k"') : GOOD.index("[sizes]")]
SEED = GOOD[GOOD.index('[[parameters]]\nname = "seed"') : GOOD.index("[pricing]")]

BROKEN = [
    # types and keys
    ('name = "Good"\n', "", "name", "is missing; add it"),
    ("[prompt]\nmax_length = 100\n", "", "prompt", "is missing"),
    ("max_length = 100", "", "prompt.max_length", "is missing"),
    ('name = "Good"', "name = 3", "name", "write `str`"),
    ('name = "Good"', 'name = ""', "name", "expected `str` of length >= 1"),
    ('name = "Good"', 'name = "Good"\ncolour = 1', "colour", "the keys here are id, name"),
    ("max_length = 100", "max = 1", "prompt.max", "the keys here are max_length"),
    ('label = "1K"', 'label = "1K"\nx = 1', "pricing.tiers[0].x", "price_micro_usdc"),
    ("price_micro_usdc = 10", "price_micro_usdc = 10.0", "price_micro_usdc", "write `int`"),
    ("price_micro_usdc = 10", "price_micro_usdc = -1", "price_micro_usdc", ">= 0"),
    ("eta_seconds = 5", "eta_seconds = true", "eta_seconds", "write `int`"),
    ("eta_seconds = 5", "eta_seconds = 0", "eta_seconds", ">= 1"),
    ('"2026-11-22T00:00:00Z"', '"yesterday"', "created_at", "2026-11-22T00:00:00Z"),
    ('"2026-11-22T00:00:00Z"', '"2026-11-22T00:00:00"', "created_at", "with its zone"),
    ("2026-11-22T12:00:00Z", "2026-11-22", "updated_at", "with its zone"),
    ('type = "integer"', 'type = "int"', "parameters[2].type", "one of boolean, integer"),
    ('mode = "resolution"', 'mode = "size"', "pricing.mode", "fixed, parameter, resolution"),
    ('unit = "image"', 'unit = "token"', "pricing.tiers[0].unit", "one of image"),
    ("2K = [400, 200]", "2K = [400]", 'sizes."2:1".2K', "length 2"),
    ("2K = [400, 200]", '2K = [400, "x"]', 'sizes."2:1".2K[1]', "write `int`"),
    ('["1K"] } }', "[{}] } }", "parameters[1].depends_on.aspect_ratio.auto[0]", "str"),
    # names
    ('id = "good"', 'id = "better"', "id", "is not the name of the file"),
    ('id = "good"', 'id = "gpt-image-2"', "id", "is not the name of the file"),
    ('brand = "acme-labs"', 'brand = "../x"', "brand", "lower-case"),
    ('name = "seed"', 'name = "Seed"', "parameters.Seed", "lower-case"),
    ('name = "seed"', 'name = "metadata"', "parameters.metadata", "choose another name"),
    ('name = "seed"', 'name = "async"', "parameters.async", "choose another name"),
    ('name = "seed"', 'name = "resolution"', "parameters.resolution", "declared twice"),
    ("eta_seconds = 5", "eta_seconds = 601", "deadline_seconds", "at least 601"),
    # values
    ('["1K", "2K"]\nd', '["1K", 2]\nd', "parameters.resolution.enum", "2 is no string"),
    ('["1K", "2K"]\nd', '["1K", "1K"]\nd', "parameters.resolution.enum", "twice"),
    ('default = "1K"', 'default = "3K"', "parameters.resolution.default", "'3K' is not among"),
    ('default = "1K"', "default = 1", "parameters.resolution.default", "1 is no string"),
    ('default = "1K"', 'default = "2K"', "parameters.resolution.depends_on", "leaves out"),
    ('default = "1K"\n', "", "parameters.resolution", "enum and a default"),
    ('default = "auto"\n', "", "parameters.resolution.depends_on", "can be depended on"),
    ("minimum = 0\n", "", "parameters.seed", "minimum and maximum"),
    ("minimum = 0", "minimum = 10", "parameters.seed.minimum", "above maximum"),
    ("minimum = 0", "minimum = nan", "parameters.seed.minimum", "at most 9"),
    ("minimum = 0", "minimum = 0.5", "parameters.seed.minimum", "integers"),
    ("maximum = 9", "maximum = 9223372036854775808", "parameters.seed.maximum", "out of bounds"),
    ("maximum = 9", "maximum = 9\ndefault = 10", "parameters.seed.default", "10 is not among"),
    ("maximum = 9", "maximum = 9\ndefault = 1.0", "parameters.seed.default", "1.0 is no integer"),
    ("maximum = 9", "maximum = 9\nmax_length = 3", "parameters.seed.max_length", "take it out"),
    ("maximum = 9", "maximum = 9\nenum = [1]", "parameters.seed.minimum", "take minimum"),
    ('"integer"\nminimum = 0\nmaximum = 9', '"string"', "parameters.seed", "max_length"),
    ('"integer"\nminimum = 0\nmaximum = 9', '"boolean"\nenum = [true]', "seed.enum", "needs none"),
    # what depends on what
    ("on = { aspect_ratio", "on = { shape", "parameters.resolution.depends_on.shape", "no such"),
    ("on = { aspect_ratio", "on = { seed", "parameters.resolution.depends_on.seed", "above"),
    ('"auto" = ["1K"]', '"3:1" = ["1K"]', 'aspect_ratio."3:1"', "no such value"),
    ('"auto" = ["1K"]', '"auto" = ["1K", "8K"]', 'aspect_ratio."auto"', "some of 1K, 2K"),
    ('"auto" = ["1K"]', '"auto" = []', 'aspect_ratio."auto"', "some of 1K, 2K"),
    (
        '"seed"',
        '"output_format"',
        "parameters.output_format",
        "enum of png, jpg and webp",
    ),
    # prices
    (TIER_2K, "", "pricing.tiers", "no tiers hold for resolution 2K"),
    (TIER_2K, TIER_2K * 2, "pricing.tiers.2k", "two of this id"),
    ('["2K"] }\n[', '["1K", "2K"] }\n[', "pricing.tiers", "2 tiers hold for resolution 1K"),
    ('["2K"] }\n[', '["3K"] }\n[', "pricing.tiers.2k.when.resolution", "some of 1K, 2K"),
    ("when = { resolution", "when = { size", "pricing.tiers.1k.when.size", "no such parameter"),
    ("when = { resolution", "when = { seed", "pricing.tiers.1k.when.seed", "enum and a default"),
    ('mode = "resolution"', 'mode = "fixed"', "pricing.mode", "one tier"),
    ("when = { resolution", "when = { aspect_ratio", "aspect_ratio", "some of auto, 1:1, 2:1"),
    # sizes
    (", 2K = [400, 200]", "", 'sizes."2:1"."2K"', "is missing"),
    ("[400, 200]", "[400, 8193]", 'sizes."2:1"."2K"', "1 to 8192"),
    ("[400, 200]", "[0, 200]", 'sizes."2:1"."2K"', "1 to 8192"),
    ("2K = [400, 200]", "2K = [400, 200], 4K = [8, 4]", 'sizes."2:1"."4K"', "nobody can ask"),
    ('"2:1" = { 1K', '"3:1" = { 1K', 'sizes."2:1"."1K"', "is missing"),
    ("eta_seconds = 5", 'eta_seconds = 5\nauto_ratio = "9:9"', "auto_ratio", "no size at 1K"),
]


@pytest.mark.parametrize(("old", "new", "key", "words"), BROKEN)
def test_a_broken_file_is_named_with_its_key_and_what_would_be_right(
    tmp_path: Path, old: str, new: str, key: str, words: str
) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(CatalogError) as caught:
        load_catalog(tmp_path)
    named, _, rest = str(caught.value).partition(": ")
    where, _, fault = rest.partition(": ")
    assert named == str(path)
    assert key in where
    assert words in fault
    assert "; " in fault


@pytest.mark.parametrize("content", [b"id = ", b"\xff\xfe", b"id = 1\nid = 2\n"])
def test_what_is_no_toml_is_named_with_its_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(CatalogError, match=r"bad\.toml: not TOML"):
        load_catalog(tmp_path)


def test_each_broken_example_breaks_one_thing_only(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    good = load_catalog(tmp_path).get("good")
    assert good.pricing.tiers[0].price_micro_usdc == 10
    assert isinstance(good.pricing.tiers[0].price_micro_usdc, int)
    assert isinstance(good.parameters[2].maximum, int)


def test_a_price_may_hang_on_a_boolean_and_on_what_depends_on_what(tmp_path: Path) -> None:
    parameter = (
        '[[parameters]]\nname = "hd"\ntype = "boolean"\ndefault = false\ndescription = "x"\n'
    )
    text = GOOD.replace("[pricing]", f"{parameter}[pricing]").replace(
        '"resolution"\n[[p', '"parameter"\n[[p'
    )
    text = text.replace('["1K"] }\n', '["1K"], hd = [false, true] }\n').replace(
        '["2K"] }\n[sizes]',
        '["2K"], hd = [false] }\n[[pricing.tiers]]\nid = "hd"\nlabel = "HD"\n'
        'price_micro_usdc = 30\nwhen = { resolution = ["2K"], hd = [true] }\n[sizes]',
    )
    write(tmp_path, text)
    model = load_catalog(tmp_path).get("good")
    prices = {
        (resolution, hd): price(model, {"resolution": resolution, "hd": hd}, 1)
        for resolution, hd in product(("1K", "2K"), (False, True))
    }
    assert prices == {("1K", False): 10, ("1K", True): 10, ("2K", False): 20, ("2K", True): 30}


def test_a_model_says_how_long_its_images_are_kept_or_leaves_it_to_the_settings(
    tmp_path: Path,
) -> None:
    said = GOOD + "\n[retention]\nresult_days = 0\n"
    (tmp_path / "good.toml").write_text(said, encoding="utf-8")
    catalog = msgspec.structs.replace(load_catalog(tmp_path), result_days=5, reference_days=6)
    assert catalog.result_days_of("good") == 0
    assert catalog.reference_days_of("good") == 6
    for model in ("gpt-image-2", "no longer there"):
        assert (catalog.result_days_of(model), catalog.reference_days_of(model)) == (5, 6)
    wrong = said.replace("result_days = 0", "result_days = -1")
    (tmp_path / "good.toml").write_text(wrong, encoding="utf-8")
    with pytest.raises(CatalogError, match="retention"):
        load_catalog(tmp_path)
