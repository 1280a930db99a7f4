"""What the address of a page asks for, judged, and written back."""

from collections.abc import Callable, Collection
from typing import Final, TypeVar
from urllib.parse import parse_qsl, urlencode

from calotype.domain.catalog import quoted
from calotype.domain.errors import InvalidParameter
from calotype.domain.ids import decode, encode

BEFORE: Final = "before"
"""The name of the value that says where a page of a list begins."""

_Read = TypeVar("_Read")


class Query:
    """The values of a query string by name; what was left empty is not there.

    Args:
        text: as it came.
        names: those that the page knows; any other is told in ``wrong``.

    Attributes:
        typed: every value as it came, to show it again.
        wrong: what is wrong with a value, by its name; under ``""`` what fits no field. Where
            there is anything, nothing is to be looked for.

    """

    def __init__(self, text: bytes, names: Collection[str]) -> None:
        self.typed: dict[str, str] = {}
        self.wrong: dict[str, str] = {}
        try:
            said = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict")
        except UnicodeError:
            self.wrong[""] = "The address of this page is not text in UTF-8."
            return
        for name, value in ((name, value.strip()) for name, value in said):
            if name not in names:
                known = ", ".join(each for each in names if each != BEFORE)
                self.wrong[""] = f"There is no filter {quoted(name)} here; there are {known}."
            elif name in self.typed:
                self.wrong[name] = f"{name} came twice; say it once."
            elif "\0" in value:
                self.wrong[name] = "It holds a NUL, which nothing here has; take it out."
            elif value:
                self.typed[name] = value

    @property
    def filtered(self) -> bool:
        """Whether less is asked for than all."""
        return any(name != BEFORE for name in self.typed)

    def read(self, name: str, judge: Callable[[str], _Read]) -> _Read | None:
        """A value as ``judge`` makes it of the text; None where there is none, or it is wrong.

        What ``judge`` raises as ``InvalidParameter`` is what is wrong with it.
        """
        if name not in self.typed:
            return None
        try:
            return judge(self.typed[name])
        except InvalidParameter as error:
            self.wrong.setdefault(name, error.message)
            return None

    def before(self) -> int | None:
        """The id before which the page begins; None at the newest."""
        word = self.typed.get(BEFORE)
        number = None if word is None else decode("page", word)
        if word is not None and number is None:
            self.wrong[""] = "The address of this page is not whole; begin with the newest."
        return number

    def link(self, path: str, *, before: int | None = None) -> str:
        """Where the same is looked for from another place on; the newest without one."""
        said = {name: value for name, value in self.typed.items() if name != BEFORE}
        if before is not None:
            said[BEFORE] = encode("page", before)
        return f"{path}?{urlencode(said)}" if said else path
