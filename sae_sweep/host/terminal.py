"""Text of whatever origin for a terminal or a log: it moves no cursor and breaks no line. No torch."""

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO


def escaped(text: str) -> str:
    """The text with control characters, line ends and lone surrogates as Python writes them: `\\n`, `\\x1b`."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def tell(text: str, file: TextIO | None = None) -> None:
    """Print the text as one line, by default to standard output."""
    print(escaped(text), file=file or sys.stdout, flush=True)


def take_any_text() -> None:
    """Let standard output and error write `\\xb7` for what their encoding lacks, in place of an error. One that is
    closed takes everything too."""
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")  # for as long as the process lives
