"""A browser without a screen: it keeps cookies, follows nothing, and sends forms."""

import re
import secrets
from collections.abc import Mapping
from html import unescape
from types import TracebackType
from typing import Any, Self

import aiohttp

from calotype.core import secret_of
from calotype.services.signin import Links
from harness import Reply, Server

PASSWORD = "let me in, please"


def some_address() -> str:
    """Nobody else's: too many tries from one address are refused."""
    return f"2001:db8:{secrets.token_hex(2)}:{secrets.token_hex(2)}::1"


class Tab:
    """Whoever sits before it comes from an address of their own, as a proxy says."""

    def __init__(self, site: Server, address: str = "") -> None:
        self.site = site
        self._headers = {"X-Forwarded-For": address or some_address()}
        self._http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self._http.close()

    @property
    def cookies(self) -> dict[str, str]:
        """What the browser keeps."""
        return {cookie.key: cookie.value for cookie in self._http.cookie_jar}

    def keep(self, name: str, value: str) -> None:
        """Have it send this cookie and no other."""
        self._http.cookie_jar.clear()
        self._http.cookie_jar.update_cookies({name: value})

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        """A page."""
        return await self._ask("GET", path, headers=headers)

    async def post(
        self, path: str, headers: Mapping[str, str] | None = None, /, **fields: str
    ) -> Reply:
        """What comes of a form with these fields and no others."""
        return await self._ask("POST", path, headers=headers, data=fields)

    async def token(self, path: str) -> str:
        """The token of the forms of a page."""
        return hidden(await self.get(path), "csrf")["csrf"]

    async def marked(self, path: str) -> dict[str, str]:
        """What is hidden in the forms of a page that do their work once."""
        return hidden(await self.get(path), "csrf", "once")

    async def send(self, path: str, **fields: str) -> Reply:
        """A form of a page, sent to where the page is."""
        return await self.post(path, csrf=await self.token(path), **fields)

    async def sign_in(self, key: str = "", **fields: str) -> Reply:
        """Sign in with a key, by default the server's own."""
        return await self.send("/console/sign-in", way="key", key=key or self.site.key, **fields)

    async def be_operator(self) -> Reply:
        """Sign in with the password."""
        return await self.send("/console/sign-in", way="password", password=PASSWORD)

    async def _ask(self, method: str, path: str, **options: Any) -> Reply:
        sent = {**self._headers, **(options.pop("headers") or {})}
        async with self._http.request(
            method, self.site.url + path, headers=sent, allow_redirects=False, **options
        ) as answer:
            return Reply(answer.status, answer.headers.copy(), await answer.read())


def hidden(reply: Reply, *names: str) -> dict[str, str]:
    """Hidden fields of a page by name."""
    page, found = reply.body.decode(), {}
    for name in names:
        value = re.search(rf'name="{name}" value="([\w-]+)"', page)
        assert value is not None, page
        found[name] = value[1]
    return found


def words(reply: Reply) -> str:
    """What a page says, without its markup."""
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", reply.body.decode())))


def gone_to(reply: Reply) -> str:
    """Where an answer sends the browser."""
    assert reply.status == 303, (reply.status, reply.body)
    return reply.headers["Location"]


def links(site: Server) -> Links:
    """What makes one-time links of this server."""
    return Links(secret_of(site.core.settings), site.core.clock)
