"""What a terminal shows of 60 members in training, in tmux, at the two sizes that people have; kept as evidence."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

EVIDENCE = Path(__file__).parents[1] / "evidence" / "screens"
ROOT = Path(__file__).parents[2]
SWEEP = (
    *("name=sixty", "data=toy", "sae=topk,batchtopk,gated", "sae.l0=4,8,16,32", "seed=0,1,2,3,4", "sae.width=128"),
    *("training.tokens=8e3", "training.batch_size=256", "evaluation.tokens=1e3", "tracking=none"),
)
PATIENCE = 240.0


def tmux(*words: str) -> str:
    done = subprocess.run(["tmux", "-L", "sae-sweep-screens", *words], capture_output=True, text=True, check=False)
    return done.stdout


def command(folder: Path) -> str:
    line = shlex.join([sys.executable, "-m", "sae_sweep.cli", *SWEEP])
    path = f"{os.environ.get('PYTHONPATH', '')}:{ROOT}"
    return f"cd {shlex.quote(str(folder))} && PYTHONPATH={path} {line}; echo ended; sleep 60"


@pytest.mark.evidence
@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
def test_sixty_members_in_tmux(width: int, height: int, tmp_path: Path) -> None:
    assert shutil.which("tmux"), "apt-get install tmux"
    screens, start, first = list[str](), monotonic(), 0.0
    tmux("new-session", "-d", "-x", str(width), "-y", str(height), command(tmp_path))
    try:
        while monotonic() - start < PATIENCE:
            screen = tmux("capture-pane", "-p")
            if screen.strip() and not first:
                first = monotonic() - start
            if screen.strip() and (not screens or screen != screens[-1]):
                screens.append(screen)
            if "ended" in screen:
                break
            sleep(0.2)
        whole = tmux("capture-pane", "-p", "-S", "-2000")
    finally:
        tmux("kill-server")
    assert "ended" in whole
    trained = [screen for screen in screens if "training" in screen and "ETA" in screen]
    judged = [screen for screen in screens if "judging" in screen]
    assert trained
    assert judged
    for screen in screens:
        lines = screen.rstrip("\n").splitlines()
        assert len(lines) <= height
        assert all(len(line) <= width for line in lines)
    assert "topk at toy, l0 16" in trained[-1]
    assert "open " in whole
    assert "capitals are on the frontier" in whole.replace("\n", " ").replace("  ", " ")
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    parts = [
        f"the first words came {first:.1f} s after Enter (python and all, on a machine that others used too)",
        *("in training:", trained[len(trained) // 2].rstrip()),
        *("judging:", judged[-1].rstrip()),
        *("at the end:", "\n".join(whole.rstrip().splitlines()[-min(height, 40) :])),
    ]
    (EVIDENCE / f"{width}x{height}.txt").write_text("\n\n".join(parts) + "\n")


@pytest.mark.evidence
def test_piped_output_has_no_control_characters(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "sae_sweep.cli", *SWEEP[:1], "data=toy", "sae=topk", "sae.k=4,8", *SWEEP[6:]]
    done = subprocess.run([*line, f"output_dir={tmp_path}"], capture_output=True, cwd=ROOT, check=True)
    for text in (done.stdout.decode(), done.stderr.decode()):
        assert all(c.isprintable() or c == "\n" for c in text)
