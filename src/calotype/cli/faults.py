"""How a command ends badly: one line on stderr, and an exit code.

1 when something failed, 2 when the configuration or the command line is wrong.
"""

import sys
from typing import Final

FAILED: Final = 1
MISCONFIGURED: Final = 2


class CommandFault(Exception):
    """A command cannot do what it was asked.

    Args:
        message: what is wrong, and what to do about it.
        exit_code: ``FAILED`` or ``MISCONFIGURED``.

    """

    def __init__(self, message: str, *, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


def explain(error: Exception) -> CommandFault | None:
    """An exception as a person is told of it; None for one that is a fault of ours."""
    import sqlite3

    from calotype.catalog import CatalogError
    from calotype.domain.errors import CalotypeError
    from calotype.settings import SettingsError
    from calotype.store.port import StoreError

    match error:
        case CommandFault():
            return error
        case SettingsError() | CatalogError() | StoreError():
            return CommandFault(str(error), exit_code=MISCONFIGURED)
        case CalotypeError():
            cause = f" ({error.__cause__})" if error.__cause__ else ""
            return CommandFault(f"{error.message}{cause}")
        case sqlite3.Error():
            return CommandFault(
                f"The database cannot be used ({error}); calotype doctor tells more."
            )
        case OSError() if error.strerror:
            where = f"{error.filename}: " if error.filename else ""
            return CommandFault(f"{where}{error.strerror}; check the path and its permissions.")
        case _:
            return None


def tell(message: str) -> None:
    """Write one line to stderr, red where that is a terminal."""
    from rich.console import Console
    from rich.text import Text

    from calotype.cli.show import plain

    console = Console(file=sys.stderr, highlight=False)
    console.print(Text(plain(message), style="red"), soft_wrap=True)
