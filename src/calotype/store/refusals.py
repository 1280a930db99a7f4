"""What a store refuses, in the same words whatever the database."""

from calotype.domain.errors import IdempotencyConflict, InsufficientBalance
from calotype.domain.money import format_usd


def cannot_pay(price: int, available: int) -> InsufficientBalance:
    """The account has less available than a task costs."""
    return InsufficientBalance(
        f"This request costs {format_usd(price)} USDC and the account has "
        f"{format_usd(available)} USDC available; add credit or wait for running tasks to end."
    )


def cannot_take_away(amount: int) -> InsufficientBalance:
    """The account has less available than is to be taken away."""
    return InsufficientBalance(
        f"The account has less than {format_usd(amount)} USDC available; "
        "take away at most what is available."
    )


def key_conflict() -> IdempotencyConflict:
    """The idempotency key belongs to another request."""
    return IdempotencyConflict(
        "This Idempotency-Key was used with another request; send the same request again, "
        "or use a new key."
    )
