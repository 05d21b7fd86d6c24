"""Files of a cache that are damaged or gone, and the room that they take."""

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from hashlib import sha256
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sae_sweep.activations.cache_folder import cache_key
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError
from sae_sweep.launch.local import run_sweep
from sae_sweep.plan.schedules import blocks_needed
from sae_sweep.training.run.sources import LanguageModelSource
from tests.activations.conftest import (
    MLP,
    RESIDUAL,
    assert_same,
    blocks,
    folder_of,
    kept,
    said,
)
from tests.e2e.forked import server
from tests.e2e.kills import PATIENCE


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "truncated": lambda file: os.truncate(file, file.stat().st_size - 100),
    "one bit": _flip,
    "empty": lambda file: file.write_bytes(b""),
    "its header": lambda file: file.write_bytes(b"\xff" * file.stat().st_size),
    "another tensor": lambda file: save_file({"x": torch.zeros(3)}, file, load_header(file)),
}


def load_header(file: Path) -> dict[str, str]:
    content = file.read_bytes()
    header: dict[str, Any] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header["__metadata__"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_harvested_again(
    config: Callable[..., MemberConfig],
    damage: Callable[[Path], Any],
    asked: list[tuple[str, ...]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    streamed = blocks(config(), RESIDUAL, MLP)
    before = kept(config())
    name = f"000002-{RESIDUAL}.safetensors"
    damage(folder_of(config()) / name)
    assert kept(config())[name] != before[name]
    asked.clear()
    caplog.clear()
    assert_same(blocks(config(), RESIDUAL, MLP), streamed)
    assert asked == [(RESIDUAL,)] * 2  # of block 2 only: 32 rows, 16 a pass
    (message,) = said(caplog)
    assert f"{name} is damaged" in message
    assert kept(config()) == before


def test_a_file_that_is_gone_is_harvested_again(
    config: Callable[..., MemberConfig], asked: list[tuple[str, ...]]
) -> None:
    streamed = blocks(config())
    before = kept(config())
    (folder_of(config()) / f"000001-{RESIDUAL}.safetensors").unlink()
    asked.clear()
    assert_same(blocks(config()), streamed)
    assert len(asked) == 2
    assert kept(config()) == before


def test_how_large_it_will_be_is_said_once_before_it_is_written(
    config: Callable[..., MemberConfig], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """7 steps of 64 a block of nearly 480 positions, so 2,200 tokens (34 steps) take 5 blocks."""
    (tmp_path / "cache").mkdir()
    read = blocks(config(), RESIDUAL, order=[0, 1])
    (first,) = said(caplog)
    size = 5 * read[0].activations[RESIDUAL].nbytes
    assert 5 * 448 * 32 * 4 < size < 5 * 480 * 32 * 4
    each, every = f"{size / 5e3:.3g} kB", f"{size / 1e3:.3g} kB"
    assert first.startswith(f"data.cache: keeps about 5 blocks x {each} = {every} of activations in ")
    assert f"{folder_of(config())}, {every} of them still to be written" in first
    caplog.clear()
    blocks(config(), RESIDUAL, order=[0, 1, 2, 3, 4])
    (second,) = said(caplog)
    assert f"{3 * size / 5e3:.3g} kB of them still to be written" in second
    caplog.clear()
    blocks(config(), RESIDUAL, order=[0, 1, 2, 3, 4])
    assert said(caplog) == []


def test_the_longest_member_counts(config: Callable[..., MemberConfig]) -> None:
    short, long = config("training.tokens=2200"), config("training.tokens=2000", "training.batch_size=300")
    assert [blocks_needed([one], 480) for one in (short, long)] == [5, 6]
    assert blocks_needed([short, long], 480) == 6
    assert blocks_needed([long], 100) == 6  # blocks without a step are refused elsewhere
    steered = config("training.tokens=2000", "training.batch_size=300", "sae.l1=null", "sae.l0=5")
    assert blocks_needed([short, steered], 480) == 7  # its L0 is corrected on the block after its last


def test_more_than_the_disk_holds_is_refused(config: Callable[..., MemberConfig], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.cache=.* TB .* and the disk has .* free; give a folder") as refused:
        blocks(config("training.tokens=1e16"))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_made_is_refused(config: Callable[..., MemberConfig], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    folder_of(config()).write_text("a file")
    with pytest.raises(ConfigError, match=r"data\.cache=.*cache cannot be written to \(File exists\)"):
        blocks(config())
    with pytest.raises(ConfigError, match=r"data\.cache=.*text\.jsonl is no folder \(.*text\.jsonl is a file\)"):
        blocks(config(f"data.cache={tmp_path / 'text.jsonl'}"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None], Callable[[], None]]]:
    """A folder, what fills its disk, and what gives it room again; where none can be mounted, files that may not
    grow stand in for a full disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
            return
        room = shutil.disk_usage(folder).free - 40_000  # less than a block, which has 61 kB
        (folder / "filler").write_bytes(b"x" * room)

    def empty() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        (folder / "filler").unlink(missing_ok=True)

    try:
        yield folder, fill, empty
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up(
    config: Callable[..., MemberConfig],
    small_disk: tuple[Path, Callable[[], None], Callable[[], None]],
    caplog: pytest.LogCaptureFixture,
    asked: list[tuple[str, ...]],
) -> None:
    folder, fill, empty = small_disk
    streamed = blocks(config("data.cache=null"))
    cached = config(f"data.cache={folder}")
    source = LanguageModelSource(cached, (RESIDUAL,))
    found = [source.block(0), source.block(1)]
    fill()
    caplog.clear()
    found += [source.block(2), source.block(3), source.block(4)]
    assert_same(found, streamed)
    (message,) = said(caplog)
    assert "takes no more, and nothing further is kept" in message
    names = sorted(name for name in kept(cached) if RESIDUAL in name)
    assert names == [f"00000{index}-{RESIDUAL}.safetensors" for index in (0, 1)]
    assert not [name for name in kept(cached) if name.endswith(".tmp")]
    empty()
    asked.clear()
    assert_same(blocks(cached), streamed)
    assert len(asked) == 3 * 2


def read_blocks(config: MemberConfig, indices: list[int], ready: Barrier, told: "Queue[list[str]]") -> None:
    """In a process of its own: what blocks hold, read once another is loaded too."""
    torch.set_num_threads(1)
    source = LanguageModelSource(config, (RESIDUAL, MLP))
    ready.wait()
    found = []
    for index in indices:
        block = source.block(index)
        parts = [*block.activations.values(), *block.tokens.values()]
        found.append(sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest())
    told.put(found)


def test_two_processes_at_once(config: Callable[..., MemberConfig], asked: list[tuple[str, ...]]) -> None:
    """Both are loaded, and go on together."""
    started, indices = server(), [*range(12), *range(12)]
    ready, told = started.Barrier(2), started.Queue()
    readers = [started.Process(target=read_blocks, args=(config(), indices, ready, told)) for _ in range(2)]
    for reader in readers:
        reader.start()
    first, second = (told.get(timeout=PATIENCE) for _ in readers)
    for reader in readers:
        reader.join()
    assert [reader.exitcode for reader in readers] == [0, 0]
    assert first == second
    assert first[:12] == first[12:]
    assert len(set(first)) == 12
    assert len(kept(config())) == 1 + 3 * 12  # and no temporary file
    streamed = blocks(config("data.cache=null"), RESIDUAL, MLP, order=range(12))
    asked.clear()
    assert_same(blocks(config(), RESIDUAL, MLP, order=range(12)), streamed)
    assert asked == []


def test_a_dry_run_says_what_it_takes_and_what_is_there(
    config: Callable[..., MemberConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    """By 512 positions a block, which BOS leaves not all of: 8 steps of 64 each."""
    runs = [
        config("dry_run=true", f"site={site}", "site.layer=1", "sae.width=40") for site in ("resid_post", "mlp_out")
    ]

    def line() -> str:
        run_sweep(runs)
        (found,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("cache")]
        return found

    pattern = f"{folder_of(runs[0]).with_name(cache_key(runs[0]) + '-*')}; "
    assert line() == f"cache: about 5 blocks x 131 kB = 655 kB in {pattern}0 of 10 files there already"
    blocks(config(), RESIDUAL, order=[0, 1, 2])
    assert line().endswith("; 3 of 10 files there already")
    run_sweep([config("dry_run=true", "data.cache=null")])
    assert "cache" not in capsys.readouterr().out


def test_cached_activations_are_no_views_of_their_files(config: Callable[..., MemberConfig]) -> None:
    """Else a file that changes later would change them, or end the process."""
    blocks(config(), order=[0])
    (block,) = blocks(config(), order=[0])
    before = block.activations[RESIDUAL].clone()
    file = folder_of(config()) / f"000000-{RESIDUAL}.safetensors"
    with file.open("r+b") as opened:
        opened.write(b"\0" * file.stat().st_size)
    assert torch.equal(block.activations[RESIDUAL], before)
