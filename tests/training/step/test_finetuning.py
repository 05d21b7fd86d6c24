"""Members that begin from a finished one: what they begin as, what they are called, and what they cannot begin from."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_sweep.errors import ConfigError
from sae_sweep.interop import load_sae, saelens
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.plan.members import Member, member_identity
from sae_sweep.training.run.opening import open_group
from tests.saes.kinds import BATCH_KINDS
from tests.training.fabricate import KINDS, SITE, activations, member, others_as_evidence, train, trainer
from tests.training.run.test_end_to_end import KL_MSE, TOPK, config, group_of, run, shared  # noqa: F401
from tests.training.run.test_end_to_end import train as train_group

TABLES: list[dict[str, Any]] = [
    {},
    {"sae_input_scale": "unit", "sae_centre": True},
    {"sae_input_scale": "sqrt_d", "sae_lookup": "learned"},
    {"sae_lookup": "frozen", "sae_centre": True},
]


def finished(made: Any, folder: Path) -> Path:
    """The first member of a trainer, saved."""
    folder.mkdir(parents=True)
    saelens.write(folder, made.members[0].inference(), {"hook_name": SITE.hook}, torch.ones(made.members[0].plan.width))
    (folder / "metrics.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("kind", "keys"),
    others_as_evidence([*zip(KINDS, cycle(TABLES)), *product(("gated", "jumprelu"), TABLES[1:3])]),
)
def test_it_begins_as_what_was_saved(kind: str, keys: dict[str, Any], tmp_path: Path) -> None:
    """Scale, centre and decoder norms are folded in and taken out again; what is learned on the way is kept."""
    source = member(kind, sae_l0=3.0, training_lr=1e-2, **keys)
    folder = finished(train([source]), tmp_path / "source")
    saved = load_sae(folder)
    begun = trainer([replace(source, config=replace(source.config, init_from=str(folder)))])
    again = begun.members[0].inference()
    assert again.form == saved.form
    x_BD = activations(200, 7).double()
    tokens_B = torch.arange(200) % 12
    for name, tensor in saved.tensors.items():
        if name != "threshold" or kind.startswith("jumprelu"):  # of a batch of k: a running mean begins anew
            torch.testing.assert_close(again.tensors[name].float(), tensor, rtol=1e-4, atol=1e-5)
    if kind not in (*BATCH_KINDS, "temporal"):
        double = replace(saved, tensors={name: t.double() for name, t in saved.tensors.items()})
        if saved.lookup is not None:
            double = replace(double, lookup=replace(saved.lookup, rows_VD=saved.lookup.rows_VD.double()))
        f_BF = double.encode(x_BD, tokens_B)
        close = torch.isclose(again.encode(x_BD, tokens_B), f_BF, rtol=1e-3, atol=1e-4)
        assert close.double().mean() > 0.999  # but for what is at its threshold
        assert f_BF.count_nonzero() > 0


def test_its_schedule_does_not_begin_anew() -> None:
    plain = member("april", sae_l0=3.0, training_tokens=16_000.0)
    assert plain.schedule.sparsity_warmup_steps > 0
    assert plain.schedule.resample_steps
    begun = member("april", sae_l0=3.0, training_tokens=16_000.0, init_from="anywhere").schedule
    assert (begun.sparsity_warmup_steps, begun.resample_steps) == (0, ())
    assert begun.lr_warmup_steps == plain.schedule.lr_warmup_steps
    assert member("april", init_from="anywhere", training_sparsity_warmup_steps=5).schedule.sparsity_warmup_steps == 5


@pytest.fixture(scope="module")
def source(shared: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A finished member of a sweep."""
    place = tmp_path_factory.mktemp("finished")
    return run([config([*shared, f"output_dir={place}", "name=source"], *TOPK)])[0].folder


def begun(shared: Sequence[str], folder: Path, *own: str) -> Member:  # noqa: F811
    (planned,) = plan_sweep([config(shared, *TOPK, KL_MSE, f"init_from={folder}", *own)]).members
    return planned


def test_a_finetuned_member_is_one_of_its_own(shared: list[str], source: Path, tmp_path: Path) -> None:  # noqa: F811
    """Its identity is of the weights, not of where they lie."""
    first = begun(shared, source)
    assert first.label == "topk-k_5-w40-kl_mse-finetuned"
    moved = shutil.copytree(source, tmp_path / "elsewhere")
    assert begun(shared, moved).identity == first.identity
    weights = load_sae(moved)
    changed = {**weights.tensors, "b_dec": weights.tensors["b_dec"] + 1e-3}
    card = json.loads((moved / "cfg.json").read_text())["metadata"]
    saelens.write(moved, replace(weights, tensors=changed), card, torch.ones(40))
    assert begun(shared, moved).identity != first.identity
    assert member_identity(config(shared, *TOPK, KL_MSE)) != first.identity


def test_a_finetuned_member_trains_and_is_saved(shared: list[str], source: Path, tmp_path: Path) -> None:  # noqa: F811
    """From the source's weights: after one step with almost no lr they are still those."""
    own = [*shared, f"output_dir={tmp_path}", "name=tuned", "training.tokens=64", "training.lr=1e-9"]
    (still,) = run([config(own, *TOPK, KL_MSE, f"init_from={source}")])
    before, after = load_sae(source), load_sae(still.folder)
    for name, tensor in before.tensors.items():
        torch.testing.assert_close(after.tensors[name], tensor, rtol=1e-5, atol=1e-6)
    (moved,) = run([config([*shared, f"output_dir={tmp_path}", "name=moved"], *TOPK, KL_MSE, f"init_from={source}")])
    assert not torch.allclose(load_sae(moved.folder).tensors["W_dec"], before.tensors["W_dec"], atol=1e-3)
    card = json.loads((moved.folder / "cfg.json").read_text())["metadata"]
    assert card["training_objective"] == "kl_mse"
    cells = json.loads((tmp_path / "moved" / "pareto.json").read_text())["cells"]
    assert cells[0]["points"][0]["architecture"] == "topk kl_mse finetuned"


def test_a_steered_coefficient_goes_on(shared: list[str], tmp_path: Path) -> None:  # noqa: F811
    gated = ("sae=gated", "sae.l0=6")
    (outcome,) = run([config([*shared, f"output_dir={tmp_path}"], *gated)])
    assert outcome.metrics is not None
    opened = open_group(group_of(shared, [*gated, KL_MSE, f"init_from={outcome.folder}"]))
    (trainer_,) = opened._waves.trainers
    coefficients = trainer_.trained.coefficients
    assert coefficients.value_M.item() == pytest.approx(outcome.metrics["coefficient_final"], rel=1e-12)
    train_group(opened)
    assert coefficients.value_M.item() != pytest.approx(outcome.metrics["coefficient_final"], rel=1e-6)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (["sae.width=48"], r"has width 40, and this member 48"),
        (["site.layer=2"], r"has site blocks\.1\.hook_resid_post, and this member blocks\.2"),
        (["sae=batchtopk"], r"has sae topk, and this member batchtopk"),
        (["sae.lookup=learned"], r"has sae topk, and this member topk_tokenized"),
        (["init_from=nowhere"], r"init_from=nowhere holds no finished member \(sae_weights.safetensors: No such file"),
    ],
)
def test_what_it_cannot_begin_from(shared: list[str], source: Path, own: list[str], said: str) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match=said):
        begun(shared, source, *own)


def test_no_autoencoder_begins_from_a_transcoder(shared: list[str], source: Path, tmp_path: Path) -> None:  # noqa: F811
    """That reads where it does, and is of its size."""
    folder = shutil.copytree(source, tmp_path / "transcoder")
    card = json.loads((folder / "cfg.json").read_text())
    card["metadata"]["hook_name_out"] = "blocks.1.hook_mlp_out"
    (folder / "cfg.json").write_text(json.dumps(card))
    with pytest.raises(ConfigError, match=r"has output blocks\.1\.hook_mlp_out, and this member None"):
        begun(shared, folder)


def test_damage(shared: list[str], source: Path, tmp_path: Path) -> None:  # noqa: F811
    source = shutil.copytree(source, tmp_path / "damaged")
    weights = source / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ConfigError, match=r"init_from=.* is damaged"):
        open_group(group_of(shared, [*TOPK, f"init_from={source}"]))
    (source / "cfg.json").write_text("{")
    with pytest.raises(ConfigError, match=r"cfg\.json is not valid JSON"):
        begun(shared, source)
