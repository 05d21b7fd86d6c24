"""What a command says before it refuses: where it has come to, a line each, and then why it goes no further."""

import re

ON_THE_WAY = re.compile(
    r"(\S+: (loading|opening|tokenising|preparing|compiling)\b[^\n]*|\d+% [^\n]*|data: [^\n]*|"
    r"(data|model)\.\w+[:=][^\n]*)\n"
)


def refusal(err: str) -> str:
    """Standard error without the lines that say how far a command was."""
    while line := ON_THE_WAY.match(err):
        err = err[line.end() :]
    return err
