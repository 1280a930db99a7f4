"""The files that say how upstreams take the models, and what the loader says of broken ones."""

import re
from pathlib import Path

import msgspec
import pytest

from calotype import catalog
from calotype.catalog import CatalogError, load_catalog
from calotype.domain import wire
from calotype.domain.catalog import Catalog
from calotype.domain.channel import Served, in_the_clear
from calotype.domain.validation import normalise
from calotype.domain.wire import Upstream, Wire
from calotype.providers.kind import kind_of

SHIPPED = load_catalog()

GOOD = """\
base_url = "https://api.example.com/v1"
[create]
"400" = "request"
"400 moderation_blocked" = "policy"
"429" = "busy"
"5xx" = "unknown"
"*" = "unknown"
[read]
"404" = "lost"
"200 code with blanks" = "failed"
[states]
"In Queue" = "queued"
[protocol]
anything = { goes = 1 }
[models.nano-banana-pro]
id = "theirs/pro"
edit = "{id}/edit"
max_references = 14
reference_types = ["image/png"]
formats = ["png"]
[models.nano-banana-pro.constants]
watermark = false
config = { safety = "low" }
[models.nano-banana-pro.parameters]
aspect_ratio = { field = "config.ratio", omit = ["auto"], edit_values = { auto = "match" } }
resolution = { field = "config.size", values = { 1K = 1, 2K = 2 }, enum = ["1K", "2K"] }
[models.flux-2-pro]
id = "theirs/flux"
size = { width = "width", height = "height" }
constants = { seed = -1 }
[models.flux-2-pro.parameters]
seed = { field = "seed" }
output_format = { field = "format", values = { jpg = "jpeg" } }
[models.gpt-image-2]
size = { field = "size", auto = "auto" }
[models."qwen-image-2.0"]
id = "qwen"
size = { field = "size", form = "{height}*{width}" }
parameters = { negative_prompt = { field = "not" } }
without = ["seed"]
[models."*"]
size = { field = "size", auto = "" }
[models."*".parameters]
seed = { field = "seed" }
"""


def load(folder: Path, text: str, name: str = "good") -> Catalog:
    (folder / "upstreams").mkdir(exist_ok=True)
    (folder / "upstreams" / f"{name}.toml").write_text(text, encoding="utf-8")
    return load_catalog(folder)


def test_every_shipped_upstream_serves_a_model_and_sends_no_key_in_the_clear() -> None:
    assert list(SHIPPED.upstreams) == sorted(SHIPPED.upstreams)
    for upstream in SHIPPED.upstreams.values():
        assert upstream.models
        assert not in_the_clear(upstream.base_url)


def test_an_operator_adds_an_upstream(tmp_path: Path) -> None:
    catalog = load(tmp_path, GOOD)
    good = catalog.upstreams["good"]
    assert set(catalog.upstreams) == {*SHIPPED.upstreams, "good"}
    assert good.protocol == {"anything": {"goes": 1}}
    assert good.wire("nano-banana-pro") == good.models["nano-banana-pro"]
    assert good.wire("ideogram-v4") == good.models["*"]


def test_an_upstream_without_an_entry_for_every_model_does_not_take_the_others(
    tmp_path: Path,
) -> None:
    text = GOOD[: GOOD.index('[models."*"]')]
    assert load(tmp_path, text).upstreams["good"].wire("ideogram-v4") is None


def test_an_operator_adds_models_to_a_shipped_upstream_and_replaces_its_other_keys(
    tmp_path: Path,
) -> None:
    name, shipped = next((each, one) for each, one in SHIPPED.upstreams.items() if one.states)
    taken, *left = [each for each in shipped.models if each != "*"]
    fields = [
        f'{each.name} = {{ field = "x-{each.name}" }}' for each in SHIPPED.get(taken).parameters
    ]
    text = "\n".join(
        [
            'base_url = "https://own.example.com"',
            '[states]\nown = "done"',
            f'[models.{taken!r}]\nid = "own"',
            f"[models.{taken!r}.parameters]",
            *fields,
            '[models."*"]\nid = "any"',
        ]
    )
    own = load(tmp_path, text, name).upstreams[name]
    assert own.base_url == "https://own.example.com"
    assert own.states == {"own": "done"}
    assert own.create == shipped.create
    assert own.protocol == shipped.protocol
    assert own.models[taken].id == "own"
    assert own.models["*"] == Wire(id="any")
    assert [own.models[each] for each in left] == [shipped.models[each] for each in left]


def test_an_upstream_may_take_a_model_of_the_operators_own(tmp_path: Path) -> None:
    path = Path(catalog.__file__).parent / "gpt-image-2.toml"
    text = path.read_text(encoding="utf-8").replace('id = "gpt-image-2"', 'id = "mine"', 1)
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    good = '[models.mine]\nid = "m"\nsize = { field = "size" }\n'
    assert load(tmp_path, good).upstreams["good"].models["mine"].id == "m"
    (tmp_path / "mine.toml").unlink()
    with pytest.raises(CatalogError, match=r"upstreams/good\.toml: models\.mine: there is no such"):
        load_catalog(tmp_path)


def test_the_words_of_the_tables_are_those_that_providers_understand(tmp_path: Path) -> None:
    words = {"create": wire.CREATE, "read": wire.READ, "states": wire.STATES}
    for table, known in words.items():
        lines = [f'"{400 + place}" = "{word}"' for place, word in enumerate(sorted(known))]
        load(tmp_path, "\n".join([f"[{table}]", *lines, ""]))


# Broken files: (what stands in the good one, what stands instead, the key, words of the message)

SIZE = 'size = { width = "width", height = "height" }'
RATIO = 'omit = ["auto"], edit_values = { auto = "match" }'

BROKEN = [
    # types and keys
    ("[read]", "[reed]", "reed", "did you mean read? the keys here are base_url, create"),
    ('id = "theirs/pro"', "id = 5", "models.nano-banana-pro.id", "write `str`"),
    ("max_references", "max_refs", "models.nano-banana-pro.max_refs", "did you mean max_refer"),
    ("max_references = 14", "max_references = -1", "models.nano-banana-pro.max_", "`int` >= 0"),
    ('field = "seed" }\noutput', 'feld = "x" }\noutput', "parameters.seed.feld", "mean field?"),
    ('field = "seed" }\noutput', "omit = [1] }\noutput", "parameters.seed.field", "is missing"),
    ('field = "seed" }\noutput', 'field = "" }\noutput', "parameters.seed.field", "length >= 1"),
    ('width = "width",', 'widht = "width",', "models.flux-2-pro.size.widht", "mean width?"),
    ("api.example.com/v1", "api.example.com?key=1", "base_url", "end it with the path"),
    ("https://api", "ftp://api", "base_url", "write it like https://"),
    # verdicts
    ('"busy"', '"bussy"', "create.429", "did you mean busy? use one of account, busy"),
    ('"lost"', '"busy"', "read.404", "use one of again, cancelled, failed, lost, policy"),
    ('"queued"', '"waiting"', 'states."In Queue"', "use one of cancelled, done, failed"),
    ('"5xx" =', '"5XX" =', "create.5XX", "write a status as 429"),
    ('"5xx" =', '"50x" =', "create.50x", "this is no status"),
    ('"429" =', '"429 " =', 'create."429 "', "this is no status"),
    ('"429" =', '"4290" =', "create.4290", "this is no status"),
    ('"404" =', '"quota" =', "read.quota", "this is no status"),
    # models and parameters
    ("[models.gpt-image-2]", "[models.gpt-image-3]", "models.gpt-image-3", "mean gpt-image-2?"),
    ("aspect_ratio = {", "aspect_rato = {", "pro.parameters.aspect_rato", "mean aspect_ratio?"),
    ('seed = { field = "seed" }\nout', "out", "flux-2-pro.parameters.seed", "without = ['seed']"),
    ('formats = ["png"]\n', "", "pro.parameters.output_format", "nothing says how it goes out"),
    (f"{SIZE}\n", "", "models.flux-2-pro.parameters.aspect_ratio", "nothing says how it goes out"),
    ('without = ["seed"]', "", '"qwen-image-2.0".parameters.seed', "without = ['seed']"),
    ('without = ["seed"]', 'without = ["sed"]', '"qwen-image-2.0".without', "did you mean seed?"),
    ('= ["seed"]', '= ["seed", "resolution"]', '"qwen-image-2.0".without', "goes out all the same"),
    ('= ["seed"]', '= ["seed", "negative_prompt"]', ".without", "goes out all the same"),
    ('formats = ["png"]\n', 'without = ["output_format"]\n', ".without", "every request sets it"),
    ('formats = ["png"]\n', 'formats = ["png"]\nwithout = ["resolution"]\n', "without", "all the"),
    # values
    ("2K = 2 }", "8K = 2 }", "parameters.resolution.values.8K", "1K, 2K, 4K"),
    ('enum = ["1K", "2K"]', 'enum = ["1K", "8K"]', "parameters.resolution.enum", "'8K': the par"),
    ('enum = ["1K", "2K"]', 'enum = ["1K"]', "parameters.resolution.enum", "leaves out '2K'"),
    (RATIO, RATIO.replace("auto =", "atuo ="), "edit_values.atuo", "use some of 16:9, 1:1"),
    (RATIO, RATIO.replace('["auto"]', '["atuo"]'), "aspect_ratio.omit", "'atuo': the parameter"),
    (RATIO, RATIO.replace('["auto"]', "[1]"), "aspect_ratio.omit", "1: the parameter"),
    ('"seed" }\nout', '"seed", values = { 1 = 2 } }\nout', "seed.values.1", "go out as they are"),
    ('"seed" }\nout', '"seed", enum = [-1] }\nout', "seed.enum", "-1: the parameter"),
    ('"seed" }\nout', '"seed", enum = [true] }\nout', "seed.enum", "True: the parameter"),
    # said twice, or into nothing
    (
        'id = "theirs/pro"',
        'id = "x"\nsize = { field = "z" }',
        "parameters.aspect_ratio",
        "size says",
    ),
    (
        f"{SIZE}\n",
        f'{SIZE}\nformats = ["png"]\n',
        "models.flux-2-pro.formats",
        "output_format has a",
    ),
    ("max_references = 14\n", "", "models.nano-banana-pro.max_references", "is 0, so that nothing"),
    ('"config.ratio"', '"config.size"', "parameters.resolution", "'config.size' is written twice"),
    ('"config.ratio"', '"config.size.x"', "parameters.resolution", "is written twice"),
    ('"config.ratio"', '"config..ratio"', "parameters.aspect_ratio.field", "has an empty step"),
    (
        '"config.ratio"',
        '"config.safety.x"',
        "parameters.aspect_ratio",
        "constants write 'config.saf",
    ),
    ('"config.ratio"', '"watermark"', "parameters.aspect_ratio", "constants write 'watermark' too"),
    ("{ seed = -1 }", "{ width = 5 }", "flux-2-pro.size.width", "constants write 'width' too"),
    ("{ seed = -1 }", "{ seed = { a = 1 } }", "parameters.seed", "constants write 'seed.a' too"),
    # sizes
    (SIZE, 'size = { width = "width" }', "models.flux-2-pro.size.width", "give both"),
    (SIZE, "size = {}", "models.flux-2-pro.size.field", "give either field, for both, or width"),
    (SIZE, SIZE.replace("= {", '= { field = "s",'), "flux-2-pro.size.field", "not both"),
    (
        SIZE,
        SIZE.replace("= {", '= { auto = "auto",'),
        "flux-2-pro.size.auto",
        "is a word for field",
    ),
    (SIZE, SIZE.replace("= {", '= { auto = "",'), "flux-2-pro.size.auto", "draws auto at 1K, 2K"),
    ('"{height}*{width}"', '"{height}"', ".size.form", "have {width} and {height}"),
    ('"{height}*{width}"', '"{height}{width"', ".size.form", "have {width} and {height}"),
    ('"{height}*{width}"', '"{height.x}{width}"', ".size.form", "have {width}"),
    ('"{height}*{width}"', '"{height:5}{width!r}"', ".size.form", "once each"),
    (
        '"{height}*{width}" }',
        '"{height}*{width}", auto = "" }',
        ".size.auto",
        "has no ratio auto",
    ),
    # limits
    ('formats = ["png"]', 'formats = ["jpeg"]', "nano-banana-pro.formats", "use one of jpg, png"),
    ('["image/png"]', '["png"]', "nano-banana-pro.reference_types", "write it like image/png"),
    ('["image/png"]', "[]", "nano-banana-pro.reference_types", "is empty"),
]


@pytest.mark.parametrize(("old", "new", "key", "words"), BROKEN)
def test_a_broken_file_is_named_with_its_key_and_what_would_be_right(
    tmp_path: Path, old: str, new: str, key: str, words: str
) -> None:
    assert old in GOOD
    with pytest.raises(CatalogError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    named, _, rest = str(caught.value).partition(": ")
    where, _, fault = rest.partition(": ")
    assert named == str(tmp_path / "upstreams" / "good.toml")
    assert key in where
    assert words in fault
    assert "; " in fault


@pytest.mark.parametrize("name", ["Good", "a b", "-a"])
def test_a_file_is_called_like_its_provider(name: str, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="is not called like a provider"):
        load(tmp_path, GOOD, name)


@pytest.mark.parametrize("content", ["models = ", "a = 1\na = 2\n"])
def test_what_is_no_toml_is_named_with_its_file(content: str, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"upstreams/good\.toml: not TOML"):
        load(tmp_path, content)


def test_an_empty_file_is_an_upstream_that_takes_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "").upstreams["good"] == Upstream()


# Documentation

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "channels.md"


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("in the file", Upstream),
        ("in an entry of `models`", Wire),
        ("in `parameters`", wire.Field),
        ("in `size`", wire.Size),
        ("in a table", Served),
    ],
)
def test_every_key_is_documented_and_no_other(heading: str, kind: type[msgspec.Struct]) -> None:
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(f"| {heading} |")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    documented = [row.split("`")[1] for row in rows]
    assert documented == [field.name for field in msgspec.structs.fields(kind)]


def test_every_provider_and_every_option_is_documented_and_no_other() -> None:
    text = PAGE.read_text(encoding="utf-8")
    providers, options = (
        [row.split("`")[1::2] for row in rest.partition("\n\n")[0].splitlines()[2:]]
        for rest in (text.partition(f"| {head} |")[2] for head in ("provider", "option"))
    )
    assert [row[0] for row in providers] == ["sandbox", *SHIPPED.upstreams]
    for (name, *cells), upstream in zip(providers[1:], SHIPPED.upstreams.values(), strict=True):
        assert upstream.base_url in (*cells, "")
        known = {row[0] for row in options if name in row[1:]}
        assert known == set(kind_of(name).options), name


def test_the_example_of_an_upstream_takes_the_example_of_a_model(tmp_path: Path) -> None:
    model, upstream = (
        re.findall(r"<!-- test -->\n```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)[-1]
        for page in (PAGE.parents[1] / "guides" / "models.md", PAGE)
    )
    (tmp_path / "atelier-1.toml").write_text(model, encoding="utf-8")
    written = load(tmp_path, upstream, "openai-compatible")
    asked = {"model": "atelier-1", "prompt": "x", "careful": True, "resolution": "1K"}
    wire = written.upstreams["openai-compatible"].models["atelier-1"]
    fields = wire.fields(
        written.get("atelier-1"), normalise(written, asked, text=False), reference_sizes=[]
    )
    assert fields["steps"] == 50
    assert wire.unable(normalise(written, {**asked, "strength": 0.5}, text=False), references=0)
