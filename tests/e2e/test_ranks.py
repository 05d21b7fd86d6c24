"""Several processes that train one group == one process, bit for bit; and what happens where one of them is gone."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from sae_sweep.plan.costs import pass_cost
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.plan.placement import plan_passes
from tests.e2e.forked import run_forked
from tests.e2e.kills import PATIENCE, checkpoints, finish, other_rank, start, wait
from tests.plan.test_costs import config

FILES = ("metrics.json", "metrics.jsonl", "sae_weights.safetensors", "sparsity.safetensors", "cfg.json")
GROUP = (
    *("model.device=cpu", "data.context=16", "data.block_rows=32", "data.rows_per_forward=8", "sae.width=40"),
    *("training.batch_size=48", "training.lr=1e-2", "evaluation.tokens=320", "evaluation.every=1000"),
    *("tracking=none", "tracking.log_every=4", "name=it"),
)
MIXED = ("sae=gated,standard,batchtopk", "sae.l0=4", "site.layer=1,2", "sae.lookup=learned,none", "training.tokens=2e3")
MILESTONES = ("sae=topk", "sae.k=3", "training.tokens=2e3", "training.milestones=[600,1500]")
SWEEPS: dict[str, tuple[tuple[str, ...], int]] = {
    "steered, resampled, with lookup tables, judged on the way": (MIXED, 12),
    "transcoders, with milestones": (("site=mlp", "site.layer=1,2", *MILESTONES), 2),
    "crosscoders, with milestones": (("site.across=[1,2],[0,1]", *MILESTONES), 2),
    "crosscoders over two models, with milestones": (("site.models=[{0},{1}]", "site.layer=1,2", *MILESTONES), 2),
    "cross-layer transcoders, with milestones": (("site=clt", "site.across=[1,2,3],[0,1,3]", *MILESTONES), 2),
}


@pytest.fixture(scope="module")
def read(llama_folder: Path, text_file: Path) -> tuple[str, ...]:
    return ("model=local", f"model.path={llama_folder}", "data=text", f"data.path={text_file}")


def assert_same(found: Path, expected: Path) -> None:
    """What members left is the same, bit for bit."""
    wanted = {str(file.relative_to(expected)) for name in FILES for file in expected.rglob(name)}
    assert wanted
    assert {str(file.relative_to(found)) for name in FILES for file in found.rglob(name)} == wanted
    assert [name for name in sorted(wanted) if (found / name).read_bytes() != (expected / name).read_bytes()] == []


def trained(folder: Path, *arguments: str) -> tuple[Path, str]:
    folder.mkdir(exist_ok=True)
    code, said = finish(start(folder, *arguments))
    assert code == 0, said
    assert "Traceback" not in said
    return folder / "outputs" / "it", said


def by_one(folder: Path, *arguments: str) -> Path:
    """A sweep by one process."""
    folder.mkdir(exist_ok=True)
    done = run_forked(arguments, folder)
    assert done.returncode == 0, done.stderr
    return folder / "outputs" / "it"


@pytest.fixture(scope="module")
def mixed(read: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first of SWEEPS by one process."""
    return by_one(tmp_path_factory.mktemp("mixed"), *read, *GROUP, *MIXED)


@pytest.mark.parametrize(
    "sweep", [name if SWEEPS[name][0] is MIXED else pytest.param(name, marks=pytest.mark.evidence) for name in SWEEPS]
)
def test_two_processes_are_one(
    sweep: str, read: tuple[str, ...], tmp_path: Path, llama_folder: Path, tuned_folder: Path, mixed: Path
) -> None:
    words, members = SWEEPS[sweep]
    asked = [word.format(llama_folder, tuned_folder) for word in words]
    alone = mixed if words is MIXED else by_one(tmp_path / "one", *read, *GROUP, *asked)
    both, _ = trained(tmp_path / "two", *read, *GROUP, *asked, "launcher.devices=2")
    assert len(list(alone.glob("*/metrics.json"))) == members
    assert bool(list(alone.glob("*/milestones/*/metrics.json"))) == ("milestones" in sweep)
    assert_same(both, alone)


def refused(folder: Path, rank: int, places: dict[str, dict[str, int]], *arguments: str) -> tuple[list[int], list[str]]:
    """Two ranks of which one is refused memory: their exit codes, and what they said."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for own in range(2):
        mine = {"RANK": own, "LOCAL_RANK": own, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        environment = os.environ | {name: str(value) for name, value in mine.items()} | {"MASTER_ADDR": "127.0.0.1"}
        environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        said = json.dumps(places if own == rank else {})
        command = [sys.executable, "-m", "tests.e2e.refused_rank", said, *(arguments if own == 0 else ())]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        ranks.append(subprocess.Popen(command, cwd=folder, env=environment, **pipes))
    try:
        found = [one.communicate(timeout=120)[0] for one in ranks]  # none may wait for what will not come
    finally:
        for one in ranks:
            one.kill()
    return [one.returncode for one in ranks], found


REFUSED = {
    "harvest": {"1": 1},
    "room": {"2": 1},
    "after they met": {"3": 2},
    "before they meet": {"4": 1},  # which is made for the last corrections
    "step": {"2": 2},
    "judging": {"2": 1},
}
WAYS = [*["with what was given back"] * 3, "members wait on the host", "with what was given back"]


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.evidence)])
def test_a_rank_without_memory_changes_nothing(rank: int, read: tuple[str, ...], tmp_path: Path, mixed: Path) -> None:
    """What ranks make together all make once more; what is its own it does again by itself."""
    codes, said = refused(tmp_path, rank, REFUSED, *read, *GROUP, *MIXED, "launcher.memory_gb=100")
    assert codes == [0, 0], said
    assert {f"REFUSED {place} {block}" for place in REFUSED for block in REFUSED[place]} <= set(said[rank].splitlines())
    told = re.findall(r"out of memory while a block is made; once more, (.*)", said[0])
    assert told == WAYS
    assert_same(tmp_path / "outputs" / "it", mixed)


@pytest.mark.evidence
def test_a_block_made_ahead_without_memory_on_one_rank(read: tuple[str, ...], tmp_path: Path, mixed: Path) -> None:
    """Blocks are in a cache, so that they are made ahead; from then on they are not, on either rank."""
    own = (*read, *GROUP, *MIXED, f"data.cache={tmp_path / 'kept'}")
    assert refused(tmp_path / "first", 1, {}, *own)[0] == [0, 0]
    codes, said = refused(tmp_path / "second", 1, {"made ahead": {"1": 1, "2": 1}}, *own)
    assert codes == [0, 0], said
    assert said[1].count("REFUSED made ahead") == 1
    assert_same(tmp_path / "second" / "outputs" / "it", mixed)


@pytest.mark.evidence
@pytest.mark.parametrize("place", ["harvest", "room", "after they met", "before they meet"])
def test_a_rank_that_never_has_memory_ends_all(place: str, read: tuple[str, ...], tmp_path: Path) -> None:
    codes, said = refused(tmp_path, 1, {place: {"1": 99}}, *read, *GROUP, *MIXED)
    assert codes == [1, 0], said
    assert "12 of 12 members failed" in said[0]
    assert "launcher.memory_gb: memory does not last for a block beside the members; lower data.block_rows" in said[0]
    assert "Traceback" not in said[0] + said[1]


@pytest.mark.evidence
def test_three_ranks_of_torchrun_more_than_there_are_members(read: tuple[str, ...], tmp_path: Path) -> None:
    """One site, and blocks that a cache keeps; the third rank has rows only."""
    own = (*read, *GROUP, "sae=topk", "sae.k=3", "seed=0,1", "training.batch_size=512", "data.block_rows=64")
    own = (*own, "sae.width=2100", "training.tokens=3e3", "data.rows_per_forward=40")  # 2 passes: one rank has no rows
    alone, _ = trained(tmp_path / "one", *own)
    folder = tmp_path / "three"
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    command += ["-m", "sae_sweep.cli", *own, "data.cache=kept"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for _ in range(2):  # the second finds blocks in the cache, and nothing to train
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    assert_same(folder / "outputs" / "it", alone)
    assert list((folder / "kept").glob("*/000000-*hook*.safetensors"))


LONG = ("sae=gated,standard,batchtopk", "sae.l0=4", "site.layer=1", "training.tokens=2e4")


def begun(process: "subprocess.Popen[str]", sweep: Path) -> None:
    assert wait(process, lambda: checkpoints(sweep) >= 2)


def gone(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.evidence
def test_a_rank_killed_ends_the_job_and_any_number_goes_on(read: tuple[str, ...], tmp_path: Path) -> None:
    """Two, of which one is killed; then three, told to stop; then one, to the end."""
    own = (*read, *GROUP, *LONG, "training.checkpoint_tokens=100")
    alone, _ = trained(tmp_path / "one", *own)
    process = start(tmp_path, *own, "launcher.devices=2")
    sweep = tmp_path / "outputs" / "it"
    begun(process, sweep)
    other = other_rank(process.pid)
    os.kill(other, signal.SIGKILL)
    code, said = finish(process)
    assert (code, "Traceback" in said) == (os.EX_TEMPFAIL, False), said
    assert "sae-sweep: error: rank 1 was ended by SIGKILL; the same command goes on" in said
    assert gone(other)
    (state,) = [max(path.glob("0*/state.json")) for path in (sweep / ".state").glob("*-*")]
    saved = json.loads(state.read_text())["state"]
    assert len(saved["members"]) == 3
    assert len({member["blocks"] for member in saved["members"]}) == 1  # at a block's end
    begun_at = checkpoints(sweep)
    process = start(tmp_path, *own, "launcher.devices=3")
    assert wait(process, lambda: checkpoints(sweep) > begun_at)
    process.send_signal(signal.SIGTERM)
    code, said = finish(process)
    assert (code, "Traceback" in said) == (128 + signal.SIGTERM, False), said
    assert said.count("resuming at step ") == 1, said
    assert "SIGTERM: the checkpoint of step " in said
    _, said = trained(tmp_path, *own)
    assert said.count("resuming at step ") == 1, said
    assert_same(sweep, alone)


@pytest.mark.evidence
def test_rank_0_killed_leaves_nobody(read: tuple[str, ...], tmp_path: Path) -> None:
    process = start(tmp_path, *read, *GROUP, *LONG, "training.checkpoint_tokens=100", "launcher.devices=2")
    begun(process, tmp_path / "outputs" / "it")
    other = other_rank(process.pid)
    process.kill()
    finish(process)
    end = monotonic() + PATIENCE
    while not gone(other):
        assert monotonic() < end
        sleep(0.1)


@pytest.mark.evidence
def test_what_is_wrong_is_said_once(read: tuple[str, ...], tmp_path: Path) -> None:
    code, said = finish(start(tmp_path, *read, *GROUP, "sae=topk", "sae.k=3", "site.layer=9", "launcher.devices=2"))
    assert (code, said.count("error: ")) == (2, 1), said
    code, said = finish(start(tmp_path, *read, *GROUP, "sae=topk", "sae.k=3", "launcher.devices=2", "launcher.hosts=2"))
    assert code == 2, said
    assert "torchrun --nnodes 2 --nproc-per-node 1 -m sae_sweep.cli" in said
    empty = tmp_path / "empty.txt"
    empty.write_text("too short")
    code, said = finish(
        start(tmp_path, *read[:3], f"data.path={empty}", *GROUP, "sae=topk", "sae.k=3", "launcher.devices=2")
    )
    assert (code, said.count("error: "), "Traceback" in said) == (2, 1, False), said
    assert not (tmp_path / "outputs").exists()


SENT = """
import sys
from sae_sweep.training.devices import joining
from sae_sweep.cli import main

code = main(sys.argv[1:])
print("SENT", joining.joined().sent_bytes)
sys.exit(code)
"""


@pytest.mark.evidence
def test_bytes_sent_are_those_planned(read: tuple[str, ...], tmp_path: Path) -> None:
    """Rows without special tokens, so that all positions count but the first."""
    asked = ("sae=topk", "sae.k=3", "data.bos=never", "training.tokens=3e3", "evaluation.every=null", "seed=0")
    rows = [*read, *GROUP, *asked]
    (group,) = plan_sweep([config(*rows, f"site.layer={layer}") for layer in (1, 2)]).groups
    (made,) = plan_passes(group, None, None, 2)
    said = pass_cost(made)
    script = tmp_path / "sent.py"
    script.write_text(SENT)
    done = subprocess.run(
        [sys.executable, str(script), *rows, "site.layer=1,2", "launcher.devices=2"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (sent,) = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("SENT")]
    # Of two equal ranks, which send each other as much.
    assert 2 * sent == said.sent_bytes * said.blocks
    assert said.sent_per_step == pytest.approx(2 * sent / said.steps)
