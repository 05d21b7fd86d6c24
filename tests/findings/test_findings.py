"""Numbers over seeds and what may be said of two of them, by hand; and docs/measured.md against its numbers."""

import re
import xml.etree.ElementTree as ET
from math import sqrt

import pytest

from scripts.findings.charts import chart
from scripts.findings.numbers import Compared, Finding, Row, Rows, over_seeds
from scripts.findings.page import IMAGES, PAGE, figures, read, renewed


def test_a_mean_over_seeds() -> None:
    """Of 1, 2, 3 the standard deviation is 1."""
    row = over_seeds("topk", 8, [1.0, 2.0, 3.0])
    assert (row.value, row.error, row.n) == (2.0, pytest.approx(1 / sqrt(3)), 3)
    assert row.text == "2 ± 0.58"
    assert over_seeds("pca", 8, [0.5]).error is None


@pytest.mark.parametrize(
    ("one", "other", "better", "verdict"),
    [
        ((1.0, 0.1), (1.3, 0.1), "lower", "first"),
        ((1.0, 0.1), (1.3, 0.1), "higher", "second"),
        ((1.0, 0.1), (1.2, 0.1), "lower", "neither"),
        ((1.0, 0.1), (1.2, 0.05), "lower", "first"),
        ((1.0, None), (1.2, 0.25), "lower", "neither"),
    ],
)
def test_better_is_beyond_both_errors(one: tuple, other: tuple, better: str, verdict: str) -> None:
    rows = [Row("a", 8, *one, 3), Row("b", 8, *other, 3)]
    assert Compared(*rows, better).verdict == verdict


def made() -> Finding:
    rows = Rows("KL, nats", "L0", "lower")
    first, second = (rows.add(Row(name, 8, value, 0.01, 3)) for name, value in (("topk", 0.5), ("random", 0.9)))
    rows.add(Row("topk", 16, 0.25, None, 1))
    rows.compare(first, second)
    return rows.finding


def test_a_finding_is_read_back() -> None:
    assert Finding.of_json(made().as_json()) == made()
    assert made().as_json()["verdicts"] == ["first"]


def test_a_page_is_renewed_between_its_prose() -> None:
    page = "# Measured\n\nProse.\n<!-- measured kl -->\n\n| old |\n\n<!-- compared kl -->\n\nMore.\n"
    expected = (
        "# Measured\n\nProse.\n<!-- measured kl -->\n\n| L0 | demo, 8 | demo, 16 |\n| --- | ---: | ---: |\n"
        "| topk | 0.5 ± 0.01 | 0.25 |\n| random | 0.9 ± 0.01 |  |\n\n"
        "<!-- compared kl -->\n\n| first | second | better, demo, 8 |\n| --- | --- | --- |\n"
        "| topk | random | first |\n\nMore.\n"
    )
    found = {"demo": {"kl": made()}}
    assert renewed(page, found) == expected
    assert renewed(expected, found) == expected


def test_a_chart_has_every_number() -> None:
    root = ET.fromstring(chart({"demo": made(), "other": made()}, log_y=True))
    marks = root.findall(".//{*}circle")
    assert len(marks) == 6
    assert [mark[0].text for mark in marks[:2]] == ["topk, 8: 0.5 ± 0.01", "topk, 16: 0.25"]
    assert float(marks[1].get("cy")) > float(marks[0].get("cy")), "less is lower"


def test_the_page_is_what_was_measured() -> None:
    """It and its figures are what `python scripts/measured.py --page` writes."""
    text, found = PAGE.read_text(encoding="utf-8"), read()
    assert renewed(text, found) == text
    drawn = figures(found)
    assert set(re.findall(r"images/(measured_\w+\.svg)", text)) == set(drawn)
    for name, picture in drawn.items():
        assert (IMAGES / name).read_text(encoding="utf-8") == picture
