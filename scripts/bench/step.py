"""What one training step costs: ours against its own encoder product, and against other trainers' steps.

    python scripts/bench/step.py --out step.json                    defaults: d 512, width 4096, batch 4096, fp32
    python scripts/bench/step.py --quick --no-peers                 does it run? (seconds; the numbers mean nothing)
    python scripts/bench/step.py --install-peers --only topk        make the peers' environments first
    python scripts/bench/step.py --only gated --out step.json       the other architectures' results in it stay
    python scripts/bench/step.py --without-bfloat16 --no-peers      ours as on CPUs that lack bfloat16 products
    python scripts/bench/step.py --device cuda --no-peers

Every architecture is trained for --warm real steps on synthetic activations (--high-warm at --high-l0, where its L0 is
shifted to what was asked for afterwards); then, in turns, --rounds times: its encoder product alone (one addmm of the
step's shapes), a fused Adam update of as many numbers (alone), our whole step (scaling, losses, gradients, Adam,
steering, dead counters), and each peer's whole step on the same batches from the same weights, in the peer's own
process. All columns are medians over the rounds:

    step/enc        our step in encoder products
    floor/enc       encoder product + Adam traffic, in encoder products: no step that trains can be below it
    NAME/ours       how many of our steps a step of that peer takes
    dead, L0        the share of latents AuxK is made to see as dead; latents that fired per token, ours

Peers: sae-lens through its `SAETrainer.step`, dictionary_learning through its trainers' `update`, sparsify (topk alone)
through the calls its `Trainer.fit` makes.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command sets it; read when torch is first imported

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch

from sae_sweep.host import allocator as process
from sae_sweep.kernels.cpu import screening
from scripts.bench.measure import Results, interleaved, machine, medians, ratio, seconds, show, shown
from scripts.bench.own import ARCHITECTURES, AdamTraffic, EncoderProduct, Own, Size
from scripts.bench.peers.client import (
    DICTIONARY,
    SAELENS,
    SPARSIFY,
    Environment,
    Unavailable,
    Worker,
    install_missing,
)

WITH_AUXK = ("topk", "batchtopk")
AT_HIGH_L0 = ("standard", "gated", "topk", "batchtopk", "jumprelu")
ENCODER, ADAM, OURS = "encoder", "adam", "ours"
PEERS = (SAELENS, DICTIONARY, SPARSIFY)


@dataclass(frozen=True)
class Trained:
    """One training, and the shares of dead latents with which its step is timed."""

    architecture: str
    l0: float
    warm: int
    """Steps."""
    dead_shares: tuple[float, ...]


def trainings(architecture: str, asked: argparse.Namespace) -> list[Trained]:
    """At `l0`, with AuxK at work too where there is one; the main architectures at `high_l0` as well."""
    shares = (0.0, asked.dead_share) if architecture in WITH_AUXK else (0.0,)
    found = [Trained(architecture, asked.l0, asked.warm, shares)]
    if architecture in AT_HIGH_L0:
        found.append(Trained(architecture, asked.high_l0, asked.high_warm, (0.0,)))
    return found


def measure(training: Trained, size: Size, workers: dict[str, Worker]) -> Iterator[dict[str, Any]]:
    """Train, then time with each share of dead latents."""
    own = Own(training.architecture, training.l0, replace(size, warm=training.warm))
    encoder, traffic = EncoderProduct(own.parameters(), own.inputs), AdamTraffic(own.parameters())
    with tempfile.TemporaryDirectory() as folder:
        own.save(Path(folder))
        for dead_share in training.dead_shares:
            seen: dict[str, list[float]] = {}
            subjects: dict[str, Callable[[int], float]] = {
                ENCODER: lambda i: seconds(lambda: encoder(i), size.device),
                ADAM: lambda i: seconds(traffic, size.device),
                OURS: lambda i, share=dead_share: _own_step(own, i, share),  # type: ignore[misc]
            }
            reasons: dict[str, str] = {}
            request = _request(own, training, dead_share, Path(folder))
            for name, worker in workers.items():
                try:
                    worker.ask({"do": "open", **request})
                    worker.ask({"do": "step", "batch": 0, "dead_share": dead_share})
                except Unavailable as reason:
                    reasons[name] = str(reason)
                else:
                    subjects[name] = _peer_step(worker, dead_share, seen.setdefault(name, []))
            rounds = interleaved(subjects, size.rounds)
            peers_l0 = {name: median(values) for name, values in seen.items()}
            yield {**_case(own, training, dead_share, rounds), "peers_l0": peers_l0, "not_measured": reasons}


def _own_step(own: Own, index: int, dead_share: float) -> float:
    own.silence(dead_share)
    return seconds(lambda: own.step(index), own.size.device)


def _peer_step(worker: Worker, dead_share: float, seen: list[float]) -> Callable[[int], float]:
    def step(index: int) -> float:
        answer = worker.ask({"do": "step", "batch": index, "dead_share": dead_share})
        seen.append(answer["l0"])
        return float(answer["seconds"])

    return step


def _request(own: Own, training: Trained, dead_share: float, folder: Path) -> dict[str, Any]:
    """What a worker must know of the case."""
    sizes = {"d": own.size.d, "width": own.size.width, "batch": own.size.batch, "l0": training.l0}
    sae = own.config.sae
    return {
        **sizes,
        "architecture": training.architecture,
        "coefficient": own.coefficient,
        "variance": own.trainer.trained.variance,
        "bandwidth": getattr(sae, "bandwidth", None),
        "groups": getattr(sae, "groups", None),
        "auxk": dead_share > 0,
        "folder": str(folder),
        "device": str(own.size.device),
        "threads": torch.get_num_threads(),
    }


def _case(own: Own, training: Trained, dead_share: float, rounds: dict[str, list[float]]) -> dict[str, Any]:
    middle = medians(rounds)
    floor = middle[ENCODER] + middle[ADAM]
    peers = {f"{name}_per_ours": ratio(value, middle[OURS]) for name, value in middle.items() if name not in _LOCAL}
    return {
        "architecture": training.architecture,
        "l0_asked": training.l0,
        "warm": training.warm,
        "dead_share": dead_share,
        "l0": own.l0(),
        "dense_route": own.dense,
        "milliseconds": {name: 1e3 * value for name, value in middle.items()},
        "ratios": {
            "step_per_encoder": ratio(middle[OURS], middle[ENCODER]),
            "floor_per_encoder": ratio(floor, middle[ENCODER]),
            **peers,
        },
        "rounds_seconds": rounds,
    }


_LOCAL = (ENCODER, ADAM, OURS)


def print_cases(cases: Sequence[dict[str, Any]], peers: Sequence[str]) -> None:
    header = ["architecture", "L0", "dead", "route", "encoder ms", "ours ms", "step/enc", "floor/enc"]
    rows = []
    for case in cases:
        times, ratios = case["milliseconds"], case["ratios"]
        own = [case["architecture"], shown(case["l0"], 1), shown(case["dead_share"])]
        own += ["dense" if case["dense_route"] else "sparse", shown(times[ENCODER], 1), shown(times[OURS], 1)]
        own += [shown(ratios["step_per_encoder"]), shown(ratios["floor_per_encoder"])]
        rows.append(own + [cell for name in peers for cell in (shown(times.get(name), 1), _per_ours(ratios, name))])
    show("one training step", header + [cell for name in peers for cell in (f"{name} ms", f"{name}/ours")], rows)


def _per_ours(ratios: dict[str, float | None], name: str) -> str:
    return shown(ratios.get(f"{name}_per_ours"))


def print_reasons(cases: Sequence[dict[str, Any]], missing: dict[str, str]) -> None:
    """Why there is no number where there is none."""
    for name, reason in missing.items():
        print(f"{name} was not measured: {reason}")
    for name, reason in dict.fromkeys(pair for case in cases for pair in case["not_measured"].items()):
        without = dict.fromkeys(case["architecture"] for case in cases if case["not_measured"].get(name) == reason)
        print(f"{name} was not measured for {', '.join(without)}: {reason}")


@contextmanager
def open_workers(peers: Sequence[Environment]) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
    """The peers' processes, and why others have none."""
    workers, missing = {}, {}
    with ExitStack() as stack:
        for peer in peers:
            try:
                workers[peer.name] = Worker(peer)
            except Unavailable as reason:
                missing[peer.name] = str(reason)
            else:
                stack.callback(workers[peer.name].close)
        yield workers, missing


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    first, _, rest = (__doc__ or "").partition("\n\n")
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=first, epilog=rest, formatter_class=plain)
    parser.add_argument("--d", type=int, default=512, help="numbers per activation (%(default)s)")
    parser.add_argument("--width", type=int, default=4096, help="latents (%(default)s)")
    parser.add_argument("--batch", type=int, default=4096, help="tokens per step (%(default)s)")
    parser.add_argument("--warm", type=int, default=600, help="training steps before timing (%(default)s)")
    parser.add_argument("--high-warm", type=int, default=200, help="the same at --high-l0 (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="times that each subject is timed (%(default)s)")
    parser.add_argument("--blocks", type=int, default=8, help="synthetic blocks of 4 batches (%(default)s)")
    parser.add_argument("--lr", type=float, default=3e-3, help="of our training (%(default)s)")
    parser.add_argument("--l0", type=float, default=32, help="L0 to train to (%(default)s)")
    parser.add_argument("--high-l0", type=float, default=200, help="L0 of the second set (%(default)s)")
    parser.add_argument("--dead-share", type=float, default=0.25, help="of latents with AuxK at work (%(default)s)")
    parser.add_argument("--only", default=",".join(ARCHITECTURES), help="architectures, with commas (all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--threads", type=int, help="of torch, here and in the peers (torch's own choice)")
    without = "our step as on a CPU without bfloat16 products"
    parser.add_argument("--without-bfloat16", action="store_true", help=without)
    parser.add_argument("--no-peers", action="store_true", help="time our step alone")
    parser.add_argument("--install-peers", action="store_true", help="make the environments that peers lack")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--out", type=Path, help="write everything here too, as JSON, beside what it holds of others")
    found = parser.parse_args(arguments)
    found.only = found.only.split(",")
    unknown = sorted(set(found.only) - set(ARCHITECTURES))
    if unknown:
        parser.error(f"--only: no {', '.join(unknown)} among {', '.join(ARCHITECTURES)}")
    if found.quick:
        found.d, found.width, found.batch, found.warm, found.rounds, found.blocks = 32, 128, 128, 20, 2, 1
        found.high_warm, found.l0, found.high_l0 = 20, 8, 24
    try:
        found.results = Results("step", found.out)
    except ValueError as error:
        parser.error(f"--out: {error}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    process.tune()  # as cli.main does, but here torch is imported before that
    asked = parsed(arguments)
    if asked.without_bfloat16:
        screening.multiplies_bfloat16 = cache(lambda: False)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    device = torch.device(asked.device)
    size = Size(asked.d, asked.width, asked.batch, asked.warm, asked.rounds, asked.blocks, asked.lr, device)
    peers = [] if asked.no_peers else PEERS
    refused = install_missing(peers) if asked.install_peers else {}
    cases: list[dict[str, Any]] = []
    with open_workers(peers) as (workers, missing):
        missing |= refused
        for architecture in ARCHITECTURES:
            if architecture not in asked.only:
                continue
            own: list[dict[str, Any]] = []
            for training in trainings(architecture, asked):
                print(f"training {architecture} to L0 {training.l0:g}", file=sys.stderr)
                own += measure(training, size, workers)
            entry = {
                "machine": machine(device),
                "settings": {**asdict(size), "device": str(device)},
                "peers": {name: worker.facts for name, worker in workers.items()},
                "cases": own,
                "not_measured": missing,
            }
            asked.results.add(architecture, entry)
            cases += own
    print_cases(cases, [peer.name for peer in peers if peer.name not in missing])
    print_reasons(cases, missing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
