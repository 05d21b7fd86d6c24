"""How far outputs come on a way, by hand; and on ways between activations, by plain hooks in float64."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae_sweep.analyses.paths.curves import Curve
from sae_sweep.analyses.plateaus import Config, run, ways_of
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from tests.analyses.plain import PlainModel, in_float64

LABEL = "topk-l0_3-w24-L1-s0"


def test_curves_by_hand() -> None:
    """The first output moves at once after half the way, the second as its input does, the third nowhere."""
    made = [torch.tensor([[0.0], [0.0], [5.0]]), torch.tensor([[0.0], [1.0], [7.0]])]
    made += [
        torch.tensor([[2.0], [2.0], [9.0]]),
        torch.tensor([[2.0], [3.0], [5.0]]),
        torch.tensor([[4.0], [4.0], [5.0]]),
    ]
    curve = Curve.of(made)
    assert curve.share_SN[:, 0].tolist() == [0, 0, 0.5, 0.5, 1]
    assert curve.share_SN[:, 1].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.moves_N.tolist() == [True, True, False]
    assert curve.reaches(0.1).tolist() == pytest.approx([0.25 + 0.25 * 0.2, 0.1, 1.0])
    assert curve.at(torch.tensor([0.375, 0.6, 1.0])).tolist() == pytest.approx([0.25, 0.6, 0])


def test_by_plain_hooks(trained: Path, llama_folder: Path) -> None:
    sae = in_float64(trained, LABEL)
    session, config = Session.of([sae]), Config(4, 0.2, 3)
    found = read({"a": run(session, [sae], config)}, session.streams.batches)["a"]
    plain = PlainModel(llama_folder, trained)
    x_RTD = plain.activation(1)
    ways = [ways_of(batch, LABEL, 3) for batch in session.streams.batches()]
    where_RT = torch.cat([each.where_RT for each in ways])
    assert (where_RT.sum(1) == 1).all()
    assert (where_RT & plain.counted_RT == where_RT).all()
    position_R = where_RT.int().argmax(1)
    assert (position_R[::2] == position_R[1::2]).all(), "the same in both rows"
    rows_R = torch.arange(len(where_RT))
    begin_RD, end_RD = x_RTD[where_RT], x_RTD[rows_R ^ 1, position_R]
    random_RD = torch.cat([each.along_ND["random_"] for each in ways])
    assert torch.allclose(random_RD.norm(dim=1), (end_RD - begin_RD).norm(dim=1))

    def hidden(x_ND: Tensor) -> tuple[Tensor, Tensor]:
        caught: list[Tensor] = []
        handle = plain.module.model.norm.register_forward_hook(lambda *each: caught.append(each[2][where_RT]))

        def change(own_RTD: Tensor, _: Tensor) -> Tensor:
            changed_RTD = own_RTD.clone()
            changed_RTD[where_RT] = x_ND
            return changed_RTD

        logits_ND = plain.logits(1, change)[where_RT]
        handle.remove()
        return caught[0], logits_ND.log_softmax(-1)

    control = []
    for along_RD in (end_RD - begin_RD, random_RD):
        steps = [begin_RD + step / 4 * along_RD for step in range(5)]
        finals, logs = zip(*map(hidden, steps), strict=True)
        share = torch.stack([(each - finals[0]).norm(dim=1) for each in finals]) / (finals[4] - finals[0]).norm(dim=1)
        own = [sae.sae.decode(sae.sae.encode(each)) for each in steps]
        moved = torch.stack([(each - own[0]).norm(dim=1) for each in own]) / (own[4] - own[0]).norm(dim=1)
        reach, at = [], []
        for curve, other in zip(share.T.tolist(), moved.T.nan_to_num(0).tolist(), strict=True):
            k = next(k for k, value in enumerate(curve) if value > 0.2)
            place = k - 1 + (0.2 - curve[k - 1]) / (curve[k] - curve[k - 1])
            reach.append(place / 4)
            at.append(other[int(place)] + (place - int(place)) * (other[int(place) + 1] - other[int(place)]))
        kl = (logs[0].exp() * (logs[0] - logs[2])).sum(1).mean().item()
        control.append((sum(reach) / len(reach), share[2].mean().item(), kl, sum(at) / sum(reach)))
    hook = "blocks.1.hook_resid_post"
    for place, name in enumerate(("plateau", "half_way", "kl_half_way")):
        number = found.numbers[f"{hook} {name}"]
        assert (number.value, number.control) == pytest.approx((control[0][place], control[1][place]), rel=1e-6)
        assert number.n == len(where_RT)
    number = found.members[LABEL]["moved"]
    assert (number.value, number.control) == pytest.approx((control[0][3], control[1][3]), rel=1e-6)
    assert number.standard_error is not None


def test_what_cannot_be_asked(trained: Path) -> None:
    sae = in_float64(trained, LABEL)
    for steps in (1, 5):
        with pytest.raises(
            ConfigError, match=r"analysis.plateaus: steps must be at least 2 and even, one of them half"
        ):
            next(run(Session.of([sae]), [sae], Config(steps, 0.1, 0)))
