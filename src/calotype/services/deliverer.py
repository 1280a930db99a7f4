"""Sending webhooks: what the outbox holds is sent until the receiver has it, at least once.

A process that dies while it sends leaves a delivery that is due again: a receiver may get one
twice, under the same id. Nothing is held up by a receiver that is slow or dead but what is for it.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec

import calotype
from calotype.domain.clock import Clock
from calotype.domain.errors import Unavailable
from calotype.domain.ids import encode
from calotype.domain.urls import endpoint_of
from calotype.domain.webhooks import DeliveryState, Due, Signer, Try, verdict
from calotype.net.webhooks import LOOKUPS, Answer, WebhookClient
from calotype.observing.metrics import WEBHOOKS
from calotype.services.delivery import Delivery
from calotype.store.port import SharedStore, Store

AT_A_TIME: Final = LOOKUPS
"""Deliveries under way in one process: as many as can be looked up at once."""
LEASE_MS: Final = 30_000
"""Longer than sending one takes; after it the delivery of a dead process is another's."""
LOOK_SECONDS: Final = 0.5
"""Between two looks into the outbox; one machine's own is looked into at each event besides."""
PAUSE_SECONDS: Final = 0.05
"""After each look at least, whatever happens meanwhile; a long look is followed by a longer one."""
PAUSE_FACTOR: Final = 4
FAULT_SECONDS: Final = 2.0
_HEADERS: Final = {
    "Content-Type": "application/json",
    "User-Agent": f"Calotype/{calotype.__version__}",
}
_encode = msgspec.json.Encoder().encode

log = logging.getLogger(__name__)


class Deliverer:
    """Empties the outbox.

    Args:
        store: holds it.
        delivery: shows tasks.
        client: speaks to receivers; closed together with this.
        signer: signs what is sent.
        base_url: stands before every image URL.
        clock: the time.
        chance: a number from 0 to 1, for jitter.

    """

    def __init__(
        self,
        store: Store,
        *,
        delivery: Delivery,
        client: WebhookClient,
        signer: Signer,
        base_url: str,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._delivery = delivery
        self._client = client
        self._signer = signer
        self._base_url = base_url
        self._clock = clock
        self._chance = chance
        self._wake = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._sending: dict[asyncio.Task[None], Due] = {}

    async def start(self) -> None:
        """Begin, with what an earlier process left, where it was the database's only one."""
        if not isinstance(self._store, SharedStore):
            await self._store.webhooks.release(now=self._clock())
        self._looking = asyncio.create_task(self._look())

    async def stop(self, seconds: float) -> None:
        """Begin no more, and give what is being sent so long to come to its end."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        if self._sending:
            await asyncio.wait(self._sending, timeout=seconds)
        for sending in list(self._sending):
            sending.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self._client.close()

    async def send_due(self) -> int:
        """Send what is due now and wait for its end; returns how many were sent."""
        number = 0
        while begun := await self._begin():
            number += begun
            await asyncio.gather(*self._sending)
        return number

    async def _look(self) -> None:
        unwatch = self._store.watch(self._wake.set)
        try:
            while True:
                self._wake.clear()
                looked = asyncio.get_running_loop().time()
                try:
                    begun = await self._begin()
                except Unavailable:
                    log.warning("webhooks have to wait: the database does not answer")
                    await asyncio.sleep(FAULT_SECONDS)
                    continue
                except Exception:
                    log.exception("the outbox of webhooks could not be read; it is tried again")
                    await asyncio.sleep(FAULT_SECONDS)
                    continue
                took = asyncio.get_running_loop().time() - looked
                await asyncio.sleep(max(PAUSE_SECONDS, PAUSE_FACTOR * took))
                if not begun:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_SECONDS):
                            await self._wake.wait()
        finally:
            unwatch()

    async def _begin(self) -> int:
        """Begin to send as much as there is room for."""
        room = AT_A_TIME - len(self._sending)
        if room < 1:
            return 0
        claimed = await self._store.webhooks.claim(
            now=self._clock(),
            lease_ms=LEASE_MS,
            under_way=list(self._sending.values()),
            limit=room,
        )
        for due in claimed:
            sending = asyncio.create_task(self._send(due))
            self._sending[sending] = due
            sending.add_done_callback(self._sent)
        return len(claimed)

    def _sent(self, sending: asyncio.Task[None]) -> None:
        del self._sending[sending]
        self._wake.set()

    async def _send(self, due: Due) -> None:
        at, begun = self._clock(), asyncio.get_running_loop().time()
        try:
            answer = await self._post(due, at)
            took = int((asyncio.get_running_loop().time() - begun) * 1000)
            await self._record(due, answer, at=at, took=took)
        except Unavailable:
            log.warning("%s: the database does not answer; it is sent again", _name(due))
        except Exception:
            log.exception("%s: broke; it is sent again", _name(due))
        await self._client.looked_up(due.url)

    async def _post(self, due: Due, at: int) -> Answer:
        try:
            body = _encode(await self._document(due))
        except Unavailable:
            raise
        except Exception:
            log.exception("%s: could not be written", _name(due))
            return Answer(error="Something broke on our side before it was sent.")
        signed = self._signer.headers(due, body, now=at, versions=due.live(at))
        return await self._client.post(due.url, body, {**_HEADERS, **signed})

    async def _document(self, due: Due) -> dict[str, Any]:
        task = await self._store.task(due.task_id)
        if task is None:
            raise LookupError("the task of a webhook is not there")
        document = await self._delivery.document(task, base_url=self._base_url)
        return {"event": due.event, **document}

    async def _record(self, due: Due, answer: Answer, *, at: int, took: int) -> None:
        now = self._clock()
        follows = verdict(
            answer.status,
            tries=due.tries + 1,
            now=now,
            retry_after=answer.retry_after,
            chance=self._chance,
        )
        made = Try(due.number, at, took, answer.status, answer.error, answer.reply)
        await self._store.webhooks.record(due, made, follows, now=now)
        WEBHOOKS.add(follows.state)
        if follows.state is not DeliveryState.DELIVERED:
            left = (
                "" if follows.next_at is None else f", again in {(follows.next_at - now) // 1000} s"
            )
            log.warning("%s: try %d: %s%s", _name(due), due.number, answer.error, left)


def _name(due: Due) -> str:
    """A delivery for the log; paths and queries may hold tokens."""
    return f"webhook of {encode('task', due.task_id)} to {endpoint_of(due.url)}"
