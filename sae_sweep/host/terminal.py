"""Text of whatever origin for a terminal or a log: it moves no cursor and breaks no line. No torch."""

import sys
from io import TextIOWrapper
from typing import TextIO


def escaped(text: str) -> str:
    """The text with control characters, line ends and lone surrogates as Python writes them: `\\n`, `\\x1b`."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def tell(text: str, file: TextIO | None = None) -> None:
    """Print the text as one line, by default to standard output."""
    print(escaped(text), file=file or sys.stdout, flush=True)


def take_any_text() -> None:
    """Let standard output and error write `\\xb7` for what their encoding lacks, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
