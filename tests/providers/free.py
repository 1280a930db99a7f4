"""Rows for upstreams that cost nothing: what may have been taken is sent again."""

from typing import Final

from calotype.domain.outcomes import Fault
from providers.protocol import Expected, Table
from providers.scripts import Script

AGAIN: Final = Expected(fault=Fault.UPSTREAM, retried=True, purchases=2)
"""It may have been taken, and is sent again."""

SENT_AGAIN: Final[Table] = dict.fromkeys(
    (
        *(Script.ERROR_500, Script.ERROR_503, Script.CUT_BEFORE, Script.CUT_WITHIN),
        *(Script.SILENT, Script.MALFORMED, Script.ERROR_IN_200, Script.REDIRECTED),
    ),
    AGAIN,
)
"""For protocols that cannot be asked what became of a send."""
