"""Sessions: who signed in, kept in a signed cookie that holds no secret."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Final, Literal

import msgspec
from itsdangerous import BadData, URLSafeSerializer
from starlette.requests import Request
from starlette.responses import Response

from calotype.domain.clock import Clock
from calotype.domain.keys import ApiKey
from calotype.settings import Settings
from calotype.store.port import Store

Role = Literal["account", "admin"]

HOURS: Final[Mapping[Role, int]] = {"account": 7 * 24, "admin": 12}
"""How long a session is good."""
_HOUR: Final = 3600
_SESSION: Final = "calotype_session"
_VISIT: Final = "calotype_visit"
"""Before anybody has signed in: what the token of the sign-in form is bound to."""
_ID_BYTES: Final = 16
_ID_LENGTH: Final = 22
_MARK_LENGTH: Final = 16


class Session(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the cookie says; the time in milliseconds."""

    id: str
    role: Role
    issued_at: int
    key_id: int | None = None
    password: str = ""
    """A mark of the operator's password that it was begun with; without one, empty."""


class Signed(msgspec.Struct, frozen=True):
    """A session that holds, with the key behind it where there is one."""

    session: Session
    key: ApiKey | None

    @property
    def role(self) -> Role:
        """As whom they signed in."""
        return self.session.role

    @property
    def subject(self) -> str:
        """Whose sessions can be ended together."""
        return "admin" if self.key is None else f"account:{self.key.account_id}"

    @property
    def alone(self) -> str:
        """This session only, where it is ended without the others."""
        return f"session:{self.session.id}"

    @property
    def account(self) -> str:
        """The account's name; empty for the operator."""
        return "" if self.key is None else self.key.account

    @property
    def key_name(self) -> str:
        """The name of the key behind it; empty for the operator."""
        return "" if self.key is None else self.key.name


class Sessions:
    """Begins, recognises and ends sessions.

    Args:
        secret: the server's; every process has the same.
        settings: whether browsers come by https.
        store: where keys and ends of sessions stand.
        clock: the time.

    """

    def __init__(self, secret: bytes, *, settings: Settings, store: Store, clock: Clock) -> None:
        self._serializer = URLSafeSerializer(
            secret,
            salt="calotype console session v1",
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )
        self._password_key = hmac.digest(secret, b"calotype console password v1", "sha256")
        self._admin_password = settings.admin_password
        self._form_key = hmac.digest(secret, b"calotype console form v1", "sha256")
        self._https = settings.public_url.startswith("https://")
        self._store = store
        self._clock = clock

    # Cookies

    def begin(
        self,
        request: Request,
        response: Response,
        role: Role,
        key: ApiKey | None = None,
        *,
        by_password: bool = False,
    ) -> None:
        """Sign somebody in; what the browser had before is no longer sent."""
        session = Session(
            id=secrets.token_urlsafe(_ID_BYTES),
            role=role,
            issued_at=self._clock(),
            key_id=None if key is None else key.id,
            password=self._mark if by_password else "",
        )
        value: str = self._serializer.dumps(msgspec.to_builtins(session))
        self._set(request, response, _SESSION, value, seconds=HOURS[role] * _HOUR)

    def end(self, request: Request, response: Response) -> None:
        """Have the browser forget who signed in."""
        self._set(request, response, _SESSION, "", seconds=0)

    def _set(
        self, request: Request, response: Response, name: str, value: str, *, seconds: int | None
    ) -> None:
        response.set_cookie(
            self._name(request, name),
            value,
            max_age=seconds,
            path="/",
            secure=self._secure(request),
            httponly=True,
            samesite="lax",
        )

    def _name(self, request: Request, name: str) -> str:
        return f"__Host-{name}" if self._secure(request) else name

    def _secure(self, request: Request) -> bool:
        return self._https or request.url.scheme == "https"

    # Who it is

    async def find(self, request: Request) -> Signed | None:
        """Who signed in, where that still holds; None for everybody else."""
        session = self._read(request)
        if session is None or session.password not in {"", self._mark}:
            return None
        key = None if session.key_id is None else await self._store.key(session.key_id)
        if session.role == "account" and (key is None or not self._is_good(key)):
            return None
        signed = Signed(session, key)
        ended = await self._store.operating.cutoff(signed.subject, signed.alone)
        return signed if ended is None or session.issued_at > ended else None

    async def end_all(self, signed: Signed) -> None:
        """End every session of whoever this is, this one too, whatever our clock says."""
        await self._cut_off(signed.subject, signed)

    async def end_one(self, signed: Signed) -> None:
        """End this session and no other, for whoever has its cookie."""
        await self._cut_off(signed.alone, signed)

    async def _cut_off(self, subject: str, signed: Signed) -> None:
        now = max(self._clock(), signed.session.issued_at)
        await self._store.operating.cut_off(subject, now=now)

    @property
    def _mark(self) -> str:
        """What tells the operator's password from another one."""
        password = self._admin_password.value.encode()
        return hmac.digest(self._password_key, password, "sha256").hex()[:_MARK_LENGTH]

    def _read(self, request: Request) -> Session | None:
        value = request.cookies.get(self._name(request, _SESSION))
        if not value:
            return None
        try:
            session = msgspec.convert(self._serializer.loads(value), Session)
        except (BadData, msgspec.ValidationError):
            return None
        age = self._clock() - session.issued_at
        return session if age < HOURS[session.role] * _HOUR * 1000 else None

    def _is_good(self, key: ApiKey) -> bool:
        alive = key.expires_at is None or self._clock() < key.expires_at
        return alive and key.revoked_at is None

    # Forms

    def token(self, bound_to: str) -> str:
        """What a form carries to show that it is ours: made for one session or visit."""
        return hmac.digest(self._form_key, bound_to.encode(), "sha256").hex()

    def is_token(self, token: str, bound_to: str) -> bool:
        """Whether a form is ours."""
        return hmac.compare_digest(token.encode(), self.token(bound_to).encode())

    def visit(self, request: Request) -> str:
        """The visit before a session; a new one where there is none."""
        value = request.cookies.get(self._name(request, _VISIT), "")
        return value if len(value) == _ID_LENGTH else secrets.token_urlsafe(_ID_BYTES)

    def keep_visit(self, request: Request, response: Response, visit: str) -> None:
        """Have the browser send the visit with the sign-in form; it ends with the browser."""
        self._set(request, response, _VISIT, visit, seconds=None)
