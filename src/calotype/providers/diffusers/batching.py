"""What is drawn together, and when: pictures wait a moment for company, first come first served."""

import asyncio
import logging
import math
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from calotype.providers.diffusers.engines import MODULE, Engine, EngineBroken, EngineGone
from calotype.providers.diffusers.options import Options
from calotype.providers.diffusers.wire import (
    Draw,
    Drawn,
    EndCode,
    Ended,
    Event,
    Picture,
    Ready,
    Step,
)

TRIES: Final = 2
"""So often a picture is drawn in whose drawing the engine ends."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 300.0
"""Between two starts of an engine that does not come up, doubled each time."""

log = logging.getLogger(__name__)


class Shape(msgspec.Struct, frozen=True):
    """What pictures must share to be drawn together."""

    width: int
    height: int
    steps: int
    guidance: float
    strength: float | None
    references: int

    @property
    def pixels(self) -> int:
        """Of one picture."""
        return self.width * self.height


class Down(msgspec.Struct, frozen=True):
    """No engine is there to draw.

    Args:
        code: as in ``Broken``; ``gone`` where it ended by itself.
        message: for the operator.
        retry_after: seconds until it is started again.

    """

    code: str
    message: str
    retry_after: float


class Kept(msgspec.Struct, frozen=True):
    """A picture was drawn; its file is here."""

    file: Path


End = Kept | Ended | Down


class Wanted:
    """A picture that somebody waits for.

    Args:
        picture: what to draw, and where to.
        shape: what it must share with others.
        begin: told when the engine is told it.
        report: told how far it is, 0 to 1.
        end: told once what became of it; a file is there until it returns.
        leave: told when the engine no longer reads or writes any file of it.

    """

    def __init__(
        self,
        picture: Picture,
        shape: Shape,
        *,
        begin: Callable[[], None],
        report: Callable[[float], None],
        end: Callable[[End], None],
        leave: Callable[[], None],
    ) -> None:
        self.picture = picture
        self.shape = shape
        self.begin = begin
        self.report = report
        self.leave = leave
        self.arrived = asyncio.get_running_loop().time()
        self.alone = False
        """An engine failed at a batch with it."""
        self.tries = 0
        self.open = True
        self._end = end

    def end(self, end: End) -> None:
        """Tell what became of it; what comes later is not told."""
        if self.open:
            self.open = False
            self._end(end)


class Batcher:
    """One channel's engine, and the pictures that wait for it.

    Args:
        options: of the channel.
        name: the channel's, for the log.
        warm_up: width and height of the picture that the engine draws when it has loaded.
        silent_seconds: after so long without a word in the middle of a batch an engine is given up.
        module: the engine's.
        first_pause: before the second start in a row of an engine that does not come up.

    """

    def __init__(
        self,
        options: Options,
        *,
        name: str,
        warm_up: tuple[int, int] | None,
        silent_seconds: float,
        module: str = MODULE,
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        self._options = options
        self._name = name
        self._warm_up = warm_up
        self._silent_seconds = silent_seconds
        self._module = module
        self._first_pause = first_pause
        self._waiting: list[Wanted] = []
        self._drawing: dict[str, Wanted] = {}
        self._engine: Engine | None = None
        self._changed = asyncio.Event()
        self._pixels = sys.maxsize
        """Most that may be drawn at once, by what ran out of memory so far."""
        self._failures = 0
        self._down: Down | None = None
        self._keeping = self._retired = False
        self._serving: asyncio.Task[None] | None = None
        self.ready: Ready | None = None
        """What the engine said when it had loaded; None while there is none."""
        self.settled = False
        """Whether an engine has loaded, or failed to, since the start."""

    def keep(self) -> None:
        """Have the engine loaded from now on, whether there is work or not, if it warms up."""
        self._keeping, self._retired = self._options.warm_up, False
        if self._keeping:
            self._serve()

    def retire(self) -> None:
        """Let the engine go when nobody waits."""
        self._keeping, self._retired = False, True
        self._changed.set()

    def put(self, wanted: Sequence[Wanted]) -> None:
        """Have these drawn; each is told its end."""
        for one in wanted:
            if self._down is not None:
                _leave(one, self._down)
            else:
                self._waiting.append(one)
        self._serve()

    def drop(self, wanted: Wanted) -> None:
        """Have one not drawn, or not to its end."""
        if wanted in self._waiting:
            self._waiting.remove(wanted)
            _leave(wanted, _cancelled(wanted))
            self._changed.set()
        elif wanted.picture.id in self._drawing and self._engine is not None:
            self._engine.stop(wanted.picture.id)
        wanted.end(_cancelled(wanted))

    async def close(self) -> None:
        """End the engine; whoever still waits is told."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait([self._serving])
        self._leave_all()  # of a task that was cancelled before it began, too

    def _serve(self) -> None:
        self._changed.set()
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._run())

    def _leave_all(self) -> None:
        """Tell whoever still waits that nothing comes."""
        for one in (*self._waiting, *self._drawing.values()):
            _leave(one, Down("gone", "The worker is stopping.", 0.0))
        self._waiting.clear()
        self._drawing.clear()

    async def _run(self) -> None:
        try:
            await self._keep_engine()
        finally:  # stopped, or broken: nobody may wait for ever
            self._leave_all()

    async def _keep_engine(self) -> None:
        """Have an engine as long as one is needed."""
        while self._waiting or self._keeping:
            try:
                await self._run_engine()
            except EngineBroken as error:
                self._note_failure(error.code, str(error), loaded=False)
                await self._rest()
                return  # it is tried again when there is work, and not before
            except (EngineGone, OSError) as error:
                code = "out_of_memory" if getattr(error, "out_of_memory", False) else "gone"
                self._note_failure(code, str(error), loaded=self.ready is not None)
                await self._rest()

    async def _run_engine(self) -> None:
        """One engine from its start to its end.

        Raises:
            EngineBroken: it cannot load.
            EngineGone: it ended by itself.

        """
        self.ready = None
        engine = await Engine.start(self._module, silent_seconds=self._silent_seconds)
        try:
            load = msgspec.structs.replace(self._options.load, warm_up=self._warm_up)
            self.ready = await engine.load(load)
            log.info("channel %s: %s is loaded: %s", self._name, load.weights, self.ready)
            self._engine, self.settled = engine, True
            while batch := await self._next(engine, self.ready):
                if await self._draw(engine, batch):
                    return  # out of memory it ends by itself, and another begins at once
                self._failures = 0
        finally:
            self._engine = None
            await engine.end()

    def _note_failure(self, code: str, message: str, *, loaded: bool) -> None:
        """Remember that an engine did not hold; whoever waits is told when it does so again."""
        self.settled = True
        self._failures += 1
        log.warning("channel %s: %s", self._name, message)
        if loaded and self._failures == 1:
            return
        pause = pause_after(self._failures, first=self._first_pause)
        self._down = Down(code, message, pause)
        for one in self._waiting:
            _leave(one, self._down)
        self._waiting.clear()

    async def _rest(self) -> None:
        """Let the time pass in which no engine is started."""
        if self._down is not None:
            await asyncio.sleep(self._down.retry_after)
            self._down = None

    async def _next(self, engine: Engine, ready: Ready) -> list[Wanted]:
        """The batch of whoever waits longest, once it is full or waited long enough.

        It is empty when the engine is not needed any more.

        Raises:
            EngineGone: it ended while nothing was drawn.

        """
        while True:
            left = None
            if self._waiting:
                first = self._waiting[0]
                left = first.arrived + self._options.window_seconds - _now()
                batch = self._together(first, self._room(first.shape, ready))
                if first.alone or left <= 0 or len(batch) == self._room(first.shape, ready):
                    self._waiting = [each for each in self._waiting if each not in batch]
                    return batch
            elif self._retired:
                return []
            self._changed.clear()
            change = asyncio.create_task(self._changed.wait())
            await asyncio.wait(
                [change, engine.gone], timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            change.cancel()
            if engine.gone.done():
                raise engine.lost("The engine went away.")

    def _together(self, first: Wanted, room: int) -> list[Wanted]:
        if first.alone:
            return [first]
        alike = (each for each in self._waiting if each.shape == first.shape and not each.alone)
        return list(islice(alike, room))

    def _room(self, shape: Shape, ready: Ready) -> int:
        """How many pictures can be drawn at once, also by what ran out of memory so far."""
        measured = room(self._options, ready, shape.pixels, warm_up=self._warm_up)
        return max(1, min(measured, self._pixels // shape.pixels))

    async def _draw(self, engine: Engine, batch: Sequence[Wanted]) -> bool:
        """Draw a batch; whether it was too much for the memory.

        Raises:
            EngineGone: it ended meanwhile.

        """
        shape, full = batch[0].shape, list[Wanted]()
        self._drawing = {each.picture.id: each for each in batch}
        for each in batch:
            each.begin()

        def heed(event: Event) -> None:
            match event:
                case Step(done=done, of=of):
                    for one in self._drawing.values():
                        one.report(done / of)
                case Drawn(id=id_) if each := self._drawing.pop(id_, None):
                    _leave(each, Kept(Path(each.picture.file)))
                case Ended(id=id_) if each := self._drawing.pop(id_, None):
                    if event.code != "out_of_memory":
                        _leave(each, event)
                        return
                    full.append(each)
                    if len(batch) == 1:
                        each.end(event)

        try:
            await engine.draw(_order(batch), heed)
        except EngineGone as gone:
            left, self._drawing = [*full, *self._drawing.values()], {}
            if gone.out_of_memory:
                self._lower(shape, len(batch))
            code: EndCode = "out_of_memory" if gone.out_of_memory else "failed"
            for each in left:
                each.tries += 1
                if each.tries == TRIES:
                    each.end(Ended(id=each.picture.id, code=code, message=str(gone)))
            self._put_back(left)
            raise
        if full:
            self._lower(shape, len(batch))
        self._put_back(full)
        return bool(full)

    def _lower(self, shape: Shape, pictures: int) -> None:
        """Draw at most half as much at once from now on, as so many were too much."""
        if pictures == 1:
            return
        self._pixels = min(self._pixels, pictures // 2 * shape.pixels)
        log.warning("channel %s: %d pictures are too much at once", self._name, pictures)

    def _put_back(self, wanted: Sequence[Wanted]) -> None:
        """Have these drawn again before all others, each by itself."""
        for each in wanted:
            each.alone = True
            if not each.open:
                each.leave()
        self._waiting[:0] = [each for each in wanted if each.open]


def room(options: Options, ready: Ready, pixels: int, *, warm_up: tuple[int, int] | None) -> int:
    """How many pictures can be drawn at once, by the channel's options and by measured memory.

    Args:
        options: of the channel.
        ready: what the engine measured.
        pixels: of one picture.
        warm_up: width and height of the picture that it measured by.

    """
    most = options.most(ready.device)
    if ready.picture_bytes and ready.free_bytes and warm_up is not None:
        each = ready.picture_bytes * pixels / math.prod(warm_up)
        most = min(most, int(ready.free_bytes / each))
    return max(1, most)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _cancelled(wanted: Wanted) -> Ended:
    return Ended(id=wanted.picture.id, code="cancelled", message="It was stopped.")


def _leave(wanted: Wanted, end: End) -> None:
    """Tell one its end, of which the engine has nothing in its hands any more."""
    wanted.end(end)
    wanted.leave()


def _order(batch: Sequence[Wanted]) -> Draw:
    shape = batch[0].shape
    return Draw(
        pictures=tuple(each.picture for each in batch),
        width=shape.width,
        height=shape.height,
        steps=shape.steps,
        guidance=shape.guidance,
        strength=shape.strength,
    )


def pause_after(failures: int, *, first: float) -> float:
    """Seconds before an engine is started again that failed so often in a row."""
    doublings = min(failures - 1, 20)  # beyond a thousand, no float holds what they come to
    return min(LONGEST_PAUSE, first * (1 << doublings))
