"""Members of every kind on the fake device, and steps of them."""

from collections import Counter
from typing import Any

from scripts.bench.fake.device import fake_cuda
from scripts.bench.fake.log import Log
from scripts.bench.fake.trainers import block, member, trainer
from tests.training.fabricate import SAE, TOPK_KINDS

D, WIDTH, BATCH = 8, 64, 32
K: dict[str, Any] = {"sae_k": 4, "sae_auxk": 4, "sae_dead_after_tokens": 96}
L1: dict[str, Any] = {"sae_l1": 0.1}
JUMP: dict[str, Any] = {"sae_l0_coefficient": 1e-2, "sae_threshold_init": 0.1}
KNOBS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(SAE, L1),
    **dict.fromkeys(TOPK_KINDS, K),
    **dict.fromkeys(("jumprelu", "jumprelu_anthropic", "jumprelu_gemma_scope_2"), JUMP),
    "jumprelu_target_l0": {"sae_l0": 4.0, "sae_threshold_init": 0.1},
    "jumprelu_frequency": {**JUMP, "sae_penalty": "frequency", "sae_frequency_scale": 0.1},
}
STEERED = tuple(kind for kind in KNOBS if "sae_k" not in KNOBS[kind] and kind != "jumprelu_target_l0")


def knobs(kind: str, *, l0: bool) -> dict[str, Any]:
    """Those of a member with a coefficient, or with an L0 to reach."""
    if not l0:
        return KNOBS[kind]
    kept = {key: value for key, value in KNOBS[kind].items() if key not in ("sae_l1", "sae_l0_coefficient")}
    return {**kept, "sae_l0": 4.0}


def steps(kind: str, count: int = 3, members: int = 1, dead: int = 0, l0: bool = False, **keys: Any) -> list[Log]:
    """Notes of each of the first steps: the first is dense and looked at, those after it are plain. `dead` latents are
    dead from then on."""
    found: list[Any] = []
    said = {"training/step/trainer:_look_at": dead}
    with fake_cuda(item=said.get) as log:
        own = {"sae_width": WIDTH, "training_batch_size": BATCH, "training_tokens": BATCH * 4000.0}
        own["sae_b_dec_init"] = "zero"  # a median takes longer than the steps
        plans = [
            member(D, SAE[kind], f"{kind}{i}", seed=i, **own, **knobs(kind, l0=l0), **keys) for i in range(members)
        ]
        made = trainer(plans)
        log.clear()

        def after() -> None:
            found.append((Counter(log.waits), Counter(log.atomics), list(log.ops), log.peak))
            log.clear()

        made.consume(block(D, BATCH * count), after)
        assert all(one.step == count and not one.dense for one in made.members)
    return found
