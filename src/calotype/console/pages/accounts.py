"""/console/operator/accounts: who may use this server, with what money and which keys."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console import charts
from calotype.console.access import Visitor, operator_page
from calotype.console.context import Console
from calotype.console.errors import PageError
from calotype.console.forms import Form, sentence
from calotype.console.keyring import NOTICES, KeyForm, Keyring
from calotype.console.pages.usage import file_days, ledger_page, spreadsheet
from calotype.console.query import Notice, Notices, asked, notice
from calotype.console.render import redirect
from calotype.console.resubmission import is_first, new_mark
from calotype.domain.errors import InsufficientBalance
from calotype.domain.keys import ApiKey, name_of
from calotype.domain.money import format_usd, parse_usd
from calotype.services.usage import date_of
from calotype.store.operating import AccountRow
from calotype.store.port import Account

ACCOUNTS: Final = "/console/operator/accounts"
SHOWN: Final = 50
"""Accounts on a page."""
NEWEST: Final = 8
"""Tasks and ledger entries on an account's page."""
MAX_NOTE: Final = 500
_POST: Final = ("POST",)
_ID: Final = re.compile(r"[1-9]\d{0,17}", re.ASCII)
_NOTICES: Final[Notices] = {
    **NOTICES,
    "opened": ("good", "The account is open. Add credit to it, and make a key."),
    "there": ("info", "This account was there already."),
    "added": ("good", "The credit is added."),
    "taken": ("good", "The credit is taken away."),
    "again": ("warn", "This form was sent before, and did its work then; nothing was done twice."),
}


class CreditForm(msgspec.Struct, frozen=True):
    """What was typed to change what an account has, and what is wrong with it, by field."""

    amount: str = ""
    note: str = ""
    takes: bool = False
    wrong: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def of(cls, form: Form) -> "CreditForm":
        """What was sent."""
        return cls(form.get("amount"), form.get("note"), form.get("way") == "take")


def routes(console: Console) -> list[Route]:
    """The routes of this group."""
    pages, one = _Accounts(console), f"{ACCOUNTS}/{{id}}"
    return [
        Route(ACCOUNTS, operator_page(console, pages.all)),
        Route(ACCOUNTS, operator_page(console, pages.open), methods=_POST),
        Route(f"{ACCOUNTS}.csv", operator_page(console, pages.usage_file)),
        Route(one, operator_page(console, pages.one)),
        Route(f"{one}/credit", operator_page(console, pages.credit), methods=_POST),
        Route(f"{one}/keys", operator_page(console, pages.create_key), methods=_POST),
        Route(f"{one}/keys/{{key}}/revoke", operator_page(console, pages.revoke), methods=_POST),
        Route(f"{one}/ledger", operator_page(console, pages.ledger)),
        Route(f"{one}/ledger.csv", operator_page(console, pages.ledger_file)),
    ]


class _Accounts:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._keyring = Keyring(console)
        self._usage = console.usage

    # All of them

    async def all(self, request: Request, _visitor: Visitor) -> Response:
        """List them by name."""
        query = asked(request, "text", "after")
        return await self._all(request, query["text"], query["after"])

    async def open(self, request: Request, visitor: Visitor) -> Response:
        """Open one, and go to it; also to one that was there already."""
        typed = visitor.form.get("name")
        try:
            name = name_of(typed)
        except ValueError as error:
            return await self._all(request, name=typed, wrong=sentence(str(error)))
        now = self._console.clock()
        known = await self._console.accounts.find(name)
        if known is None:
            async with self._console.audit.action(visitor.actor, "account.open", f"account {name}"):
                known = await self._console.store.open_account(name, now=now)
            return redirect(f"{ACCOUNTS}/{known.id}?said=opened")
        return redirect(f"{ACCOUNTS}/{known.id}?said=there")

    async def usage_file(self, request: Request, _visitor: Visitor) -> Response:
        """What all of them used, for a spreadsheet."""
        days = file_days(self._usage, request)
        name = f"accounts-{date_of(days.first)}-{date_of(days.last)}"
        return spreadsheet(self._usage.all_rows(days), name)

    async def _all(
        self, request: Request, text: str = "", after: str = "", *, name: str = "", wrong: str = ""
    ) -> Response:
        found = await self._console.store.operating.accounts(
            after=after, text=text, limit=SHOWN + 1
        )
        shown, following = found[:SHOWN], ""
        if len(found) > SHOWN:
            onward = {"text": text, "after": shown[-1].name}
            following = f"{ACCOUNTS}?{urlencode({key: on for key, on in onward.items() if on})}"
        first = f"{ACCOUNTS}?{urlencode({'text': text})}" if text else ACCOUNTS
        return self._console.render.page(
            request,
            "accounts.html",
            status=422 if wrong else 200,
            accounts=shown,
            text=text,
            following=following,
            first=first if after else "",
            name=name,
            wrong=wrong,
        )

    # One of them

    async def one(self, request: Request, _visitor: Visitor) -> Response:
        """One with all that it has."""
        said = notice(request, _NOTICES)
        return await self._one(request, await self._account(request), said=said)

    async def credit(self, request: Request, visitor: Visitor) -> Response:
        """Add credit, or take some away once that was asked twice."""
        account, form = await self._account(request), CreditForm.of(visitor.form)
        amount, wrong = _amount(form)
        if amount is None:
            form = msgspec.structs.replace(form, wrong=wrong)
            return await self._one(request, account, credit=form, status=422)
        if form.takes and amount > account.balance.available:
            return await self._too_much(request, account, form)
        if form.takes and visitor.form.get("sure") != "1":
            return self._console.render.page(
                request,
                "credit_taken.html",
                account=account,
                form=form,
                amount=amount,
                once=new_mark(),
                action=f"{ACCOUNTS}/{account.id}/credit",
                back=f"{ACCOUNTS}/{account.id}",
            )
        if not await is_first(self._console, visitor):
            return redirect(f"{ACCOUNTS}/{account.id}?said=again")
        try:
            await self._book(visitor, account, -amount if form.takes else amount, form.note)
        except InsufficientBalance:  # it was spent since
            return await self._too_much(request, await self._account(request), form)
        return redirect(f"{ACCOUNTS}/{account.id}?said={'taken' if form.takes else 'added'}")

    async def create_key(self, request: Request, visitor: Visitor) -> Response:
        """Make a key and show it, this once."""
        account = await self._account(request)
        made = await self._keyring.create(visitor, account.name)
        if made is None:
            return redirect(f"{ACCOUNTS}/{account.id}?said=made")
        if isinstance(made, KeyForm):
            return await self._one(request, account, form=made, status=422)
        return await self._one(request, account, made=made)

    async def revoke(self, request: Request, visitor: Visitor) -> Response:
        """Revoke a key."""
        account = await self._account(request)
        await self._keyring.revoke(visitor, request.path_params["key"], account_id=account.id)
        return redirect(f"{ACCOUNTS}/{account.id}?said=revoked")

    async def ledger(self, request: Request, _visitor: Visitor) -> Response:
        """Its whole ledger, a page at a time."""
        account = await self._account(request)
        path = f"{ACCOUNTS}/{account.id}/ledger"
        return self._console.render.page(
            request,
            "account_ledger.html",
            account=account,
            page=await ledger_page(self._console, request, account.id, path),
            tasks="/console/operator/tasks",
            back=f"{ACCOUNTS}/{account.id}",
        )

    async def ledger_file(self, request: Request, _visitor: Visitor) -> Response:
        """The same for a spreadsheet."""
        asked(request)
        account = await self._account(request)
        return spreadsheet(self._usage.ledger(account.id), f"ledger-account-{account.id}")

    async def _account(self, request: Request) -> AccountRow:
        word: str = request.path_params["id"]
        found = None
        if _ID.fullmatch(word):
            found = await self._console.store.operating.account(int(word))
        if found is None:
            raise PageError(404, "There is no such account.")
        return found

    async def _book(self, visitor: Visitor, account: AccountRow, change: int, note: str) -> None:
        said = f"{format_usd(change)} USDC{f': {note}' if note else ''}"
        async with self._console.audit.action(
            visitor.actor, "credit.add", f"account {account.name}", said
        ):
            owner = Account(account.id, account.name, account.balance)
            await self._console.accounts.add_credit(owner, change, note=note)

    async def _too_much(self, request: Request, account: AccountRow, form: CreditForm) -> Response:
        left = format_usd(account.balance.available)
        wrong = {"amount": f"Only {left} USDC are available; take that or less."}
        form = msgspec.structs.replace(form, wrong=wrong)
        return await self._one(request, account, credit=form, status=422)

    async def _one(
        self,
        request: Request,
        account: AccountRow,
        *,
        said: Notice | None = None,
        made: tuple[str, ApiKey] | None = None,
        form: KeyForm | None = None,
        credit: CreditForm | None = None,
        status: int = 200,
    ) -> Response:
        store = self._console.store
        tasks = await store.operating.tasks(account_id=account.id, limit=NEWEST)
        values: dict[str, Any] = {
            "account": account,
            "report": await self._usage.report(self._usage.asked(), account_id=account.id),
            "charts": charts,
            "keys": await self._keyring.keys(account.id),
            "lines": await store.usage.entries(account.id, limit=NEWEST),
            "newest": tasks.tasks,
            "said": said,
            "made": made,
            "form": form or KeyForm(),
            "credit": credit or CreditForm(),
            "choices": self._keyring.choices(),
            "once": new_mark(),
            "here_is": f"{ACCOUNTS}/{account.id}",
        }
        return self._console.render.page(request, "account.html", status=status, **values)


def _amount(form: CreditForm) -> tuple[int | None, Mapping[str, str]]:
    """Micro-USDC of a form, or what is wrong with it."""
    wrong: dict[str, str] = {}
    if len(form.note) > MAX_NOTE or not form.note.isprintable():
        wrong["note"] = f"Write one line of at most {MAX_NOTE} characters."
    amount = None
    try:
        amount = parse_usd(form.amount)
    except ValueError as error:
        wrong["amount"] = str(error)
    if amount is not None and amount <= 0:
        wrong["amount"] = "Write an amount above 0, such as 12.50; the button says which way."
    return (None if wrong else amount), wrong
