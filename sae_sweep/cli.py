"""The command `sae-sweep`: one table of commands, and training where the command line names none of them."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from sae_sweep import __version__
from sae_sweep.config.command_line import one_option, split_options
from sae_sweep.errors import ConfigError
from sae_sweep.folder import names
from sae_sweep.host.rank_processes import role
from sae_sweep.launch.exits import exit_code

TRIMMED = "--with-trimmed"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (by default the process's own) and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return exit_code(lambda: _follow() if role().rank > 0 else _dispatch(arguments))


def _follow() -> None:
    """As a rank that torchrun or the command started: what is wrong is rank 0's to say, but that it is gone."""
    from sae_sweep.training.run.opening import follow  # brings in torch

    follow()


def _dispatch(arguments: Sequence[str]) -> None:
    """Call the command that the first word names; without any word that is `help`."""
    name, *rest = arguments or ["help"]
    if name in COMMANDS:
        if {"-h", "--help"} & set(rest):
            print(_usage([name]))
        else:
            COMMANDS[name].run(rest)
    elif name in ("-sc", "--shell-completion") and rest and rest[0].startswith("query="):
        _complete(arguments)
    elif "=" in name or name.startswith(("-", "~")):
        _train(arguments)
    else:
        near = get_close_matches(name, COMMANDS, n=1)
        guess = f"; did you mean {near[0]}?" if near else ""
        words = ", ".join(word for word in COMMANDS if not word.startswith("-"))
        raise ConfigError(f"{name}: neither a command ({words}) nor key=value{guess}")


def _complete(arguments: Sequence[str]) -> None:
    """Print what a shell may complete, a word a line."""
    from sae_sweep.launch.completion import asked, completions

    words, more = completions(asked(), {name: command.arguments for name, command in COMMANDS.items()})
    for word in words:
        print(word)
    if more:
        _train(arguments)


def _train(arguments: Sequence[str]) -> None:
    if sys.stderr.isatty() and not arguments[0].startswith("-"):  # the config takes a moment, and torch seconds
        print("sae-sweep: reading the config", file=sys.stderr, flush=True)
    from sae_sweep.config.files import config_folder
    from sae_sweep.launch.hydra.program import run  # brings in Hydra

    run(arguments, config_folder(), _usage(COMMANDS))


def _report(arguments: Sequence[str]) -> None:
    with_trimmed = TRIMMED in arguments
    words, options = split_options(
        "report", [word for word in arguments if word != TRIMMED], ("out", "published", "latents")
    )
    folders = [_sweep_folder("report", [word]) for word in words] or [_sweep_folder("report", words)]
    out = None
    if "out" in options or "published" in options:
        out = Path(one_option("report", options, "out")).expanduser()
        if not out.absolute().parent.is_dir():
            raise ConfigError(f"report: --out={out}: no such folder here")
    elif len(folders) > 1:
        raise ConfigError("report: several sweeps make a page of their own; give --out FILE.html")
    if "latents" in options:
        from sae_sweep.config.files import config_folder
        from sae_sweep.reporting.looking import look  # brings in torch

        for folder in folders:
            look(folder, one_option("report", options, "latents"), config_folder())
    from sae_sweep.reporting.report import write_overlay, write_report

    if out is None:
        write_report(folders[0], with_trimmed=with_trimmed)
    else:
        files = [Path(file).expanduser() for file in options.get("published", [])]
        write_overlay(folders, files, out, with_trimmed=with_trimmed)


def _show(arguments: Sequence[str]) -> None:
    folder, asked = _sweep_folder("show", arguments[:1]), arguments[1:]
    from sae_sweep.reporting.show import show

    show(folder, asked)


def _compare(arguments: Sequence[str]) -> None:
    from sae_sweep.reporting.compare import compare

    compare(arguments)


def _status(arguments: Sequence[str]) -> None:
    from sae_sweep.launch.status import print_status

    folder = _sweep_folder("status", [argument for argument in arguments if argument != "--json"])
    print_status(folder, as_json="--json" in arguments)


def _cancel(arguments: Sequence[str]) -> None:
    from sae_sweep.launch.cancel import cancel_sweep

    cancel_sweep(_sweep_folder("cancel", arguments))


def _eval(arguments: Sequence[str]) -> None:
    into = any(word.split("=")[0] == "--into" for word in arguments)
    if into or (arguments and _is_sae(arguments[0])):
        from sae_sweep.api.judging_command import judge_places  # brings in torch

        judge_places(arguments)
        return
    folder, asked = _sweep_folder("eval", arguments[:1]), arguments[1:]
    if any(word.split("=")[0] == "--analysis" for word in asked):
        from sae_sweep.analyses.session.command import analyse  # brings in torch
        from sae_sweep.config.files import config_folder

        analyse(folder, asked, config_folder())
        return
    from sae_sweep.analyses.session.judging import judge
    from sae_sweep.reporting.report import write_report

    judge(folder, asked)
    if any(word.split("=")[0] == "--sae" for word in asked):
        write_report(folder)


def _is_sae(place: str) -> bool:
    """Whether it may be one, and is no sweep. What is empty or not there is told as a sweep that is not."""
    folder = Path(place).expanduser()
    there = folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
    return place.startswith("hub:") or (bool(place) and there and not (folder / names.SWEEP).is_file())


def _export(arguments: Sequence[str]) -> None:
    if any(word.split("=")[0] == "--push" for word in arguments):
        from sae_sweep.reporting.push import push

        push(arguments)
        return
    from sae_sweep.interop.command.export import export  # brings in torch

    export(arguments)


def _import(arguments: Sequence[str]) -> None:
    from sae_sweep.interop.command.importing import import_saes  # brings in torch

    import_saes(arguments)


def _upload(arguments: Sequence[str]) -> None:
    from sae_sweep.launch.wandb import upload_sweep

    upload_sweep(_sweep_folder("upload", arguments[:1]), arguments[1:])


def _dashboard(arguments: Sequence[str]) -> None:
    from sae_sweep.launch.wandb import dashboard_sweep

    dashboard_sweep(_sweep_folder("dashboard", arguments[:1]), arguments[1:])


def _explain(arguments: Sequence[str]) -> None:
    from sae_sweep.config.comments import explanation

    if len(arguments) != 1:
        raise ConfigError("explain: takes one key or group, as in `sae-sweep explain training.lr`")
    print(explanation(arguments[0]))


def _work(arguments: Sequence[str]) -> None:
    from sae_sweep.launch.worker import train_task

    if len(arguments) != 1:
        raise ConfigError("work: takes one folder; clusters' workers are given it")
    train_task(Path(arguments[0]).absolute())


@dataclass(frozen=True)
class Command:
    """A first word of the command line that does something else than train."""

    arguments: str
    does: str
    """For `--help`, in one line."""
    run: Callable[[Sequence[str]], None]
    """Is given the words after it."""


COMMANDS: Mapping[str, Command] = {
    "report": Command(
        "DIR [DIR ... --out FILE] [--latents N] [--with-trimmed]", "rewrite the report, or lay sweeps over", _report
    ),
    "status": Command("DIR [--json]", "how far a sweep is, whoever trains it", _status),
    "cancel": Command("DIR", "end the jobs that a cluster has of a sweep", _cancel),
    "show": Command("DIR [--format table|csv|json|latex|png|svg]", "the frontier, in a terminal or a paper", _show),
    "compare": Command("DIR DIR", "two sweeps or members: configs, metrics with paired errors, frontiers", _compare),
    "eval": Command(
        "DIR|SAE ... [--into DIR] [data=...] [site.layer=L] [--analysis NAME]", "judge again, or ask", _eval
    ),
    "import": Command("SOURCE --out DIR [--format F] [--model ID] [--site HOOK]", "SAEs of others as ours", _import),
    "export": Command("MEMBER --format F --out DIR | --push hub:USER/REPO", "write SAEs as others read them", _export),
    "upload": Command("DIR [tracking.project=P]", "send a sweep to wandb, however it was tracked", _upload),
    "dashboard": Command("DIR [tracking.project=P]", "make the wandb workspace that shows a sweep", _dashboard),
    "explain": Command("KEY", "what a key, or each option of a group, means", _explain),
    "work": Command("DIR", "what a cluster's worker runs: one group", _work),
    "help": Command("", "print this", lambda _: _train(["--help"])),
    "--version": Command("", "print the version", lambda _: print(f"sae-sweep {__version__}")),
}


def _usage(commands: Iterable[str]) -> str:
    """One line for each of the commands."""
    lines = [(f"sae-sweep {name} {COMMANDS[name].arguments}", COMMANDS[name].does) for name in commands]
    return "\n".join(f"  {line:<65}  {does}" for line, does in lines)


def _sweep_folder(command: str, arguments: Sequence[str]) -> Path:
    if option := next((word for word in arguments if word.startswith("--")), None):
        usage = f"sae-sweep {command} {COMMANDS[command].arguments}"
        raise ConfigError(f"{command}: {option} is no option, or stands before the folder; give `{usage}`")
    if len(arguments) != 1:
        raise ConfigError(f"{command}: takes one folder, as in `sae-sweep {command} outputs/demo`")
    folder = Path(arguments[0])
    if not (folder / names.SWEEP).is_file():
        raise ConfigError(f"{command}: {folder} has no sweep.json; give the folder of a sweep, like outputs/demo")
    return folder


if __name__ == "__main__":
    sys.exit(main())
