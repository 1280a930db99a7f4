"""Random histories of clients over HTTP, held against a small model: states, keys and money."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from aiohttp import web
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from acceptance.cluster import MODEL, MODEL_FILE
from calotype.domain.errors import InsufficientBalance
from harness import GENERATIONS, Reply, Server, running_server, serving
from postgres import fresh_database

T = TypeVar("T")

PRICE: Final = 10_000
ENDS: Final = {
    "a pier sandbox:delay=0": "success",
    "sandbox:refuse": "content_policy_violation",
    "sandbox:strange": "upstream_rejected",
    "sandbox:never": "held",
}
"""What a prompt comes to by itself; ``held`` needs to be cancelled.

None is a fault of the channel, lest its breaker make everyone wait.
"""
ORDER: Final = ("waiting", "queuing", "generating", "success", "fail")
STEPS: Final = 25
PATIENCE: Final = 60.0
"""Seconds after which what must come is taken never to come; no outcome hangs on its value."""


@dataclass
class Known:
    """A task as the model knows it."""

    id: str
    prompt: str
    hooked: bool
    document: dict[str, Any]
    """The newest that was seen."""
    cancelled: bool = False

    @property
    def final(self) -> bool:
        return self.document["state"] in {"success", "fail"}

    @property
    def paid(self) -> int:
        return int(self.document["billing"]["actual_amount_micro_usdc"]) if self.final else 0

    @property
    def ends(self) -> bool:
        """Whether it comes to an end without anybody's doing."""
        return self.cancelled or ENDS[self.prompt] != "held"

    def see(self, document: dict[str, Any]) -> None:
        """Take in a newer document: everything in it goes forward, and an end is for good."""
        old = self.document
        assert ORDER.index(document["state"]) >= ORDER.index(old["state"]), (old, document)
        assert document["progress"] >= old["progress"], (old, document)
        assert document["last_event"] >= old["last_event"], (old, document)
        if self.final:
            assert (document["state"], document["billing"]) == (old["state"], old["billing"])
        self.document = document
        if self.final:
            self._check_end()

    def _check_end(self) -> None:
        billing, error = self.document["billing"], self.document["error"]
        paid = billing["actual_amount_micro_usdc"]
        assert paid + billing["released_amount_micro_usdc"] == PRICE
        expected = ENDS[self.prompt]
        if self.document["state"] == "success":
            assert (expected, paid, billing["status"]) == ("success", PRICE, "committed")
        else:
            allowed = {expected} | ({"cancelled"} if self.cancelled else set())
            assert error["code"] in allowed - {"success", "held"}, self.document
            # Who cancels what the upstream has done already pays for it.
            late = error["code"] == "cancelled" and expected == "success"
            assert (paid, billing["status"]) == (0, "released") or (late and paid == PRICE)


class Site:
    """A server that all histories share, each with accounts of its own, and a receiver."""

    def __init__(self, server: Server, hooks: str, told: Counter[tuple[str, str]]) -> None:
        self.server = server
        self.hooks = hooks
        self.told = told
        """Task and type of each webhook that came."""


@asynccontextmanager
async def site(folder: Path, **options: Any) -> AsyncIterator[Site]:
    told = Counter[tuple[str, str]]()

    async def take(request: web.Request) -> web.StreamResponse:
        document = await request.json()
        told[document["task_id"], document["event"]] += 1
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", take)
    (folder / "models").mkdir(parents=True)
    (folder / "models" / f"{MODEL}.toml").write_text(MODEL_FILE)
    options |= {"catalog_dir": folder / "models", "webhook_allow_hosts": ("127.0.0.1",)}
    async with (
        serving(app) as hooks,
        running_server(folder / "data", sandbox_processes=1, **options) as server,
    ):
        yield Site(server, f"{hooks}/hook", told)


prompts = st.sampled_from(list(ENDS))
orders = st.none() | st.sampled_from(["one", "two", "three"])
entries = st.lists(st.tuples(prompts, orders), min_size=1, max_size=4)
numbers = st.integers(0, 30)
"""Which of those that there are; never a bundle: how many are accepted is for the server to say,
and hypothesis wants the same choices to lead to the same ones.
"""


class Clients(RuleBasedStateMachine):
    """An account's clients, its operator and a stranger."""

    loop: asyncio.Runner
    site: Site

    @initialize(credit=st.integers(0, 12))
    def open(self, credit: int) -> None:
        self.server = self.wait(self.site.server.for_account(credit=0))
        self.stranger = self.wait(self.site.server.for_account(credit=PRICE))
        self.keys, self.revoked = [self.server.key], list[str]()
        self.known: dict[str, Known] = {}
        self.orders: dict[str, tuple[str, str]] = {}
        self.credited = 0
        self.credit(credit)

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(coroutine)

    def call(self, method: str, path: str, *, key: str = "", **options: Any) -> Reply:
        """Ask with one of the account's keys."""
        headers = {"Authorization": f"Bearer {key or self.keys[-1]}", **options.pop("headers", {})}
        reply = self.wait(self.server.call(method, path, headers=headers, **options))
        assert reply.status < 500, reply.body
        return reply

    # What the model foretells

    def money(self) -> tuple[int, int]:
        """The least and the most that may be available now."""
        tasks = self.known.values()
        spent = sum(task.paid for task in tasks)
        held = PRICE * sum(not task.final and not task.ends for task in tasks)
        open_ = PRICE * sum(not task.final and task.ends for task in tasks)
        return self.credited - spent - held - open_, self.credited - spent - held

    def judge(self, status: int, answer: dict[str, Any], entry: tuple[str, str | None]) -> Any:
        """Hold one submission's answer against what is known; returns the task if it is new."""
        prompt, order = entry
        least, most = self.money()
        if order in self.orders:
            task_id, before = self.orders[order]
            if before != prompt:
                assert (status, answer["code"]) == (409, "idempotency_conflict")
            else:
                assert (status, answer["task_id"]) == (202, task_id)
            return None
        if status == 402:
            assert least < PRICE, "there was enough"
            assert answer["code"] == "insufficient_balance"
            return None
        assert status == 202, answer
        assert most >= PRICE, "there was too little"
        assert answer["task_id"] not in self.known
        first = {"state": "waiting", "progress": 0, "last_event": 0}
        task = Known(answer["task_id"], prompt, hooked=False, document=first)
        self.known[task.id] = task
        if order is not None:
            self.orders[order] = task.id, prompt
        return task

    def chosen(self, which: int) -> Sequence[Known]:
        """One of the tasks, if there are any."""
        tasks = list(self.known.values())
        return [tasks[which % len(tasks)]] if tasks else []

    # What clients do

    @rule(prompt=prompts, order=orders, hooked=st.booleans())
    def submit(self, prompt: str, order: str | None, hooked: bool) -> None:  # noqa: FBT001 -- drawn
        document = {"model": MODEL, "prompt": prompt}
        # A replay has to be the same request: what has an order is never hooked.
        hooked = hooked and order is None
        if hooked:
            document["callback_url"] = self.site.hooks
        headers = {} if order is None else {"Idempotency-Key": order}
        reply = self.call("POST", GENERATIONS, json=document, headers=headers)
        task = self.judge(reply.status, reply.json, (prompt, order))
        if task is not None:
            task.hooked = hooked

    @rule(entries=entries)
    def batch(self, entries: Sequence[tuple[str, str | None]]) -> None:
        requests = [
            {"model": MODEL, "prompt": prompt} | ({"idempotency_key": order} if order else {})
            for prompt, order in entries
        ]
        reply = self.call("POST", f"{GENERATIONS}/batch", json={"requests": requests})
        assert reply.status == 202, reply.body
        for entry, answer in zip(entries, reply.json["data"], strict=True):
            refused = answer.get("error")
            status = (
                {"conflict": 409, "payment_required": 402}[refused["error"]] if refused else 202
            )
            self.judge(status, refused or answer, entry)

    @rule(which=numbers)
    def read(self, which: int) -> None:
        for task in self.chosen(which):
            self._read(task)

    def _read(self, task: Known) -> None:
        reply = self.call("GET", f"/v1/tasks/{task.id}")
        assert reply.status == 200, reply.body
        task.see(reply.json)

    @rule(which=numbers)
    def cancel(self, which: int) -> None:
        for task in self.chosen(which):
            self._cancel(task)

    def _cancel(self, task: Known) -> None:
        task.cancelled = task.cancelled or not task.final
        reply = self.call("POST", f"/v1/tasks/{task.id}/cancel")
        assert reply.status == 200, reply.body
        task.see(reply.json)

    @rule(which=numbers)
    def delete(self, which: int) -> None:
        for task in self.chosen(which):
            self._delete(task)

    def _delete(self, task: Known) -> None:
        reply = self.call("DELETE", f"/v1/tasks/{task.id}")
        if reply.status == 409:
            assert not task.final
            assert reply.json["code"] == "task_not_final"
            return
        assert reply.status == 204, reply.body
        self._read(task)
        assert task.final
        assert all(item["expired"] for item in task.document["result"].get("data", ()))

    @rule(which=numbers)
    def redeliver(self, which: int) -> None:
        for task in self.chosen(which):
            self._redeliver(task)

    def _redeliver(self, task: Known) -> None:
        reply = self.call("POST", f"/v1/tasks/{task.id}/webhook/redeliver")
        if reply.status == 404:
            assert not (task.hooked and task.final)
            assert reply.json["code"] == "webhook_not_found"
        else:
            assert (reply.status, task.hooked) == (202, True), reply.body

    @rule()
    def settle(self) -> None:
        """Wait until all that ends by itself has ended."""
        for task in self.known.values():
            if task.ends and not task.final:
                task.see(self.wait(self._ended(task)))

    async def _ended(self, task: Known) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while True:
                headers = {"Authorization": f"Bearer {self.keys[-1]}"}
                path = f"/v1/tasks/{task.id}?wait=30&since=1000"
                reply = await self.server.call("GET", path, headers=headers)
                if reply.json["state"] in {"success", "fail"}:
                    document: dict[str, Any] = reply.json
                    return document

    # Operators and strangers

    @rule(amount=st.integers(-4, 8))
    def credit(self, amount: int) -> None:
        least, most = self.money()
        try:
            self.wait(self._book(amount * PRICE))
        except InsufficientBalance:
            assert least + amount * PRICE < 0
        else:
            assert most + amount * PRICE >= 0
            self.credited += amount * PRICE

    async def _book(self, amount: int) -> None:
        accounts = self.server.core.accounts
        owner = await accounts.find(self.server.account)
        assert owner is not None
        await accounts.add_credit(owner, amount, note="test")

    @rule()
    def new_key(self) -> None:
        self.keys.append(self.wait(self.server.new_key(self.server.account)))

    @precondition(lambda self: len(self.keys) > 1)
    @rule(which=numbers)
    def revoke(self, which: int) -> None:
        key = self.keys.pop(which % len(self.keys))
        self.wait(self._revoke(key))
        self.revoked.append(key)

    async def _revoke(self, secret: str) -> None:
        accounts = self.server.core.accounts
        assert await accounts.revoke(await accounts.authenticate(secret))

    @precondition(lambda self: self.revoked)
    @rule(which=numbers)
    def try_a_revoked_key(self, which: int) -> None:
        key = self.revoked[which % len(self.revoked)]
        body = {"model": MODEL, "prompt": "a pier sandbox:delay=0"}
        for reply in (
            self.call("POST", GENERATIONS, key=key, json=body),
            self.call("GET", "/v1/credits/balance", key=key),
            *(self.call("GET", f"/v1/tasks/{task_id}", key=key) for task_id in self.known),
        ):
            assert (reply.status, reply.json["code"]) == (401, "invalid_api_key")

    @rule(which=numbers)
    def look_as_a_stranger(self, which: int) -> None:
        for task in self.chosen(which):
            self._look_as_a_stranger(task)

    def _look_as_a_stranger(self, task: Known) -> None:
        path = f"/v1/tasks/{task.id}"
        for method, where in (
            ("GET", path),
            ("POST", f"{path}/cancel"),
            ("DELETE", path),
            ("POST", f"{path}/webhook/redeliver"),
        ):
            reply = self.call(method, where, key=self.stranger.key)
            assert (reply.status, reply.json["code"]) == (404, "task_not_found")

    # What always holds

    @invariant()
    def the_balance_is_the_models(self) -> None:
        balance = self.call("GET", "/v1/credits/balance").json
        least, most = self.money()
        available = balance["available_micro_usdc"]
        assert available + balance["reserved_micro_usdc"] == balance["balance_micro_usdc"]
        assert max(least, 0) <= available <= most, balance

    def teardown(self) -> None:
        """Cancel what is held, wait for every end, and count the money and the webhooks."""
        if not hasattr(self, "known"):
            return
        for task in self.known.values():
            if not task.ends:
                self._cancel(task)
        self.settle()
        least, most = self.money()
        assert least == most
        self.the_balance_is_the_models()
        listed = self.call("GET", "/v1/tasks?limit=100").json
        assert not listed["has_more"]
        assert {entry["task_id"] for entry in listed["data"]} == self.known.keys()
        for task in self.known.values():
            if task.hooked:
                self.wait(self._told(task))

    async def _told(self, task: Known) -> None:
        """A hooked task is told of, always with the same end."""
        async with asyncio.timeout(PATIENCE):
            while not any(told == task.id for told, _ in self.site.told):
                await asyncio.sleep(0.01)
        types = {kind for told, kind in self.site.told if told == task.id}
        assert types == {f"task.{task.document['state']}"}


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("mode", "histories"), [("sqlite", 20), ("postgres", 8)])
def test_whatever_clients_do_states_go_forward_and_money_is_the_models(
    mode: str,
    histories: int,
    tmp_path: Path,
    runner: asyncio.Runner,
    request: pytest.FixtureRequest,
) -> None:
    stack = AsyncExitStack()

    async def opened() -> Site:
        options = {}
        if mode == "postgres":
            server = request.getfixturevalue("postgres")
            options["database_url"] = await stack.enter_async_context(fresh_database(server))
        return await stack.enter_async_context(site(tmp_path, **options))

    try:
        running = runner.run(opened())
        run_state_machine_as_test(
            type("Machine", (Clients,), {"loop": runner, "site": running}),
            settings=settings(
                max_examples=histories,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],  # shrinking against a server would take minutes
                suppress_health_check=list(HealthCheck),
            ),
        )
        assert runner.run(running.server.core.store.prove()) == []
    finally:
        runner.run(stack.aclose())
