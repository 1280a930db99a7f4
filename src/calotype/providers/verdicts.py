"""From an upstream's status and code to an outcome, by the tables in ``catalog/upstreams/``.

A table's key is ``"429 insufficient_quota"`` (status and code), ``"429"``, ``"4xx"`` or ``"*"``;
the most specific one holds. Its value is one of the words in ``domain.wire``.
"""

from collections.abc import Mapping
from typing import Final

from calotype.domain.outcomes import Failed, Fault, Refused, TryLater, Unknown

_POLICY: Final = "The upstream refused the request by its content policy."
_OPERATOR: Final = "The channel cannot be used right now; its operator has to see to it."


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
            return Failed("upstream_failed", f"The upstream failed at it: {detail}")
        case _:
            return Unknown(f"The upstream answered with a fault: {detail}")


def on_read(
    word: str | None, *, detail: str, retry_after: float | None = None
) -> TryLater | Failed | Unknown:
    """The outcome of a question about a job that brought neither its state nor its image."""
    match word:
        case "failed":
            return Failed("upstream_failed", f"The upstream failed at it: {detail}")
        case "policy":
            return Failed("content_policy_violation", _POLICY, Fault.POLICY)
        case "cancelled":
            return Failed("cancelled", "The job was cancelled at the upstream.")
        case "lost":
            return Unknown(f"The upstream no longer knows the job: {detail}")
        case _:
            return TryLater("upstream_unavailable", f"The upstream said: {detail}", retry_after)
