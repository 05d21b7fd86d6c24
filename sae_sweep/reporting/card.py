"""The page that a repository of members shows on the hub: what they are, how good they are, and how to load them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sae_sweep import __version__
from sae_sweep.config.values import counted, number
from sae_sweep.evaluation.metrics import METRICS, TERMINAL
from sae_sweep.folder import names
from sae_sweep.host.json_files import read_object
from sae_sweep.reporting.cell import cell_title
from sae_sweep.reporting.pareto import cells
from sae_sweep.reporting.points import Point
from sae_sweep.reporting.table import columns, in_order

PICTURE = "frontier.svg"


def card(repository: str, points: Sequence[Point], folder: Path) -> str:
    """README.md, in Markdown, of a repository of these members of a sweep."""
    provenance = _provenance(folder / points[0]["member"])
    head = {
        "library_name": "saelens",
        "tags": ["sparse-autoencoder", "sae", "interpretability", "sae-sweep"],
        **_license(points[0]["cell"]["model"]),
    }
    parts = [f"---\n{OmegaConf.to_yaml(OmegaConf.create(head))}---\n# {repository.rpartition('/')[2]}\n"]
    parts.append(
        f"{counted(len(points), 'sparse autoencoder')}, trained and judged together by sae-sweep {__version__}.\n"
    )
    for cell in cells(points):
        parts += [f"## {cell_title(cell['key'])}\n", *_table(cell)]
    member = points[0]["member"]
    parts.append(f"![{_axis(points)} against L0]({PICTURE})\n\n## Load\n\n```python\nfrom sae_lens import SAE\n")
    parts.append(f'sae = SAE.from_pretrained("{repository}", "{member}")\n```\n\n```python\nimport sae_sweep as ss\n')
    parts.append(f'sae = ss.load("hub:{repository}/{member}")\n```\n')
    parts.append("They read raw activations; any scaling of training is in the weights.\n\n## How they were made\n")
    parts += [*_made(provenance), "\n## Metrics\n"]
    parts += [f"- **{metric.title}**: {metric.definition}" for metric in columns(cells(points), TERMINAL)]
    return "\n".join(parts) + "\n"


def _axis(points: Sequence[Point]) -> str:
    return METRICS[cells(points)[0]["fidelity"]].title


def _table(cell: Mapping[str, Any]) -> list[str]:
    metrics = columns([cell], TERMINAL)
    rows = [["member", *(m.title for m in metrics)], ["---"] * (1 + len(metrics))]
    rows += [[point["member"], *(m.text(point) for m in metrics)] for point in in_order(cell["points"])]
    return ["\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"]


def _made(provenance: Mapping[str, Any]) -> list[str]:
    if not provenance:
        return ["Their folder does not say; a version before this one trained them."]
    config, versions = provenance["config"], provenance["versions"]
    data = config["data"]["path"] or config["data"]["kind"]
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [
        f"```\n{provenance['command']}\n```\n",
        f"- Model: {config['model']['path'] or config['model']['name']}, in {config['model']['dtype']}",
        f"- Data: {data}, {number(config['training']['tokens'])} tokens in rows of {config['data']['context']}",
        f"- Versions: {told}",
        f"- Commit: {provenance['commit'] or 'of a release'}; each member's provenance.json has the rest",
    ]


def _provenance(folder: Path) -> dict[str, Any]:
    try:
        return read_object(folder / names.PROVENANCE)
    except (OSError, ValueError):
        return {}


def _license(models: str) -> dict[str, Any]:
    """The base model as the hub knows it, or all that members are of; and the licence that a local folder's README
    says."""
    model, *others = models.split(" + ")
    file = Path(model).expanduser() / "README.md"
    if not Path(model).expanduser().exists():
        named = [each for each in (model, *others) if "/" in each and not Path(each).expanduser().exists()]
        return {"base_model": named[0] if len(named) == 1 else named} if named else {}
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    stated = [line.partition(":")[2].strip() for line in lines[:40] if line.startswith("license:")]
    return {"license": stated[0]} if stated else {}
