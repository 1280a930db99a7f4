"""How long a session lasts, and over which connections its cookie goes."""

from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from calotype.console.sessions import Sessions, Signed
from calotype.core import Core, build_core
from calotype.domain.keys import ApiKey
from calotype.domain.secret import Secret
from calotype.settings import Settings

SECRET = b"not a secret at all, no"
HOUR = 3600 * 1000


class Bench:
    """Sessions under a clock of the test's own."""

    def __init__(self, core: Core, key: ApiKey) -> None:
        self.core = core
        self.key = key
        self.now = core.clock()

    def sessions(
        self, *, public_url: str = "", secret: bytes = SECRET, password: str = ""
    ) -> Sessions:
        settings = Settings(public_url=public_url, admin_password=Secret(password))
        return Sessions(secret, settings=settings, store=self.core.store, clock=lambda: self.now)

    def begun(self, sessions: Sessions, scheme: str = "http", *, admin: bool = False) -> str:
        """The ``Set-Cookie`` of a new session."""
        response = Response()
        if admin:
            sessions.begin(asked("", scheme), response, "admin")
        else:
            sessions.begin(asked("", scheme), response, "account", self.key)
        return response.headers["set-cookie"]

    async def found(
        self, sessions: Sessions, set_cookie: str, scheme: str = "http"
    ) -> Signed | None:
        """Who comes with the cookie that was set."""
        return await sessions.find(asked(set_cookie.partition(";")[0], scheme))


def asked(cookie: str, scheme: str) -> Request:
    headers = [(b"host", b"test"), (b"cookie", cookie.encode())]
    scope = {"type": "http", "scheme": scheme, "method": "GET", "path": "/", "query_string": b""}
    return Request({**scope, "headers": headers})


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    core = build_core(Settings(data_dir=tmp_path))
    await core.store.prepare()
    _, key = await core.accounts.create_key("test", account="test")
    yield Bench(core, key)
    await core.store.close()


@pytest.mark.parametrize(("admin", "hours"), [(True, 12), (False, 168)])
async def test_a_session_lasts_so_long_and_no_longer(
    bench: Bench, *, admin: bool, hours: int
) -> None:
    sessions = bench.sessions()
    cookie = bench.begun(sessions, admin=admin)
    assert f"Max-Age={hours * 3600};" in cookie
    bench.now += hours * HOUR - 1
    assert await bench.found(sessions, cookie)
    bench.now += 1
    assert await bench.found(sessions, cookie) is None


async def test_a_session_ends_with_its_key(bench: Bench) -> None:
    _, bench.key = await bench.core.accounts.create_key(
        "short", account="test", expires_in_seconds=60
    )
    sessions = bench.sessions()
    bench.now = bench.key.created_at
    cookie = bench.begun(sessions)
    assert bench.key.expires_at is not None
    bench.now = bench.key.expires_at - 1
    assert await bench.found(sessions, cookie)
    bench.now += 1
    assert await bench.found(sessions, cookie) is None


async def test_every_process_with_the_same_secret_knows_it_and_no_other(bench: Bench) -> None:
    cookie = bench.begun(bench.sessions())
    assert await bench.found(bench.sessions(), cookie)
    assert await bench.found(bench.sessions(secret=b"another one, as long"), cookie) is None


async def test_a_session_that_began_by_a_fast_clock_is_ended_all_the_same(bench: Bench) -> None:
    sessions = bench.sessions()
    bench.now += HOUR
    cookie = bench.begun(sessions)
    bench.now -= HOUR
    signed = await bench.found(sessions, cookie)
    assert signed is not None
    await sessions.end_all(signed)
    assert await bench.found(sessions, cookie) is None


async def test_another_password_ends_the_sessions_that_began_with_the_old_one(
    bench: Bench,
) -> None:
    sessions, response = bench.sessions(password="a long old one"), Response()
    sessions.begin(asked("", "http"), response, "admin", by_password=True)
    cookie = response.headers["set-cookie"]
    by_link = bench.begun(sessions, admin=True)
    assert await bench.found(sessions, cookie)
    for password in ("a long new one", ""):
        changed = bench.sessions(password=password)
        assert await bench.found(changed, cookie) is None
        assert await bench.found(changed, by_link)
    assert await bench.found(bench.sessions(password="a long old one"), cookie)


async def test_ends_of_sessions_are_kept_for_as_long_as_one_could_last(bench: Bench) -> None:
    sessions, operating = bench.sessions(), bench.core.store.operating
    cookie = bench.begun(sessions)
    signed = await bench.found(sessions, cookie)
    assert signed is not None
    await sessions.end_one(signed)
    bench.now += 7 * 24 * HOUR - 1
    await operating.cut_off("session:another", now=bench.now)
    assert await bench.found(sessions, cookie) is None
    assert await operating.cutoff(signed.alone) is not None
    bench.now += 24 * HOUR + 2
    await operating.cut_off("session:another", now=bench.now)
    assert await operating.cutoff(signed.alone) is None


@pytest.mark.parametrize(
    ("public_url", "scheme"), [("https://pics.example", "http"), ("", "https")]
)
async def test_where_browsers_come_by_https_the_cookie_goes_no_other_way(
    bench: Bench, public_url: str, scheme: str
) -> None:
    sessions = bench.sessions(public_url=public_url)
    cookie = bench.begun(sessions, scheme)
    (name,) = SimpleCookie(cookie)
    assert name == "__Host-calotype_session"
    assert {"Secure", "HttpOnly", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    assert await bench.found(sessions, cookie, scheme)
    assert await bench.found(sessions, cookie.removeprefix("__Host-"), scheme) is None
