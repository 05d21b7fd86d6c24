"""Every experiment that ships: planned without a network, run small on a tiny model of its class, and, where it is a
paper's, its resolved recipe beside what the paper says."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from omegaconf import OmegaConf
from transformers import Gemma2Config, Gemma3TextConfig, GPTNeoConfig, Qwen3Config

from sae_sweep.cli import main
from sae_sweep.config.files import config_folder, config_of
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.plan.members import Member

FOLDER = config_folder() / "experiment"
EXPERIMENTS = sorted(file.stem for file in FOLDER.glob("*.yaml"))
ON_WHAT_SHIPS = (
    *(
        "architectures",
        "asked",
        "clt",
        "controls",
        "demo",
        "e2e",
        "e2e_finetune",
        "measured",
        "quickstart",
        "recipes_of_now",
    ),
    *("tokenized", "toy", "toy_hierarchy", "toy_recovery", "transcoders"),
)
"""On data of their own, toy or the demo model's."""
ON_MODELS = [name for name in EXPERIMENTS if name not in (*ON_WHAT_SHIPS, "search")]
"""A search is run by its own tests."""
MEMBERS = {"gated_gemma": 13, "gated_gemma_l0": 13, "demo": 20, "toy_recovery": 25}
"""How many some have."""
PLAN_SECONDS = 3
"""Of a core, at most: the best of three, since what else the machine does makes a core slower."""
QUICK = ("gated_pythia", "gemma3_1b", "quickstart")
"""Every time; the others are evidence."""


def some_quick(names: Iterable[str]) -> list[Any]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.evidence) for name in names]


@pytest.fixture(scope="module")
def folders(
    build_model: Callable[..., Path], gpt2_folder: Path, neox_folder: Path, llama_folder: Path, gemma_folder: Path
) -> dict[str, Path]:
    """A tiny model of each class, by the beginning of the names of those that experiments are of."""
    heads = {"num_key_value_heads": 1, "head_dim": 16}
    return {
        "gpt2": gpt2_folder,
        "pythia": neox_folder,
        "llama": llama_folder,
        "smollm2": llama_folder,
        "gemma-7b": gemma_folder,
        "gemma-2": build_model("gemma2", Gemma2Config, **heads),
        "gemma-3": build_model("gemma3", Gemma3TextConfig, **heads),
        "qwen3": build_model("qwen3", Qwen3Config, **heads),
        "tinystories": build_model(
            "neo", GPTNeoConfig, num_layers=4, attention_types=[[["global", "local"], 2]], num_heads=4
        ),
    }


def model_of(experiment: str) -> str:
    text = (FOLDER / f"{experiment}.yaml").read_text(encoding="utf-8")
    found = re.search(r"override /model: (\S+)", text)
    return found[1] if found else "gemma-7b"  # of one that begins as gated_gemma does


def small(experiment: str) -> list[str]:
    """Overrides that make seconds of it: what its grids list is replaced in them."""
    text = (FOLDER / f"{experiment}.yaml").read_text(encoding="utf-8")
    toy, by_l0, by_k = "/data: toy" in text, "l0:" in text, re.search(r"\bk:|sae\.k:", text) is not None
    settings = {
        "sae.width": "32,64" if experiment == "widths" else "64" if "width:" in text else None,
        "sae.expansion": "2" if "expansion:" in text else None,
        "sae.l0": "4" if by_l0 and not by_k else None,
        "sae.k": "4" if by_k and not by_l0 else None,
        "site.layer": None if toy or "site: clt" in text else "1,2" if "range(" in text else "1",
        "seed": "0,1" if "seed:" in text else None,
        "training.lr": "1e-3,null" if experiment == "lr_width" else None,
        "data.chat": "false" if "chat: true" in text else None,
    }
    rows = () if toy else ("data.context=16", "data.block_rows=32", "data.rows_per_forward=16")
    budget = (
        *(*rows, "training.tokens=1024"),
        *("training.batch_size=64", "evaluation.tokens=160", "tracking=none", "model.device=cpu"),
        *("launcher.devices=1", "launcher.hosts=1", "launcher.memory_gb=null"),
    )
    return [*(f"{key}={value}" for key, value in settings.items() if value is not None), *budget]


def planned(experiment: str, outputs: Path) -> float:
    """Seconds of a core."""
    more = {"e2e_finetune": ["init_from=null"]}.get(experiment, [])
    begun = process_time()
    assert main([f"+experiment={experiment}", *more, "dry_run=true", f"output_dir={outputs}"]) == 0
    return process_time() - begun


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_it_plans_without_a_network(experiment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned(experiment, tmp_path)
    found = re.search(rf"{experiment}: (\d+) members? in \d+ group", capsys.readouterr().out)
    assert found
    assert int(found[1]) == MEMBERS.get(experiment, int(found[1]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.evidence
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_it_plans_within_seconds(experiment: str, tmp_path: Path) -> None:
    """The least of three: others on the machine make it longer."""
    assert min(planned(experiment, tmp_path) for _ in range(3)) < PLAN_SECONDS


@pytest.mark.parametrize("experiment", some_quick(ON_MODELS))
def test_it_runs_on_a_tiny_model_of_its_class(
    experiment: str, folders: dict[str, Path], text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = next(path for name, path in folders.items() if model_of(experiment).startswith(name))
    data = ["data=text", f"data.path={text_file}", "data.name=null", f"model.path={folder}", f"output_dir={tmp_path}"]
    if re.search(r"^  models:", (FOLDER / f"{experiment}.yaml").read_text(encoding="utf-8"), re.MULTILINE):
        data.append(f"site.models=[{folder},{folder}]")
    code = main([f"+experiment={experiment}", *data, *small(experiment)])
    assert code == 0, capsys.readouterr()
    assert len(list((tmp_path / experiment).glob("*/metrics.json"))) >= 2


@pytest.mark.parametrize("experiment", some_quick(ON_WHAT_SHIPS))
def test_it_runs_on_what_ships(experiment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = "e2e" if experiment == "e2e_finetune" else experiment
    words = [f"output_dir={tmp_path}", *small(before)]
    if before != experiment:
        assert main([f"+experiment={before}", *words]) == 0, capsys.readouterr()
        words.append(f"init_from={tmp_path / before / 'topk-k_4-x2'}")
    assert main([f"+experiment={experiment}", *words]) == 0, capsys.readouterr()
    assert len(list((tmp_path / experiment).glob("*/metrics.json"))) >= 2


def members(experiment: str) -> list[Member]:
    """The members of its grids, as they are planned."""
    return [
        member
        for group in plan_sweep([config_of(one) for one in grid(experiment)]).groups
        for bank in group.banks
        for member in bank.members
    ]


def grid(experiment: str) -> list[list[str]]:
    """The overrides of each of its members."""
    entries: Any = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{experiment}.yaml"))
    chosen = [f"{key.removeprefix('override /')}={value}" for one in entries["defaults"] for key, value in one.items()]
    shared = [
        f"{group}.{key}={'null' if value is None else value}"
        for group in ("site", "data", "sae", "training", "evaluation")
        for key, value in entries.get(group, {}).items()
    ]
    found: list[list[str]] = []
    for each in entries["hydra"]["sweeper"]["grids"]:
        jobs: list[list[str]] = [[]]
        for key, values in each.items():
            options = values if isinstance(values, list) else [values]
            jobs = [[*job, f"{key}={option}"] for job in jobs for option in options]
        found += [[*chosen, *(word for word in job if word.startswith("sae=")), *shared, *job] for job in jobs]
    return found


PAPERS: dict[str, dict[str, Any]] = {
    # arXiv 2404.16014, section 5 and appendix D
    "gated_pythia": {
        "lr": {3e-4, 1e-3},
        "beta1": {0.0},
        "beta2": {0.999},
        "total_steps": {400_390},
        "lr_warmup_steps": {1000},
        "resample_steps": {(25_000, 50_000, 75_000, 100_000)},
        "batch": {4096},
        "context": {2048},
        "width": {32768, 49152},
    },
    # arXiv 2408.05147, section 3
    "gemma_scope": {
        "lr": {7e-5},
        "beta1": {0.0},
        "beta2": {0.999},
        "eps": {1e-8},
        "lr_warmup_steps": {1000},
        "batch": {4096},
        "sparsity_warmup_steps": {10_000},
        "context": {1024},
        "width": {16384},
        "resample_steps": {()},
    },
    # arXiv 2412.06410, section 4
    "batchtopk_gpt2": {
        "lr": {3e-4},
        "beta1": {0.9},
        "beta2": {0.99},
        "batch": {4096},
        "context": {128},
        "total_steps": {244_140},
        "width": {3072, 6144, 12288, 24576},
    },
    # arXiv 2503.17547, section 4.3 and appendix A
    "matryoshka_gemma2": {
        "lr": {3e-4},
        "beta2": {0.999},
        "clip": {1.0},
        "lr_decay_steps": {48_828},
        "batch": {2048},
        "width": {65536},
        "context": {1024},
        "total_steps": {244_140},
    },
    # arXiv 2503.09532, appendix
    "saebench_pythia": {"lr": {3e-4}, "batch": {2048}, "context": {1024}, "lr_decay_steps": {48_828}},
    # arXiv 2502.17332 and its code
    "tokenized_gpt2": {"lr": {1e-4}, "batch": {4096}, "context": {256}, "width": {12288}, "lr_schedule": {"cosine"}},
    # arXiv 2504.02922, section 3 and appendix
    "crosscoder_chat": {"lr": {1e-4}, "batch": {2048}, "context": {1024}, "width": {73728}},
    # arXiv 2405.12241, appendix
    "e2e_gpt2": {"lr": {5e-4}, "clip": {10.0}, "batch": {16384}, "context": {1024}, "width": {46080}},
}


@pytest.mark.parametrize("experiment", PAPERS)
def test_a_papers_recipe_is_what_the_paper_says(experiment: str) -> None:
    found: dict[str, set[Any]] = {}
    for member in members(experiment):
        own = {"batch": member.config.training.batch_size, "context": member.config.data.context, "width": member.width}
        for key in PAPERS[experiment]:
            found.setdefault(key, set()).add(own.get(key, getattr(member.schedule, key, None)))
    assert found == PAPERS[experiment]
