"""`sae-sweep export DIR|MEMBER --push hub:USER/REPO [--dtype T] [dry_run=true]`: members on the hub, with their card.

Each member is a folder of its name, in SAELens's layout, with its metrics.json and provenance.json.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from sae_sweep.config.command_line import one_option, split_options
from sae_sweep.errors import ConfigError, one_line
from sae_sweep.folder import names
from sae_sweep.interop.command.hub import HUB
from sae_sweep.plan.sizes import bytes_text
from sae_sweep.reporting.card import PICTURE, card
from sae_sweep.reporting.pareto import cells
from sae_sweep.reporting.picture import picture
from sae_sweep.reporting.points import Point, read_sweep

DRY = ("dry_run=true", "dry_run=True")
BESIDE = (names.METRICS, names.PROVENANCE, names.CONFIG)


def push(arguments: Sequence[str]) -> None:
    """Do what the command line says; a dry run prints the card and the files, and uses no network. ConfigError."""
    dry = any(word in DRY for word in arguments)
    words, options = split_options("export", [w for w in arguments if w not in DRY], ("push", "format", "dtype"))
    place = one_option("export", options, "push")
    repository = place.removeprefix(HUB)
    if (
        len(words) != 1
        or not place.startswith(HUB)
        or len(repository.split("/")) != 2
        or not all(repository.split("/"))
    ):
        raise ConfigError("export: give one folder, of a sweep or a member, and --push hub:USER/REPO")
    if one_option("export", options, "format", "saelens") != "saelens":
        raise ConfigError("export: --push takes --format saelens alone, which SAE.from_pretrained loads")
    sweep, points = _points(Path(words[0]).expanduser())
    with TemporaryDirectory() as made:
        folder = Path(made)
        _fill(folder, sweep, points, repository, one_option("export", options, "dtype", "float32"))
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                print(f"{file.relative_to(folder)!s:<64} {bytes_text(file.stat().st_size)}")
        if dry:
            print((folder / "README.md").read_text(encoding="utf-8"))
            return
        _upload(folder, repository)
    print(f"sae-sweep: {len(points)} members are at https://huggingface.co/{repository}")


def _points(folder: Path) -> tuple[Path, list[Point]]:
    """The sweep, and its finished members: all, or the one whose folder it is."""
    root = folder if (folder / names.SWEEP).is_file() else folder.absolute().parent
    if not (root / names.SWEEP).is_file():
        raise ConfigError(f"export: {folder} is neither a sweep nor a member of one; --push takes those alone")
    found = [point for point in read_sweep(root).points if not point["member"].startswith(f"{names.FOREIGN}/")]
    if root != folder:
        found = [point for point in found if point["member"] == folder.absolute().name]
    if not found:
        raise ConfigError(f"export: {folder} has no finished member; the command that trains it goes on with it")
    return root, found


def _fill(folder: Path, sweep: Path, points: Sequence[Point], repository: str, dtype: str) -> None:
    from sae_sweep.interop.command.export import DTYPES, export_sae, writer  # brings in torch

    if dtype not in DTYPES:
        raise ConfigError(f"export: --dtype={dtype} is not one of {', '.join(DTYPES)}")
    for point in points:
        member = sweep / point["member"]
        export_sae(member, writer("saelens"), folder / point["member"], DTYPES[dtype])
        for name in BESIDE:
            if (member / name).is_file():
                shutil.copyfile(member / name, folder / point["member"] / name)
    (folder / "README.md").write_text(card(repository, points, sweep), encoding="utf-8")
    (folder / PICTURE).write_text(picture(cells(points)[0]), encoding="utf-8")


def _upload(folder: Path, repository: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repository, commit_message="Add sparse autoencoders")
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        why = one_line(error)
        raise ConfigError(f"export: --push={HUB}{repository}: {why}; `hf auth login` first, or dry_run=true") from error
