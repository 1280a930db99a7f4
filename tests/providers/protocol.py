"""What must come of each script: the data of the suite.

A protocol's table (``cases/<provider>.py``) says for each script that it can play what becomes of
the task; the groups here hold what is the same for most protocols. The page
``docs/reference/outcomes.md`` is written from these tables.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from calotype.domain.channel import Served
from calotype.domain.outcomes import Fault
from calotype.domain.task import State
from providers.fakes.base import Fake
from providers.scripts import Script


class Expected(msgspec.Struct, frozen=True):
    """What must come of one script.

    Args:
        state: the task's final state.
        code: its error code; empty for a success.
        fault: where the first attempt is noted to have failed; None where it did not.
        retried: the task was sent again, and that send was accepted.
        purchases: what the fake took, or may have taken, over the whole task.

    """

    state: State = State.SUCCESS
    code: str = ""
    fault: Fault | None = None
    retried: bool = False
    purchases: int = 1

    @property
    def billed(self) -> bool:
        """Whether the client pays."""
        return self.state is State.SUCCESS


def fails(code: str, fault: Fault | None = None, *, purchases: int = 1) -> Expected:
    """The task fails; unless said otherwise after the upstream may have taken it."""
    return Expected(State.FAIL, code, fault, purchases=purchases)


def dropped(table: "Table", *scripts: str) -> "Table":
    """A table without the rows that a protocol cannot play."""
    return {script: row for script, row in table.items() if script not in scripts}


def retried(fault: Fault) -> Expected:
    """Nothing was taken: sent again, and accepted."""
    return Expected(fault=fault, retried=True)


GOOD: Final = Expected()
UNKNOWN: Final = fails("upstream_outcome_unknown", Fault.UPSTREAM)
UNUSABLE: Final = fails("upstream_malformed_response", Fault.UPSTREAM)
MODERATED: Final = fails("content_policy_violation", Fault.POLICY)

Table = Mapping[str, Expected]

SENDING: Final[Table] = {
    Script.ACCEPT: GOOD,
    Script.BUSY: retried(Fault.BUSY),
    Script.UNREACHABLE: retried(Fault.UNREACHABLE),
    Script.ERROR_500: UNKNOWN,
    Script.ERROR_503: UNKNOWN,
    Script.CUT_BEFORE: UNKNOWN,
    Script.CUT_WITHIN: UNKNOWN,
    Script.CUT_AFTER: GOOD,
    Script.SILENT: UNKNOWN,
    Script.MALFORMED: UNKNOWN,
    Script.ERROR_IN_200: UNKNOWN,
    Script.REDIRECTED: UNKNOWN,
    Script.BAD_KEY: fails("upstream_unavailable", Fault.KEY, purchases=0),
    Script.NO_CREDIT: fails("upstream_unavailable", Fault.ACCOUNT, purchases=0),
    Script.MODEL_GONE: fails("upstream_unavailable", Fault.MODEL, purchases=0),
    Script.REJECTED: fails("upstream_rejected", Fault.REQUEST, purchases=0),
    Script.MODERATED: fails("content_policy_violation", Fault.POLICY, purchases=0),
    Script.NO_IMAGE: UNUSABLE,
}
"""For every protocol; one that moderates a run says ``Script.MODERATED: MODERATED`` after it."""

POLLING: Final[Table] = {
    Script.DELAY: GOOD,
    Script.READ_500: GOOD,
    Script.READ_BUSY: GOOD,
    Script.READ_CUT: GOOD,
    Script.READ_MALFORMED: GOOD,
    Script.READ_REDIRECTED: GOOD,
    Script.UNKNOWN_STATE: GOOD,
    Script.FAILED: fails("upstream_failed", Fault.UPSTREAM),
    Script.CANCELLED: fails("cancelled", Fault.UPSTREAM),
}
"""For protocols whose jobs are asked about; ``LOST`` where the protocol says that a job is gone."""

BY_URL: Final[Table] = {
    Script.RESULT_HTML: UNUSABLE,
    Script.RESULT_HUGE: UNUSABLE,
    Script.RESULT_PRIVATE: UNUSABLE,
    Script.RESULT_REDIRECTED: UNUSABLE,
    Script.RESULT_BROKEN: GOOD,
}
"""For protocols that give the image as a URL."""

BY_BASE64: Final[Table] = {Script.BASE64_CUT: UNUSABLE}
"""For protocols that give the image inside the answer."""

CALLBACKS: Final[Table] = {Script.CALLBACK_TWICE: GOOD, Script.CALLBACK_FORGED: GOOD}
"""For protocols that tell when a job ends."""

USUAL: Final[Mapping[str, Table]] = {
    "The send": SENDING,
    "Questions about a job": {**POLLING, Script.LOST: UNKNOWN},
    "The image": {**BY_BASE64, **BY_URL},
    "Callbacks": CALLBACKS,
}
"""What is the same for most protocols, as the page groups it."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A request, and what the upstream must read in it.

    Args:
        model: of our catalog.
        parameters: as the client gives them; the catalog's defaults are filled in.
        served: how the channel serves the model; None takes what the upstream file says.
        references: how many; they come back in order, byte for byte.
        public: the references have URLs of ours that the world can reach.
        reads_model: the model that the upstream must read.
        reads: the other fields that it must read, prompt and references apart.

    """

    model: str
    reads_model: str
    reads: dict[str, Any]
    parameters: dict[str, Any] = {}
    served: Served | None = None
    references: int = 0
    public: bool = False


class Protocol(msgspec.Struct, frozen=True, kw_only=True):
    """One protocol as the suite tests it.

    Args:
        provider: its name in a channel.
        fake: its upstream.
        expected: script → what must come of it; the first is played when any will do.
        examples: what the wire must carry; the first is what the whole way sends.
        meanings: what the protocol's own scripts are.
        options: of the channel.
        polls: a job is asked about by its id.
        recovers: a lost answer can be asked for by our own reference.
        cancels: a job can be stopped.
        shared_secret: callbacks are proved by the channel's callback secret.

    """

    provider: str
    fake: Callable[..., Fake]
    expected: Table
    examples: tuple[Example, ...]
    meanings: Mapping[str, str] = {}
    options: Mapping[str, str] = {}
    polls: bool = True
    recovers: bool = False
    cancels: bool = False
    shared_secret: bool = True
