"""A job's config is what Hydra's merge gives, whichever way it is made."""

from collections.abc import Iterator

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from sae_sweep.config.files import config_folder
from sae_sweep.errors import ConfigError
from sae_sweep.launch.hydra.composition import compose_jobs


@pytest.fixture(scope="module")
def hydra() -> Iterator[tuple[ConfigLoader, DictConfig]]:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        master = compose("config", return_hydra_config=True)
        yield GlobalHydra.instance().config_loader(), master


PLAIN = (
    ("sae=topk", "sae.k=8", "training.lr=1e-3", "seed=3"),
    ("sae=gated", "sae.width=null", "training.milestones=[100,200]", "name='a b'"),
    ("data.path=[a.txt,'b c.txt']", "data.block_rows=7", "tracking.tags=[]"),
)
MERGED = (
    ("data.filter={lang: en}", "sae.l0=4"),
    ("name=${sae.architecture}", "sae=topk"),
    ("data=toy", "data.toy={dimensions: 12}", "site.layer=null", "model.path=null"),
)


@pytest.mark.parametrize("job", PLAIN + MERGED)
def test_a_job_is_what_hydra_composes(hydra: tuple[ConfigLoader, DictConfig], job: tuple[str, ...]) -> None:
    expected = compose("config", list(job))
    (found,) = compose_jobs(*hydra, [job])
    assert isinstance(found, dict) == (job in PLAIN)
    plain = OmegaConf.to_container(found, resolve=True) if isinstance(found, DictConfig) else found
    assert plain == OmegaConf.to_container(expected, resolve=True)


def test_copies_share_nothing(hydra: tuple[ConfigLoader, DictConfig]) -> None:
    first, second = compose_jobs(*hydra, [["seed=1"], ["seed=2"]])
    assert (first["seed"], second["seed"]) == (1, 2)
    assert first["training"] is not second["training"]


@pytest.mark.parametrize("key", ["sae.nope", "nope", "sae.l0.nope", "training.nope.more"])
def test_a_key_that_is_not_there(hydra: tuple[ConfigLoader, DictConfig], key: str) -> None:
    with pytest.raises(ConfigError, match=key.partition(".")[0]):
        compose_jobs(*hydra, [[f"{key}=3"]])
