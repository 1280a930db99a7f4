"""What of an upstream's own words comes to a client or a log."""

from collections.abc import Mapping
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.domain.channel import Channel
from calotype.domain.outcomes import Accepted, Running
from calotype.domain.secret import Secret
from calotype.net.client import Answer
from calotype.providers.line import Line
from calotype.providers.scrubbing import HIDDEN, scrubbed
from providers.bed import Bed, protocols, upstream
from providers.protocol import Protocol
from providers.scripts import Script

KEY: Final = "hunter2:swordfish"
CODED: Final = "aHVudGVyMjpzd29yZGZpc2g="
HEADERS: Final = {
    "Authorization": f"Basic {CODED}",
    "OpenAI-Organization": "our-company",
    "x-other": "",
}


def line(bed: Bed, headers: Mapping[str, str] = HEADERS) -> Line:
    channel = Channel(
        id=10,
        slug="main",
        name="Main",
        provider="openai",
        api_key=Secret(KEY),
        callback_secret=Secret("whsec_x"),
    )
    return Line(channel, upstream("openai"), bed.client, headers=headers)


@pytest.fixture
def protocol() -> Protocol:
    return protocols()["openai"]


@pytest.mark.parametrize(
    "secret", [KEY, CODED, f"Basic {CODED}", "our-company", "whsec_x", f"Bearer {KEY}"]
)
async def test_what_we_send_to_prove_ourselves_never_comes_back(bed: Bed, secret: str) -> None:
    said = line(bed).said(Answer(status=400), f"I got <{secret}>, {'x' * 280}{secret}.")
    for part in (KEY, CODED, "our-company", "whsec_x", "hunter2", "aHVu"):
        assert part not in said
    assert said.startswith("HTTP 400: I got <")
    assert HIDDEN in said


async def test_a_long_text_is_cut_after_it_was_cleaned(bed: Bed) -> None:
    for spaces in range(280, 320):
        said = line(bed).said(Answer(status=400), "y" * spaces + KEY)
        assert "hunter" not in said
    far = line(bed).said(Answer(status=400), " " * 3995 + KEY)
    assert far == f"HTTP 400: {HIDDEN}"


async def test_the_beginning_of_a_body_that_is_no_json_is_cleaned_too(bed: Bed) -> None:
    answer = Answer(status=502, text=f"<a href='https://inside.example.com/x'>{KEY}</a>\n\x00")
    assert line(bed).said(answer) == f"HTTP 502: <a href='{HIDDEN}'>{HIDDEN}</a>"


@pytest.mark.parametrize(
    "private",
    [
        "https://inside.example.com:8443/v1/x?token=abc",
        "http://10.0.0.7/x",
        "s3://bucket/of/theirs",
        "wss://ws.example.net",
        "inside.example.com",
        "gpu-7.cluster.local:8000",
        "api.openai.com",
        "localhost:3000",
        "10.0.0.7:8188",
        "192.168.0.1",
        "[fe80::1]:8000",
        "org-AbCd1234",
        "org-abcdefghij",
        "proj_AbCd1234",
        "sk-proj-AbCd_1234",
        "sk-abcd****wxyz",
        "sk-" + "a1" * 300,
        "sk_live_51abc",
        "key-AbCd1234",
        "key_live_1234",
    ],
)
def test_addresses_and_names_of_accounts_are_left_out(private: str) -> None:
    for text in ("Failed at {}.", "({}) failed", "It is '{}', alas", "{}"):
        assert scrubbed(text.format(private), ()) == text.format(HIDDEN)


@pytest.mark.parametrize(
    "plain",
    [
        "The ratio 16:9 with size 1024x1024 is 1.5 times too large, e.g. 3.0, i.e. no.",
        "Invalid value: 'low'. Supported: 'medium' and 'high'.",
        "generation_config.image_config.aspect_ratio: not permitted",
        "input.messages.0.content: field required",
        "flux-2-klein-4b-Q4_0.gguf and sd_xl_base_1.0.safetensors are not there",
        "A key-value pair, an organisation-wide key_not_found, the task-1 of skill",
        "the image image.png; width:1024 height:64",
        "It failed.It broke.",
        "(req_AbCd1234) quota exceeded",
        "夜 “at dusk” & more",
    ],
)
def test_what_helps_to_mend_a_request_stays(plain: str) -> None:
    assert scrubbed(plain, ()) == plain


@given(st.text(), st.text(min_size=3), st.text())
def test_no_secret_is_left_in_any_text(before: str, secret: str, after: str) -> None:
    if HIDDEN not in secret:
        assert secret not in scrubbed(f"{before}{secret}{after}", [secret, ""])


@pytest.mark.parametrize(
    "text", ["key-" * 20_000, "a." * 50_000, "[" + ":" * 50_000, "1." * 50_000, "sk-" * 50_000]
)
def test_no_text_takes_long(text: str) -> None:
    assert len(scrubbed(text, ())) <= 4000


STATES: Final = [each for each in protocols().values() if Script.UNKNOWN_STATE in each.expected]


@pytest.mark.parametrize("protocol", STATES, ids=lambda each: each.provider)
async def test_a_state_that_nobody_documented_is_passed_on(bed: Bed) -> None:
    async with bed.fake(Script.UNKNOWN_STATE, Script.DELAY) as fake:
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        accepted = await provider.submit(job)
        assert isinstance(accepted, Accepted)
        strange = await provider.poll(job, accepted.upstream_id)
        assert isinstance(strange, Running)
        assert strange.state in {"pondering", "IN_LIMBO", "Pondering"}, strange
