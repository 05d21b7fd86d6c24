"""`sae-sweep eval PLACE ... [--into DIR] [site.layer=L] [evaluation.tokens=N] [data=...]`: SAEs judged together.

A PLACE is a member's folder, that of any SAE, or `hub:USER/REPO/FOLDER`. Members of one sweep are judged as `eval DIR`
judges all of it, and what comes of it is kept beside their metrics.json. With `--into DIR` SAEs become points of that
sweep. Others are judged on `data=...`, or on the held-out tokens of a member among them, and printed. Keys of `site`,
or `--hook`, say where they are, or where else they are to be judged.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from sae_sweep.analyses.session.judging import judge, shown_line
from sae_sweep.api.judging import evaluate
from sae_sweep.api.loading import load
from sae_sweep.config.command_line import one_option, split_options
from sae_sweep.errors import ConfigError
from sae_sweep.folder import names
from sae_sweep.host.terminal import tell
from sae_sweep.reporting.report import write_report


def judge_places(arguments: Sequence[str]) -> None:
    """Do what the command line says. Raises ConfigError."""
    words, options = split_options("eval", arguments, ("into", "hook", "tokens", "format"))
    places, asked = [word for word in words if "=" not in word], [word for word in words if "=" in word]
    given = [f"--{name}={value}" for name in options if name != "into" for value in options[name]]
    if "into" in options:
        root = Path(one_option("eval", options, "into")).expanduser()
        _check_sweep(root)
        if not places:
            raise ConfigError("eval: --into takes SAEs, as in `sae-sweep eval SAE ... --into DIR`")
        judge(root, [*(f"--sae={place}" for place in places), *given, *asked])
        write_report(root)
        return
    sweeps = {_sweep(place) for place in places}
    if len(sweeps) == 1 and (own := sweeps.pop()) is not None:
        judge(own, [*given, *asked], [Path(place).expanduser().absolute().name for place in places])
        return
    if "format" in options:
        raise ConfigError(
            "eval: --format is for members of a sweep; give --into DIR, the sweep that they are judged into"
        )
    if "tokens" in options:
        asked.append(f"evaluation.tokens={one_option('eval', options, 'tokens')}")
    if "hook" in options:
        asked.append(f"site.hook={one_option('eval', options, 'hook')}")
    found = evaluate([load(place) for place in places], data=asked)
    tell(found.attrs["data"], sys.stderr)
    for label, row in found.iterrows():
        print(shown_line(str(label), row.to_dict()))


def _sweep(place: str) -> Path | None:
    """The sweep whose member a folder is."""
    folder = Path(place).expanduser().absolute()
    return folder.parent if (folder / names.CONFIG).is_file() and (folder.parent / names.SWEEP).is_file() else None


def _check_sweep(root: Path) -> None:
    if not (root / names.SWEEP).is_file():
        raise ConfigError(f"eval: --into={root} has no {names.SWEEP}; give the folder of a sweep, like outputs/demo")
