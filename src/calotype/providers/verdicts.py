"""From an upstream's status and code to an outcome, by the tables in ``catalog/upstreams/``.

A table's key is ``"429 insufficient_quota"`` (status and code), ``"429"``, ``"4xx"`` or ``"*"``;
the most specific one holds. Its value is one of the words in ``domain.wire``.
"""

from collections.abc import Mapping
from typing import Final

from calotype.domain.outcomes import Failed, Fault, Refused, TryLater, Unknown

_POLICY: Final = "The upstream refused the request by its content policy."
_OPERATOR: Final = "The channel cannot be used right now; its operator has to see to it."
_UNFIT: Final = "The channel is not able to do what was asked for."


def verdict(table: Mapping[str, str], status: int, code: str = "") -> str | None:
    """The most specific entry of a table; None when there is none."""
    for key in (f"{status} {code}" if code else "", str(status), f"{status // 100}xx", "*"):
        if key and key in table:
            return table[key]
    return None


def on_create(
    word: str | None, *, detail: str, retry_after: float | None = None
) -> Refused | TryLater | Failed | Unknown:
    """The outcome of a send that brought no job and no image.

    Args:
        word: one of ``wire.CREATE``; None, for an answer that no table foresees, is ``unknown``.
        detail: what the upstream said, cleaned by ``said``.
        retry_after: seconds, where the upstream tells.

    """
    match word:
        case "request":
            return Refused("upstream_rejected", f"The upstream refused the request: {detail}")
        case "policy":
            return Refused("content_policy_violation", _POLICY, Fault.POLICY, detail)
        case "key" | "account" | "model":
            return Refused("upstream_unavailable", _OPERATOR, Fault(word), detail)
        case "busy":
            message = f"The upstream is busy: {detail}"
            return TryLater("upstream_rate_limited", message, retry_after)
        case "failed":
            return ended(word, detail=detail)
        case _:
            return Unknown(f"The upstream answered with a fault: {detail}")


def unfit(lack: str) -> Refused:
    """The outcome of a job that was not sent, as this one upstream, unlike others, lacks something.

    Args:
        lack: what it lacks, for the operator.

    """
    return Refused("upstream_rejected", _UNFIT, Fault.UNFIT, lack)


def on_read(
    word: str | None, *, detail: str, retry_after: float | None = None
) -> TryLater | Failed | Unknown:
    """The outcome of a question about a job that brought neither its state nor its image.

    Never of a send: what it does not know is ``TryLater``, after which a send goes out again. Where
    the answer to a send says how the job ended, that is ``ended``.
    """
    match word:
        case "failed" | "policy" | "cancelled":
            return ended(word, detail=detail)
        case "lost":
            return Unknown(f"The upstream no longer knows the job: {detail}")
        case _:
            return TryLater("upstream_unavailable", f"The upstream said: {detail}", retry_after)


def ended(word: str | None, *, detail: str, cost: int | None = None) -> Failed:
    """The outcome of a job that was taken and ended without an image, whoever was asked.

    Args:
        word: ``policy``, ``cancelled`` or ``account``; every other one is ``failed``.
        detail: what the upstream said, cleaned by ``said``.
        cost: micro-USDC that it charged all the same, where it says so.

    """
    match word:
        case "policy":
            return Failed("content_policy_violation", _POLICY, Fault.POLICY, cost)
        case "cancelled":
            message = "The job was cancelled at the upstream."
            return Failed("cancelled", message, cost_micro_usdc=cost)
        case "account":
            return Failed("upstream_unavailable", _OPERATOR, Fault.ACCOUNT, cost)
        case _:
            message = f"The upstream failed at it: {detail}"
            return Failed("upstream_failed", message, cost_micro_usdc=cost)


def imageless(cost: int | None = None) -> Failed:
    """The outcome of a job that is said to be done, without an image."""
    message = "The upstream says that it is done and has no image."
    return Failed("upstream_malformed_response", message, cost_micro_usdc=cost)


def unreadable(message: str = "The upstream's answer about the job could not be read.") -> TryLater:
    """The outcome of a question whose answer says nothing of the job; never of a send."""
    return TryLater("upstream_malformed_response", message, fault=Fault.UPSTREAM)
