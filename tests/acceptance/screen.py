"""What stands on a terminal after all that was written to it."""

import re

_PIECE = re.compile(
    r"\x1b\[(?P<private>\??)(?P<number>\d*)(?:;\d+)*(?P<final>[A-Za-z])"
    r"|\x1b\].*?(?:\x07|\x1b\\)|\x1b_.*?\x1b\\|\x1bP.*?\x1b\\"
    r"|(?P<move>[\r\n])|(?P<text>[^\x1b\r\n]+)",
    re.DOTALL,
)


def screen(written: str) -> list[str]:
    """The lines of a terminal as wide and as high as need be.

    It knows what the commands write: text, ends of lines, going up, erasing a line. Another
    sequence that moves or erases fails.
    """
    lines, row, column, at = [""], 0, 0, 0
    while at < len(written):
        piece = _PIECE.match(written, at)
        assert piece, written[at : at + 40]
        at = piece.end()
        if piece["move"] == "\r":
            column = 0
        elif piece["move"]:
            row += 1
            lines += [""] * (row == len(lines))
        elif piece["text"]:
            before, after = lines[row][:column].ljust(column), lines[row][column:]
            lines[row] = before + piece["text"] + after[len(piece["text"]) :]
            column += len(piece["text"])
        elif piece["final"] == "A":
            row = max(0, row - int(piece["number"] or 1))
        elif (piece["final"], piece["number"]) == ("K", "2"):
            lines[row] = ""
        else:  # colours, the cursor's looks, questions
            assert piece["final"] in {None, "m", "h", "l", "c"}, piece[0]
    return [line.rstrip() for line in lines]
