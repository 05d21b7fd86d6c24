"""What `hydra/launcher=slurm` asks of SLURM and makes of its answers, with SLURM's commands stood in for."""

import json
from typing import Any

import pytest

from sae_sweep.folder.sweep import SweepFolder
from sae_sweep.host.rank_processes import Role
from sae_sweep.launch import remote
from sae_sweep.launch.tasks import read_tasks
from sae_sweep.launch.worker import train_task
from tests.launch.clusters.conftest import SLURM, Cluster


def entries(program: Any) -> dict[str, tuple[str, str | None]]:
    return {label: (entry["state"], entry["reason"]) for label, entry in program.sweep("sweep")["members"].items()}


def test_two_groups_are_submitted_as_one_array(program: Any, cluster: Cluster) -> None:
    assert program(*SLURM) == 0
    assert program.training.groups == []
    lines = program.err.splitlines()
    assert lines[0] == "sae-sweep: submitted 2 SLURM jobs: 17_0, 17_1"
    root = program.folder / "outputs" / "sweep"
    assert lines[1:] == [
        f"sae-sweep: see how far they are: sae-sweep status {root}",
        f"sae-sweep: cancel them:          sae-sweep cancel {root}",
    ]
    assert "#SBATCH --array=0-1%2" in cluster.script
    assert [task.job for task in read_tasks(root)] in (["17_0", "17_1"], ["17_1", "17_0"])
    assert {state for state, _ in entries(program).values()} == {"planned"}


SCRIPTED = {
    "hydra.launcher.partition=long": "#SBATCH --partition=long",
    "hydra.launcher.account=lab": "#SBATCH --account=lab",
    "hydra.launcher.time=1-12:00:00": "#SBATCH --time=1-12:00:00",
    "hydra.launcher.gpus=4": "#SBATCH --gpus-per-node=4",
    "hydra.launcher.cpus=3": "#SBATCH --cpus-per-task=3",
    "hydra.launcher.mem=64G": "#SBATCH --mem=64G",
    "hydra.launcher.parallel=1": "#SBATCH --array=0-1%1",
    "hydra.launcher.setup=[module load cuda]": "module load cuda",
    "+hydra.launcher.sbatch.qos=high": "#SBATCH --qos=high",
    "hydra.launcher.signal_seconds=300": "#SBATCH --signal=USR2@300",
    "name=mine": "#SBATCH --job-name=mine",
}


def test_every_key_is_in_the_script(program: Any, cluster: Cluster) -> None:
    assert program(*SLURM, *SCRIPTED) == 0, program.err
    assert {*SCRIPTED.values(), "#SBATCH --requeue"} <= set(cluster.script)
    assert program(*SLURM, "name=other") == 0
    assert not set(SCRIPTED.values()) & set(cluster.script)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.launcher.time=90", "hydra.launcher.time=90 is not a time as SLURM writes it, in quotes"),
        ("hydra.launcher.cpus=0", "hydra.launcher.cpus=0 must be at least 1"),
        ("hydra.launcher.gpus=two", "hydra.launcher.gpus=two is not a whole number"),
        ("hydra.launcher.setup=module", "hydra.launcher.setup=module is not a list of texts"),
        ("hydra.launcher.targets=[l0]", "hydra.launcher.wait=false: the sweeper needs the results"),
        ("hydra.launcher.partitions=x", "hydra.launcher.partitions: no such key"),
        ("launcher.devices=2", "hydra.launcher.gpus=1, and launcher.devices=2 share a group; ask for as many"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(program: Any, cluster: Cluster, override: str, message: str) -> None:
    assert program(*SLURM, override) == 2
    assert message in program.err
    assert program.err.count("\n") == 1
    assert program.written == []


def test_ranks_of_torchrun_are_not_handed_to_a_worker(
    program: Any, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "role", lambda: Role(0, 2, 2))
    assert program(*SLURM) == 2
    assert "torchrun cannot hand over groups" in program.err
    assert program.written == []


def test_a_worker_has_as_many_devices_as_share_its_group(program: Any, cluster: Cluster) -> None:
    two = ("launcher.devices=2", "hydra.launcher.gpus=2")
    assert program(*SLURM, *two, "launcher.hosts=2") == 2
    assert "launcher.hosts=2: a cluster's worker is on one host" in program.err
    assert program.written == []
    assert program(*SLURM, *two, "dry_run=true") == 0
    assert "with 2 GPUs" in program.out
    assert program(*SLURM, "launcher.devices=2", "hydra.launcher.gpus=0", "dry_run=true") == 0


def test_where_sbatch_refuses_nothing_is_left_to_wait_for(program: Any, cluster: Cluster) -> None:
    (cluster.folder / "refuses").write_text("1")
    assert program(*SLURM) == 2
    assert program.err.startswith("sae-sweep: error: hydra/launcher=slurm: sbatch refuses")
    assert program.err.count("\n") == 1
    assert read_tasks(program.folder / "outputs" / "sweep") == []


def test_a_machine_without_slurm_is_one_line(
    program: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("nothing")))
    assert program(*SLURM, "dry_run=true") == 0
    assert program(*SLURM) == 2
    assert program.err.startswith("sae-sweep: error: hydra/launcher=slurm: there is no sbatch here; give the command")
    assert program.written == []


def test_a_dry_run_says_where_each_group_would_run(program: Any, cluster: Cluster) -> None:
    assert program(*SLURM, "dry_run=true", "hydra.launcher.partition=gpu", "hydra.launcher.mem=32G") == 0
    told = [line.split(": ")[1] for line in program.out.splitlines() if "array task" in line]
    assert told == [
        f"would be submitted to partition gpu as array task {number} with 1 GPU, 8 CPUs, 32G" for number in (0, 1)
    ]
    assert not (cluster.folder / "script").exists()
    assert program.written == []


def test_a_worker_trains_what_was_submitted_whatever_the_command_line_would_say_now(
    program: Any, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program(*SLURM) == 0
    tasks = read_tasks(program.folder / "outputs" / "sweep")
    monkeypatch.chdir("/")  # what is submitted is relative to where it was
    train_task(tasks[0].folder)
    assert [len(group) for group in program.training.groups] == [1]
    assert sorted(state for state, _ in entries(program).values()) == ["finished", "planned"]
    train_task(tasks[1].folder)
    train_task(tasks[1].folder)
    assert len(program.training.groups) == 2
    assert {state for state, _ in entries(program).values()} == {"finished"}
    assert len(program.training.summaries) == 2, "each worker has a run of the sweep, of its own machine"


def test_a_member_that_fails_in_a_worker_is_failed_for_all_who_look(program: Any, cluster: Cluster) -> None:
    assert program(*SLURM) == 0
    first, second = read_tasks(program.folder / "outputs" / "sweep")
    (label,) = (
        label for label, entry in program.sweep("sweep")["members"].items() if entry["identity"] in first.identities
    )
    program.training.failing = {label: "diverged"}
    assert program("work", str(first.folder)) == 1
    cluster.queue(f"17|{first.job}|FAILED|NonZeroExitCode", f"18|{second.job}|PENDING|Priority")
    assert program("status", "outputs/sweep", "--json") == 0
    told = {member["member"]: (member["state"], member["reason"]) for member in json.loads(program.out)["members"]}
    assert told.pop(label) == ("failed", "diverged")
    assert list(told.values()) == [("planned", f"SLURM job {second.job} is PENDING (Priority)")]


def test_states_that_a_task_wrote_are_seen_before_anybody_put_them_into_sweep_json(
    program: Any, cluster: Cluster
) -> None:
    assert program(*SLURM) == 0
    root = program.folder / "outputs" / "sweep"
    before = (root / "sweep.json").read_text()
    task = read_tasks(root)[0]
    label = next(iter(program.sweep("sweep")["members"]))
    SweepFolder(root, task.name).mark([label], "failed", "diverged")
    (root / "sweep.json").write_text(before)  # as a writer without locks could leave it
    assert SweepFolder(root).read()["members"][label]["state"] == "failed"
    other = next(name for name in program.sweep("sweep")["members"] if name != label)
    SweepFolder(root, read_tasks(root)[1].name).mark([other], "running", None)
    assert program.sweep("sweep")["members"][label]["state"] == "failed", "whoever writes brings it up to date"


@pytest.mark.parametrize(
    ("line", "state"),
    [("17|17_0|CANCELLED|None", "interrupted"), ("17|17_0|OUT_OF_MEMORY|None", "failed"), ("", "failed")],
)
def test_a_job_that_ended_without_a_word(program: Any, cluster: Cluster, line: str, state: str) -> None:
    assert program(*SLURM, "data.seed=0") == 0
    task = read_tasks(program.folder / "outputs" / "sweep")[0]
    task.write_job("slurm", "17_0", "its.log")
    cluster.queue(*[line] * bool(line))
    assert program("status", "outputs/sweep", "--json") == 0
    (member,) = json.loads(program.out)["members"]
    word = line.split("|")[2] if line else "GONE"
    assert (member["state"], member["reason"]) == (state, f"SLURM job 17_0 ended as {word}; its log is its.log")
    assert program("sae=topk") == 0, "and it may be trained anew"
    assert read_tasks(program.folder / "outputs" / "sweep") == []
