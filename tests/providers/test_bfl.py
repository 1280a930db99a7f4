"""What is Black Forest Labs' own: regions, costs in credits, webhooks, states that end a job."""

import hashlib
import hmac
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.channel import Channel
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    Fault,
    Refused,
    Running,
    TryLater,
    Unknown,
)
from calotype.net.client import UpstreamClient
from calotype.providers.bfl import Bfl as Provider
from calotype.providers.line import Tools
from providers.answers import JSON
from providers.bed import CALLBACK_URL, Bed, content, followed, protocols, public_url, upstream
from providers.fakes.base import CALLBACK_SECRET, KEY, Fake, Order, Phase, image
from providers.fakes.bfl import FOREIGN_URL, FORGOTTEN_IN_WORDS, NO_URL, Bfl
from providers.fakes.exchange import Reply
from providers.protocol import Protocol
from providers.scripts import Script


@pytest.fixture
def protocol() -> Protocol:
    return protocols()["bfl"]


class Scripted(Bfl):
    """BFL, with what a test has it say of a job."""

    said: dict[str, Any] | None = None
    status = 200

    def told(self, order: Order, phase: Phase) -> Reply:
        told = super().told(order, phase)
        return told if self.said is None else Reply(self.status, told.document | self.said)


# Where a job is asked about


@pytest.mark.parametrize(
    ("base", "url", "asked"),
    [
        ("", "https://api.bfl.ai/v1/get_result?id=1", True),
        ("", "https://api.eu2.bfl.ai/v1/get_result?id=1", True),
        ("https://api.us.bfl.ai", "https://api.us3.bfl.ai/v1/get_result?id=1", True),
        ("", "https://BFL.ai/x", True),
        ("", "http://api.eu2.bfl.ai/v1/get_result?id=1", False),
        ("", "https://evilbfl.ai/x", False),
        ("", "https://bfl.ai.evil.example/x", False),
        ("", "https://api.bfl.ai@evil.example/x", False),
        ("", "https://evil.example/.bfl.ai", False),
        ("", "https://evil.example\\.bfl.ai/x", False),
        ("", "https://evil.example#.bfl.ai/x", False),
        ("", "https://evil.example?.bfl.ai/x", False),
        ("", "https://..bfl.ai/x", False),
        ("", "https://" + "a" * 64 + ".bfl.ai/x", False),
        ("", "https://api.bfl.ai", False),
        ("", "https://api.bfl.ai/a b", False),
        ("", "https://api.bfl.ai/a\r\nHost: evil", False),
        ("", "https://api.bfl.ai/" + "x" * 5000, False),
        ("", "//api.bfl.ai/x", False),
        ("", "file:///x", False),
        ("", "", False),
        ("https://proxy.example", "https://proxy.example/v1/get_result?id=1", True),
        ("https://proxy.example", "https://api.bfl.ai/v1/get_result?id=1", False),
        ("http://127.0.0.1:9", "http://127.0.0.1:9/v1/get_result?id=1", True),
        ("http://127.0.0.1:9", "http://127.0.0.1:8/v1/get_result?id=1", False),
        ("http://127.0.0.1:9", "https://api.bfl.ai/v1/get_result?id=1", False),
    ],
)
def test_the_key_goes_to_the_channels_own_host_and_to_bfls_other_regions(
    bed: Bed, base: str, url: str, *, asked: bool
) -> None:
    assert at(bed, base_url=base)._is_theirs(url) is asked


async def test_a_foreign_polling_url_is_neither_kept_nor_asked(bed: Bed) -> None:
    async with bed.fake(FOREIGN_URL) as fake:
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        accepted = await provider.submit(job)
        assert isinstance(accepted, Accepted)
        assert fake.elsewhere not in accepted.upstream_id
        assert isinstance(await followed(provider, job, accepted.upstream_id), Done)
    fake.assert_sound()


async def test_an_id_that_names_a_foreign_host_does_not_lead_there(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        await provider.submit(job)
        (order,) = fake.bought
        for rest in ("", " -", " - -", f" - {fake.elsewhere}/results/x/0.png", " ² x y z"):
            polled = await provider.poll(job, f"{order.id}{rest}")
            assert isinstance(polled, Running | Done)
    assert all(call.to_upstream for call in fake.calls)
    fake.assert_sound()


async def test_a_job_is_followed_into_its_region_with_the_key(bed: Bed, tmp_path: Path) -> None:
    seen: list[tuple[str, str | None]] = []

    async def serve(request: web.Request) -> web.Response:
        seen.append((request.host.partition(":")[0], request.headers.get("x-key")))
        if request.method == "POST":
            url = f"https://api.eu2.bfl.ai:{request.url.port}/v1/get_result?id=job-1"
            return web.json_response({"id": "job-1", "polling_url": url})
        return web.json_response({"id": "job-1", "status": "Pending"})

    async with https(serve, tmp_path) as (port, client):
        channel = Channel(
            id=10,
            slug="bfl",
            name="BFL",
            provider="bfl",
            base_url=f"https://api.bfl.ai:{port}",
            api_key=bed.channel(Fake()).api_key,
        )
        provider = Provider(channel, upstream("bfl"), Tools(client=client, clock=bed.clock))
        accepted = await provider.submit(bed.job())
        assert isinstance(accepted, Accepted)
        polled = await provider.poll(bed.job(), accepted.upstream_id)
    assert polled == Running(poll_after=1.0)
    assert seen == [("api.bfl.ai", KEY), ("api.eu2.bfl.ai", KEY)]


@pytest.mark.parametrize(
    ("script", "expected"), [(Script.LOST, Unknown), (FORGOTTEN_IN_WORDS, Unknown)]
)
async def test_a_job_not_found_is_lost_only_where_its_own_region_says_so(
    bed: Bed, script: str, expected: type
) -> None:
    async with bed.fake(script) as fake:
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        accepted = await provider.submit(job)
        assert isinstance(accepted, Accepted)
        name, _, url = accepted.upstream_id.split(" ")
        assert url.startswith(fake.url)
        assert isinstance(await provider.poll(job, accepted.upstream_id), expected)
        # Without the URL of its region another one may have it.
        assert isinstance(await provider.poll(job, name), TryLater)


# Costs


@pytest.mark.parametrize(
    ("credits_", "micro"),
    [
        (4.55, 45_500),
        (3, 30_000),
        (0, 0),
        (0.00005, 1),
        (0.00004999, 0),
        (1e-300, 0),
        (-1, None),
        (1e300, None),
        (10**400, None),
        (True, None),
        ("4.5", None),
        (None, None),
        ([4.5], None),
    ],
)
async def test_what_bfl_charged_is_told_with_the_image(
    bed: Bed, credits_: object, micro: int | None
) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda reply: (
            replace(reply, document={**reply.document, "cost": credits_})
            if "polling_url" in reply.document
            else reply
        )
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        accepted = await provider.submit(job)
        assert isinstance(accepted, Accepted)
        another = bed.provider(bed.channel(fake))
        outcome = await followed(another, job, accepted.upstream_id)
        assert isinstance(outcome, Done)
        assert outcome.cost_micro_usdc == micro
        assert [await content(source) for source in outcome.images] == [image(0)]


# Sends


async def test_references_go_by_our_url_or_as_bare_base64(bed: Bed) -> None:
    _, inline, public, *_ = bed.protocol.examples
    async with bed.fake() as fake:
        for example in (inline, public):
            await bed.provider(bed.channel(fake, example)).submit(bed.job(example))
    first, second = (order.call.document for order in fake.bought)
    names = ["input_image", *(f"input_image_{number}" for number in range(2, 9))]
    assert [name for name in first if name.startswith("input")] == names
    assert not any(first[name].startswith("data:") for name in names)
    assert [second[name] for name in names[:3]] == [public_url(index) for index in range(3)]


@pytest.mark.parametrize(
    ("status", "expected", "fault"),
    [
        (400, Refused, Fault.REQUEST),
        (401, Refused, Fault.KEY),
        (402, Refused, Fault.ACCOUNT),
        (403, Refused, Fault.KEY),
        (404, Refused, Fault.MODEL),
        (413, Refused, Fault.REQUEST),
        (422, Refused, Fault.REQUEST),
        (429, TryLater, Fault.BUSY),
        (307, Unknown, Fault.UPSTREAM),
        (408, Unknown, Fault.UPSTREAM),
        (500, Unknown, Fault.UPSTREAM),
        (503, Unknown, Fault.UPSTREAM),
        (504, Unknown, Fault.UPSTREAM),
    ],
)
async def test_every_answer_to_a_send_has_its_outcome(
    bed: Bed, status: int, expected: type, fault: Fault | None
) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda reply: replace(reply, status=status, document={"detail": "So it is."})
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, expected)
    assert getattr(outcome, "fault", None) is fault


async def test_a_refusal_tells_what_is_wrong(bed: Bed) -> None:
    async with bed.fake(Script.REJECTED) as fake:
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, Refused)
    assert "multiple of 16" in outcome.message


# States


@pytest.mark.parametrize(
    ("said", "status", "expected"),
    [
        ({"status": "Pending", "progress": 0.25}, 200, Running(25)),
        ({"status": "Pending", "progress": 1}, 200, Running(100)),
        ({"status": "Pending", "progress": 40}, 200, Running()),
        ({"status": "Pending", "progress": -1}, 200, Running()),
        ({"status": "Pending", "progress": True}, 200, Running()),
        ({"status": "Pending", "progress": "x"}, 200, Running()),
        ({"status": "Sleeping"}, 200, Running(50, state="Sleeping")),
        ({"status": ["Ready"]}, 200, Running(50)),
        ({"status": None}, 200, Running(50)),
        ({"status": "Ready", "result": None}, 200, Failed),
        ({"status": "Ready", "result": {"sample": 7}}, 200, Failed),
        ({"status": "Ready"}, 500, TryLater),
        ({"status": "Pending"}, 429, TryLater),
        ({"status": "Pending"}, 403, TryLater),
        ({"status": "Pending"}, 302, TryLater),
        ({"status": "Error"}, 200, Failed),
        ({"status": "Task not found"}, 404, Unknown),
        ({"status": 404}, 404, Unknown),
    ],
)
async def test_every_word_about_a_job_has_its_outcome(
    bed: Bed, said: dict[str, Any], status: int, expected: object
) -> None:
    fake = Scripted()
    fake.said, fake.status = said, status
    async with fake.running():
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        accepted = await provider.submit(job)
        assert isinstance(accepted, Accepted)
        outcome = await provider.poll(job, accepted.upstream_id)
    if isinstance(expected, Running):
        assert outcome == expected
    else:
        assert isinstance(expected, type)
        assert isinstance(outcome, expected)


async def test_a_job_cannot_be_stopped_or_found_by_our_reference(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        assert not await provider.cancel(job, "job-1")
        assert isinstance(await provider.recover(job), Unknown)
    assert not fake.calls


# Webhooks


async def test_a_webhook_goes_out_with_its_secret_and_the_job_is_polled_all_the_same(
    bed: Bed,
) -> None:
    async with bed.fake() as fake:
        provider, job = bed.provider(bed.channel(fake)), bed.job(callback_url=CALLBACK_URL)
        accepted = await provider.submit(job)
        assert isinstance(accepted, Accepted)
        assert isinstance(await followed(provider, job, accepted.upstream_id), Done)
    (order,) = fake.bought
    assert order.call.document["webhook_url"] == CALLBACK_URL
    assert order.call.document["webhook_secret"] == CALLBACK_SECRET
    assert accepted.upstream_id == f"{order.id} 45500 -"


async def test_no_webhook_is_asked_for_that_could_not_be_proved(bed: Bed) -> None:
    async with bed.fake(NO_URL) as fake:
        channel = msgspec.structs.replace(bed.channel(fake), callback_secret=None)
        await bed.provider(channel).submit(bed.job(callback_url=CALLBACK_URL))
    (order,) = fake.bought
    assert not any(name.startswith("webhook") for name in order.call.document)


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ("", False),
        ("https://api.bfl.ai", False),
        ("https://api.bfl.ai/", False),
        ("https://api.eu.bfl.ai", True),
        ("https://api.us.bfl.ai", True),
        ("https://proxy.example", True),
    ],
)
def test_webhooks_are_asked_for_only_where_the_job_can_be_found_without_polling_url(
    bed: Bed, base: str, *, told: bool
) -> None:
    assert at(bed, base_url=base)._tells_webhooks() is told


async def test_the_older_forms_of_a_webhook_prove_nothing(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        await provider.submit(bed.job())
        (order,) = fake.bought
        headers, body = fake.delivery(order, at=0)
        proof = headers["x-bfl-signature"]
        assert provider.callback({"x-bfl-signature": proof.upper()}, body) == order.id
        for older in (
            {"x-webhook-signature": proof},
            {"x-webhook-secret": CALLBACK_SECRET},
            {"x-bfl-signature": CALLBACK_SECRET},
            {"x-bfl-signature": proof.removeprefix("sha256=")},
        ):
            assert provider.callback(older, body) is None


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"id": "job-1"}, "job-1"),
        ({"task_id": "job-1", "id": 7}, "job-1"),
        ({"task_id": "a b"}, None),
        ({"task_id": ["job-1"]}, None),
        ({}, None),
        ([], None),
        (None, None),
        ("job-1", None),
    ],
)
def test_a_signed_webhook_may_say_anything(bed: Bed, document: object, named: str | None) -> None:
    provider = at(bed)
    body = json.dumps(document).encode()
    assert provider.callback(signed(body), body) == named


# Answers that nobody foresaw


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_random_documents_always_have_an_outcome(bed: Bed, data: st.DataObject) -> None:
    def said(reply: Reply) -> Reply:
        known = reply.document if isinstance(reply.document, dict) else {}
        other = {name: data.draw(JSON) for name in known if data.draw(st.booleans())}
        return replace(reply, document=data.draw(st.just(known | other) | JSON))

    async with bed.fake() as fake:
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        accepted = await provider.submit(job)
        assert isinstance(accepted, Accepted)
        fake.tamper = said
        assert isinstance(await provider.submit(job), Accepted | Unknown)
        for upstream_id in (accepted.upstream_id, accepted.upstream_id.split(" ")[0]):
            for _ in range(2):
                polled = await provider.poll(job, upstream_id)
                assert isinstance(polled, Running | Done | TryLater | Failed | Unknown)


# Helpers


def at(bed: Bed, **changes: Any) -> Provider:
    """A provider whose channel is elsewhere; nothing is sent there."""
    channel = msgspec.structs.replace(bed.channel(Fake(url="http://127.0.0.1:9")), **changes)
    return Provider(channel, upstream("bfl"), Tools(client=bed.client, clock=bed.clock))


def signed(body: bytes) -> dict[str, str]:
    """The headers of a genuine webhook."""
    proof = hmac.digest(CALLBACK_SECRET.encode(), body, hashlib.sha256).hex()
    return {"x-bfl-signature": f"sha256={proof}"}


class Loopback(AbstractResolver):
    """Finds every host here."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def https(
    serve: Callable[[web.Request], Any], folder: Path
) -> AsyncIterator[tuple[int, UpstreamClient]]:
    """A server for every host of bfl.ai, and a client that finds and trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bfl.ai")])
    hosts = [x509.DNSName(host) for host in ("api.bfl.ai", "api.eu2.bfl.ai")]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    trusting = ssl.create_default_context(cadata=certificate.public_bytes(Encoding.PEM).decode())
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    client = UpstreamClient(folder, resolver=Loopback(), tls=trusting)
    try:
        yield runner.addresses[0][1], client
    finally:
        await client.close()
        await runner.cleanup()
