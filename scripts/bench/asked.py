"""What the sweep benchmarks are asked for: their common arguments, and the sweeps those stand for."""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.bench import language_model
from scripts.bench.measure import Results
from scripts.bench.peers.client import install_missing
from scripts.bench.sides import PEER_SCRIPTS
from scripts.bench.sweeps import L0_COEFFICIENTS, OURS, PAPERS, SAME_LOSS, SIDES, VALUES, Sweep, members


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """The common arguments; `doc` is the script's."""
    first, _, rest = (doc or "").partition("\n\n")
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=first, epilog=rest, formatter_class=plain)
    parser.add_argument("--only", default=",".join(SAME_LOSS), help="architectures, with commas (%(default)s)")
    parser.add_argument("--values", type=_numbers, help="members of one architecture: its l1, k, or L0 to aim at")
    parser.add_argument("--l0-coefficients", type=_numbers, help="as many, for sae-lens's jumprelu")
    parser.add_argument("--width", type=int, default=1024, help="latents (%(default)s)")
    parser.add_argument("--tokens", type=float, default=4e6, help="training tokens (%(default)g)")
    parser.add_argument("--batch", type=int, default=2048, help="tokens per step (%(default)s)")
    parser.add_argument("--lr", type=float, default=4e-3, help="of all sides (%(default)s)")
    parser.add_argument("--decay", type=float, default=0.5, help="share of the run in which lr falls (%(default)s)")
    parser.add_argument("--model", default=str(language_model.SMALL), help="a folder, or demo (%(default)s)")
    parser.add_argument("--text", type=Path, help="a file of text to read instead of the demo's")
    parser.add_argument("--layer", type=int, help="resid_post of this block (0; 2 in demo)")
    parser.add_argument("--evaluation-tokens", type=float, default=1e5, help="held-out tokens (%(default)g)")
    parser.add_argument("--recipes", choices=("same-loss", "papers"), default="same-loss", help="ours (%(default)s)")
    parser.add_argument("--peers", default=",".join(SIDES[1:]), help="with commas (%(default)s)")
    parser.add_argument("--no-peers", action="store_true", help="our side alone")
    parser.add_argument("--install-peers", action="store_true", help="make the environments that peers lack")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--work", type=Path, help="keep the sweeps' folders here (a temporary one)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--out", type=Path, help="write everything here too, as JSON, beside what it holds of others")
    return parser


def parsed(parser: argparse.ArgumentParser, benchmark: str, arguments: list[str] | None) -> argparse.Namespace:
    """Checked: `only` and `sides` are lists, `results` the JSON of --out."""
    found = parser.parse_args(arguments)
    found.only = found.only.split(",")
    peers = [] if found.no_peers else found.peers.split(",")
    found.sides = [OURS, *peers]
    for name, asked, known in (("--only", found.only, list(SAME_LOSS)), ("--peers", peers, SIDES[1:])):
        unknown = sorted(set(asked) - set(known))
        if unknown:
            parser.error(f"{name}: no {', '.join(unknown)} among {', '.join(known)}")
    if found.values and len(found.only) > 1:
        parser.error("--values: means something else for each architecture; name one with --only")
    if found.quick:
        found.tokens, found.batch, found.width, found.evaluation_tokens = 2e4, 256, 256, 4e3
    for architecture in found.only:
        values = members_of(found, architecture)
        if len({len(own.values) for own in values.values()}) > 1:
            parser.error(f"--l0-coefficients: must be as many as --values, {len(values[OURS].values)}")
    left = [run for name in found.only for run in sorted(found.work.glob(f"{name}-*"))] if found.work else []
    if left:
        parser.error(f"--work: {left[0]} is there already, and what is finished would not be run again")
    try:
        found.results = Results(benchmark, found.out)
    except ValueError as error:
        parser.error(f"--out: {error}")
    return found


def members_of(asked: argparse.Namespace, architecture: str) -> dict[str, Any]:
    """Every side's members; two of the usual ones with --quick."""
    values, coefficients = asked.values or VALUES[architecture], asked.l0_coefficients or L0_COEFFICIENTS
    if asked.quick:
        values = asked.values or values[1::3][:2]
        coefficients = asked.l0_coefficients or coefficients[1::3][:2]
    return dict(members(architecture, values, coefficients))


@contextmanager
def workplace(asked: argparse.Namespace) -> Iterator[Path]:
    """The folder to work in, when peers are installed and there is a language model to read."""
    if asked.install_peers:
        for name, why in install_missing([PEER_SCRIPTS[side][0] for side in asked.sides[1:]]).items():
            print(f"{name}: {why}", file=sys.stderr)
    folder = _model(asked).folder
    if not (folder / "config.json").is_file():
        language_model.make(folder)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(asked.work or temporary).resolve()
        work.mkdir(parents=True, exist_ok=True)
        yield work


def sweep_of(asked: argparse.Namespace, architecture: str, seed: int) -> Sweep:
    recipes = SAME_LOSS if asked.recipes == "same-loss" else PAPERS
    return Sweep(
        architecture=architecture,
        recipe=recipes[architecture],
        members=members_of(asked, architecture),
        width=asked.width,
        tokens=int(asked.tokens),
        batch=asked.batch,
        lr=asked.lr,
        decay=asked.decay,
        model=_model(asked),
        text=asked.text,
        evaluation_tokens=asked.evaluation_tokens,
        device=asked.device,
        seed=seed,
    )


def _model(asked: argparse.Namespace) -> language_model.LanguageModel:
    return language_model.named(asked.model, asked.layer)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))
