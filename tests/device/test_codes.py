"""Codes that products of 16 bits choose, against those of float32, on activations of the model that ships."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.config.files import config_of
from sae_sweep.kernels.entries import Room
from sae_sweep.model.harvest import harvest
from sae_sweep.model.load import load_model
from sae_sweep.saes import base
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.encoders.dense import DenseEncoder
from sae_sweep.saes.encoders.halved import HalvedEncoder
from sae_sweep.saes.encoders.whole import WholeEncoder
from scripts.bench.fake.trainers import SITE, member, trainer
from tests.device.kinds import KNOBS, knobs
from tests.device.padded import padded
from tests.training.fabricate import SAE

BATCH, WIDTH, STEPS = 256, 512, 3
BOUNDARY = 1e-5
"""Of the largest code: nearer to where it is chosen an entry may be counted or not, by the order of a sum."""
KINDS = [kind for kind in KNOBS if kind not in ("temporal", "hierarchical_topk")]  # those need more than entries


@pytest.fixture(scope="module")
def block() -> Block:
    model = load_model(config_of([]).model)
    text = (torch.__doc__ or "") + Block.__doc__ * 40
    tokens_T = torch.tensor(model.tokenizer(text)["input_ids"][:1024])
    hook = "blocks.2.hook_resid_post"
    with torch.no_grad():
        x_BD = harvest(model, tokens_T.view(16, -1), [hook])[hook].flatten(0, 1).float()
    return Block(0, 0, {SITE.hook: x_BD}, {SITE.hook: torch.zeros(len(x_BD), dtype=torch.int64)})


class Both:
    """Makes each choice in both ways, and notes the entries that one of them alone has."""

    def __init__(self, of: tuple[Any, ...], room: Room, half: torch.dtype, found: list[Tensor]) -> None:
        def roomy() -> Room:
            return Room(room.entries, torch.tensor(False), half)

        self._whole, self._halved = WholeEncoder(*of, roomy()), HalvedEncoder(*of, roomy())
        self.tokens, self._found = self._whole.tokens, found

    def __getattr__(self, name: str) -> Callable[..., tuple[Codes, Tensor]]:
        def chosen(*arguments: Any) -> tuple[Codes, Tensor]:
            whole, halved = getattr(self._whole, name)(*arguments), getattr(self._halved, name)(*arguments)
            differences = self._matrix(*whole) - self._matrix(*halved)
            self._found.append(differences.abs() / whole[1].abs().amax())
            return whole

        return chosen

    def _matrix(self, codes: Any, z: Tensor) -> Tensor:
        dense = z.new_zeros(self.tokens, codes.layout.latents)
        real = int(codes.token_offsets[-1])
        at = codes.token_N[:real].long(), codes.latent_N[:real].long()
        return dense.index_put(at, z.detach()[:real].clamp(min=0) + 1)  # 1 more: that it is chosen


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_those_of_float32(kind: str, block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    padded(monkeypatch)
    for half in (torch.float16, torch.bfloat16):
        d = block.activations[SITE.hook].shape[1]
        own = {"sae_width": WIDTH, "training_batch_size": BATCH, "training_tokens": BATCH * 4000.0}
        made = trainer([member(d, SAE[kind], kind, **own, **knobs(kind, l0=False))], device=torch.device("cpu"))
        made._rooms.asked, found = False, list[Tensor]()

        def encoder(*given: Any, half: torch.dtype = half, found: list[Tensor] = found) -> Any:
            *of, dense, room = given
            return DenseEncoder(*of) if dense else Both(tuple(of), room, half, found)

        monkeypatch.setattr(base, "encoder_of", encoder)
        made.consume(Block(0, 0, {SITE.hook: block.activations[SITE.hook][:BATCH]}, block.tokens), lambda: None)
        made.members[0].dense, made.members[0].entries = False, BATCH * WIDTH
        rest = {SITE.hook: block.activations[SITE.hook][BATCH:]}
        made.consume(Block(1, 0, rest, block.tokens), lambda: None)
        assert len(found) == STEPS
        apart = sum(int((each > BOUNDARY).sum()) for each in found)
        assert apart <= 2, "but for those within rounding of a boundary"
