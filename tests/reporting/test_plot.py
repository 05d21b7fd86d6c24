from typing import Any

from sae_sweep.reporting.plot import frontier_plot


def cell(*points: tuple[str, str, float | None, float | None], frontier: tuple[str, ...] = ()) -> dict[str, Any]:
    made = [{"member": m, "architecture": a, "l0": l0, "ce_recovered": y} for m, a, l0, y in points]
    return {"fidelity": "ce_recovered", "points": made, "frontiers": {"overall": list(frontier)}}


def test_a_plot_by_hand() -> None:
    """Eleven rows from 0.5 to 1, 31 columns from L0 1 to 1000: a decade is ten columns."""
    found = frontier_plot(
        cell(
            ("t1", "topk", 1.0, 0.5),
            ("t2", "topk", 1000.0, 1.0),
            ("g1", "gated", 10.0, 0.75),
            ("g2", "gated", 100.0, 0.6),
            ("none", "gated", None, 0.6),
            frontier=("t1", "t2", "g1"),
        ),
        width=39,
        height=11,
    )
    assert found == [
        "CE recovered over L0 (log)",
        "      1+                              T",
        *["       |"] * 4,
        "   0.75+          G",
        "       |",
        "       |",
        "       |                    g",
        "       |",
        "    0.5+T",
        "       ++--+---+--+--+---+--+---------+",
        "        1  2   5 10 20  50 100     1000",
        "        g gated, t topk; capitals are",
        "        on the frontier",
    ]


def test_an_axis_says_small_and_large_numbers_whole() -> None:
    lines = frontier_plot(cell(("a", "topk", 8, -123456.0), ("b", "topk", 16, 1.25e-05), frontier=("a", "b")))
    ends = [float(line[:7]) for line in (lines[1], lines[14])]
    assert ends == [1e-05, -1e05], "in as many digits as six characters have"


def test_a_member_far_below_is_counted_not_drawn() -> None:
    found = frontier_plot(
        cell(("a", "gated", 10, 0.9), ("b", "gated", 100, 1.0), ("c", "random", 50, -4.0), frontier=("a", "b"))
    )
    assert "1 further down" in found[-1]
    assert not any("R" in line or "r" in line.partition("+")[2] for line in found[1:-1])


def test_one_member_and_none() -> None:
    assert frontier_plot(cell()) == []
    assert frontier_plot(cell(("a", "gated", 0.0, 0.9))) == []
    drawn = frontier_plot(cell(("a", "gated", 32.0, 0.9), frontier=("a",)))
    assert sum(line.count("G") for line in drawn[1:15]) == 1
    assert all(len(line) <= 78 and line.isascii() and line.isprintable() for line in drawn)


def test_letters_are_the_architectures_own() -> None:
    names = ("batchtopk", "gated", "gated_paper", "topk")
    made = cell(*((name, name, 10.0 + i, 0.5 + i / 10) for i, name in enumerate(names)))
    assert "b batchtopk, g gated, a gated_paper, t topk" in " ".join(frontier_plot(made)[-2:])
