"""What dry_run prints of whole commands, and what it refuses."""

import re
from pathlib import Path
from typing import Any

import pytest


def test_an_experiment_plans_offline(program: Any) -> None:
    """Each that ships: tests/e2e/test_experiments.py."""
    assert program("+experiment=gated_gemma", "dry_run=true") == 0
    assert "outputs/gated_gemma: 13 members in 1 group" in program.out
    assert program.written == []
    assert program.training.groups == []


def test_a_dry_run_prints_the_plan(program: Any) -> None:
    program("sae=topk", "sae.k=8", "name=it")
    assert program("sae=topk", "sae.k=8,16", "name=it", "seed=0", "dry_run=members") == 0
    lines = program.out.splitlines()
    assert lines[0] == "outputs/it: 2 members in 1 group of one pass each, 1 bank; 1 finished already"
    (eight,) = [line for line in lines if "topk-k_8-x16" in line]
    (sixteen,) = [line for line in lines if "topk-k_16-x16" in line]
    assert eight.endswith("finished")
    assert sixteen.endswith("to train")
    told = ("blocks.2.hook_resid_post", "2048", "k 16", "1024", "1953", "biases at 11.3 lr; warm-up 97")
    assert all(word in sixteen for word in told)
    assert "memory" in program.out
    assert "FLOP" in program.out


@pytest.mark.parametrize(("name", "output"), [("it", "taken"), ("it", "taken/deeper"), ("taken", ".")])
def test_a_file_where_the_sweep_belongs_is_refused(program: Any, name: str, output: str) -> None:
    """By the plan as by the sweep, and nothing is written."""
    (program.folder / "taken").write_text("")
    said = "taken is a file, not a folder; give another output_dir=\n"
    for dry_run in ("true", "false"):
        assert program("sae=topk", f"name={name}", f"output_dir={output}", f"dry_run={dry_run}") == 2
        assert program.err.startswith(f"sae-sweep: error: output_dir={output}: ")
        assert program.err.endswith(said)
    assert program.written == ["taken"]


def test_a_dry_run_of_toy_data_counts_no_model(program: Any) -> None:
    assert program("data=toy", "sae=topk", "sae.k=8", "sae.width=512", "dry_run=true") == 0
    assert "synthetic activations (512 true latents in 256 dimensions, float32, auto)" in program.out
    assert "topk at toy" in program.out
    memory, fits, compute, time, disk = program.out.splitlines()[-5:]
    assert fits.startswith("fits: ")
    assert memory.startswith("memory ")
    assert "model" not in memory
    assert compute.startswith("pass 1 of 1: ")
    assert "model" not in compute
    assert "launcher.device_flops" in time
    assert disk.startswith("  disk: a checkpoint ")


def test_a_toy_key_without_toy_data_is_refused(program: Any) -> None:
    assert program("data.toy.latents=64", "dry_run=true") == 2
    assert program.err == "sae-sweep: error: data.toy.latents: data.toy is null here; data=toy gives it keys\n"


GEMMA = ("+experiment=gated_gemma", "model.device=cuda", "dry_run=members", "sae=gated")


def test_a_dry_run_says_what_each_wave_holds(program: Any) -> None:
    assert program(*GEMMA, "launcher.memory_gb=80") == 0
    assert "; 67.7 GB wait in the host's memory" in program.out
    rest = [line for line in program.out.splitlines() if "wave" in line]
    assert rest[0].startswith("  device 0, wave 1 of 7: 70.2 GB (block 1.61 GB, the next wave 9.67 GB): ")
    assert rest[-1].startswith("  device 0, wave 7 of 7: 60.5 GB (block 1.61 GB): ")
    values = ("0.001", "0.0008", "0.0007", "0.0005", "0.0003", "0.0002", "0.0001")
    assert [line.split(": ")[2] for line in rest] == [f"gated-l1_{value}-w131072" for value in values]
    assert "in 1 group of one pass each" in program.out
    assert program.written == []


def test_a_dry_run_says_when_the_pass_is_repeated(program: Any) -> None:
    assert program(*GEMMA, "launcher.memory_gb=62", "launcher.host_memory_gb=40") == 0
    assert "in 1 group of 2 passes in all" in program.out
    first, second = program.out.split("pass 1 of 2: ")[1].split("pass 2 of 2: ")
    assert "; 38.7 GB wait in the host's memory" in first
    assert "wave 4 of 4" in first
    assert "; 29 GB wait in the host's memory" in second
    assert "wave 3 of 3" in second


def test_an_sae_larger_than_a_device_is_refused(program: Any) -> None:
    assert program(*GEMMA, "launcher.memory_gb=40") == 2
    (line,) = program.err.splitlines()
    assert line.startswith("sae-sweep: error: launcher.memory_gb=40: gated-l1_0.001-w131072 alone needs 60.5 GB")


def test_members_that_fit_share_the_device(program: Any) -> None:
    assert program("data=toy", "sae=topk", "sae.k=4,8", "dry_run=true", "launcher.memory_gb=20") == 0
    (line,) = (line for line in program.out.splitlines() if line.startswith("  device"))
    assert line.endswith(": 2 members")


def test_a_dry_run_says_what_each_device_does(program: Any) -> None:
    assert program(*GEMMA, "launcher.memory_gb=80", "launcher.devices=8", "launcher.device_flops=2e14") == 0
    lines = program.out.splitlines()
    (time,) = (line for line in lines if line.startswith("  time: "))
    assert time.endswith("should each device get launcher.device_flops=2e+14 done in a second")
    (network,) = (line for line in lines if line.startswith("  network: "))
    assert "9.86 GB between devices a block, at most 1.41 GB of it to one device" in network
    turns = [line for line in lines if line.startswith("  device ")]
    assert [line.split(":")[0] for line in turns] == [f"  device {n}" for n in range(8)]
    assert sorted(line.rsplit(": ")[-1] for line in turns if "gated-" in line) == sorted(
        f"gated-l1_{value}-w131072" for value in ("0.001", "0.0008", "0.0007", "0.0005", "0.0003", "0.0002", "0.0001")
    )
    assert turns[7].endswith("no members, its share of the rows only")


def test_what_is_finished_costs_nothing_more(program: Any) -> None:
    program("sae=topk", "sae.k=8", "name=it")
    assert program("sae=topk", "sae.k=8", "name=it", "dry_run=true") == 0
    assert "finished" in program.out
    assert "pass 1" not in program.out


def test_devices_must_be_spread_evenly(program: Any) -> None:
    assert program("launcher.devices=8", "launcher.hosts=3", "dry_run=true") == 2
    assert program.err == "sae-sweep: error: launcher.devices=8 cannot be spread evenly over launcher.hosts=3\n"


def test_what_varies_has_a_column(program: Any) -> None:
    assert program("sae=topk", "sae.k=8,16", "seed=3,4", "dry_run=members") == 0
    lines = program.out.splitlines()
    assert lines[3].split()[:5] == ["bank", "member", "seed", "latents", "sparsity"]
    assert [line.split()[5] for line in lines[4:8]] == ["3", "4", "3", "4"]


def test_text_of_names_that_say_no_format(program: Any) -> None:
    for name in ("a.md", "b.py", "c.txt", "README"):
        (program.folder / name).write_text("Some words of it.\n")
    asked = ("data=text", "sae=topk", "dry_run=true")
    assert program(*asked, "data.path=[a.md,b.py,c.txt,README]") == 0
    assert "\ndata: 3 files of 4 read as plain text, which their names do not say: .md, .py, no suffix\n" in program.out
    assert program(*asked, "data.path=c.txt") == 0
    assert "plain text" not in program.out


def test_a_pass_that_this_machine_has_no_memory_for(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On its CPU by name it is refused; where a GPU may be found elsewhere it is said."""
    monkeypatch.setattr("sae_sweep.launch.dry_run.host_bytes", lambda: 5 * 10**9)
    monkeypatch.setattr("sae_sweep.plan.devices.GPU", program.folder / "no GPU")
    # Weights and two moments of 2 x 131072 x 3072 numbers are 9.66 GB of 4 bytes.
    asked = ("+experiment=gated_gemma", "sae=gated", "sae.l1=1e-3", "sae.width=131072", "dry_run=true")
    assert program(*asked, "model.device=cpu") == 2
    (line,) = program.err.splitlines()
    assert line.startswith("sae-sweep: error: launcher.memory_gb: a pass on this machine's CPU needs ")
    assert "members 9.67 GB" in line
    assert line.endswith(
        "the machine has 5 GB; lower sae.width, data.block_rows or training.batch_size, train fewer"
        " members at a time, or take a larger machine"
    )
    assert program.out == ""
    assert program(*asked) == 0
    assert "\ndoes not fit: launcher.memory_gb: a pass on this machine's CPU needs " in program.out
    assert program(*asked, "model.device=cuda") == 0
    assert "does not fit: launcher" not in program.out
    monkeypatch.setattr("sae_sweep.launch.dry_run.host_bytes", lambda: 10**12)
    assert program(*asked, "model.device=cpu") == 0
    assert "does not fit: launcher" not in program.out


def test_a_plan_for_this_machines_gpu_knows_its_size(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = program.folder / "nvidiactl"
    gpu.touch()
    for module in ("launch.dry_run", "plan.devices"):
        monkeypatch.setattr(f"sae_sweep.{module}.GPU", gpu)
    monkeypatch.setattr("sae_sweep.launch.dry_run.gpu_bytes", lambda: 40 * 10**9 / 0.95)
    assert program(*GEMMA) == 2
    assert "launcher.memory_gb=40: gated-l1_0.001-w131072 alone needs 60.5 GB" in program.err


def test_a_line_for_each_bank_by_default(program: Any) -> None:
    program("sae=topk", "sae.k=8", "name=it")
    assert program("sae=topk,gated", "sae.l0=8,16,24,32,48", "seed=0,1", "name=it", "dry_run=true") == 0
    banks = [line for line in program.out.splitlines() if " at blocks.2.hook_resid_post " in line]
    assert [line.split()[:6] for line in banks] == [
        ["0", "topk", "at", "blocks.2.hook_resid_post", "10", "0,"],
        ["1", "gated", "at", "blocks.2.hook_resid_post", "10", "0,"],
    ]
    assert "l0 8 to 48 (5 values)" in banks[1]
    assert not any("topk-k_8" in line for line in program.out.splitlines())
    assert program("sae=topk", "sae.k=8,16", "name=it", "dry_run=true") == 0
    assert "1 of 2 finished" in program.out


def test_what_is_read_and_where_it_fits(program: Any, tmp_path: Path) -> None:
    """The text has 4,000 bytes, some 1,000 tokens; three steps of 1,024 take three blocks of 2,048, of which BOS does
    not count. Rows are as long as the model takes."""
    text = tmp_path / "text.txt"
    text.write_text("abcd" * 1000)
    words = ("data=text", f"data.path={text}", "data.context=512", "data.block_rows=4", "training.tokens=4e3")
    assert program(*words, "sae=topk", "sae.k=8", "dry_run=true") == 0
    (rows,) = [line for line in program.out.splitlines() if line.startswith("rows: ")]
    assert rows == "rows: 512 tokens, of at most 512; 6.1 epochs of 4 kB of text, about"
    (fits,) = [line for line in program.out.splitlines() if line.startswith("fits: ")]
    assert fits.startswith("fits: T4 (16 GB) together; RTX 4090 (24 GB) together; ")


def test_hours_on_devices_of_the_table(program: Any) -> None:
    """An H100 gets 0.4 x 989e12 operations done in a second with a bfloat16 model."""
    gemma = ("+experiment=gated_gemma", "sae=gated")
    assert program(*gemma, "dry_run=true", f"launcher.device_flops={0.4 * 989e12}") == 0
    least, most = re.findall(r"time: (\S+) hours with sparse steps, (\S+) if", program.out)[0]
    assert program(*gemma, "dry_run=true") == 0
    found = re.findall(r"H100 (\d+)h(\d+)m-(\d+)h(\d+)m", program.out)[0]
    hours = [int(found[i]) + int(found[i + 1]) / 60 for i in (0, 2)]
    assert hours == pytest.approx([float(least), float(most)], rel=0.06)
    (refused,) = [line for line in program.out.splitlines() if line.startswith("does not fit: T4")]
    assert refused.startswith("does not fit: T4 (16 GB), RTX 4090 (24 GB), L40S (48 GB): gated-l1_0.001-w131072")
    assert refused.endswith("give more memory, or lower sae.width, training.batch_size or data.block_rows")
