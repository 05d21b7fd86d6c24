"""What nobody means to give, in the place of a value, a path, a JSON value or a whole file."""

import json
from random import Random
from typing import Any

NUMBERS = ("0", "-1", "1", "3", "1e300", "1e-320", "-1e300", "nan", "inf", "9" * 400, "9" * 5000, "0.5", "2147483648")
PATHS = (
    "x" * 300,
    "/".join(["y" * 200] * 30),
    "'~nobody_here'",
    "'~nobody_here/x'",
    "/dev/null",
    "/dev/null/x",
    "''",
    ".",
    "/proc/1/x",
    "/dev/zero",
)
TEXTS = (
    "'a\x1b[31mb'",
    "'a\nb'",
    "\udcff",
    "é",
    "a b",
    "'",
    '"',
    "${seed}",
    "${nope}",
    "$",
    "\\",
    "x" * 5000,
    "=",
    "a=b",
)
NESTED = (
    "[" * 2000,
    "{a:" * 300 + "1" + "}" * 300,
    "[1,2]",
    "{a: 1}",
    "1,2",
    "choice(1,2)",
    "range(0,1e9)",
    "[]",
    "{}",
)
VALUES = (*NUMBERS, *PATHS, *TEXTS, *NESTED, "null", "true", "interval(0,1)", "glob(*)", "tag(x,1)")
JSON_VALUES: tuple[Any, ...] = (None, True, 0, -1, 1e400, 10**400, "", "x\x1b", "\ud800", [], {}, [[]], {"a": []}, "9")
BYTES = (b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"\x00" * 99, b'"\\ud800"')


def changed(text: str, random: Random, values: tuple[Any, ...] = JSON_VALUES) -> bytes:
    """A JSON object with one entry, at any depth, lost or replaced."""
    entries = at = json.loads(text)
    while True:
        key = random.choice(list(at))
        if not isinstance(at[key], dict) or not at[key] or random.random() < 0.2:
            break
        at = at[key]
    if random.random() < 0.2:
        del at[key]
    else:
        at[key] = random.choice(values)
    return json.dumps(entries).encode()


def damaged(data: bytes, random: Random) -> bytes:
    """Bytes that were cut, or of which some are others."""
    if random.random() < 0.3 or not data:
        return data[: random.randrange(len(data) + 1)]
    found = bytearray(data)
    for _ in range(random.randint(1, 20)):
        found[random.randrange(len(found))] = random.randrange(256)
    return bytes(found)
