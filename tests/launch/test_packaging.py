"""What gets installed: configs inside the package, plugins where Hydra looks for them."""

import os
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PLUGINS = REPOSITORY / "sae_sweep" / "launch" / "hydra" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a wheel, as an installation has them."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def python(code: str, path: Path, cwd: Path) -> str:
    """What `code` prints in a process that finds this package only at `path`."""
    isolated = f"import sys; sys.path = [p for p in sys.path if {str(REPOSITORY)!r} not in p or 'site-packages' in p]\n"
    result = subprocess.run(
        [sys.executable, "-c", f"{isolated}sys.path.insert(0, {str(path)!r})\n{code}"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": ""},
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout


def test_a_wheel_holds_configs_and_plugins_once(installed: Path) -> None:
    files = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    configs = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "configs").rglob("*.yaml")}
    assert {f"sae_sweep/{name}" for name in configs} <= files
    plugins = {str(path.relative_to(PLUGINS)) for path in PLUGINS.rglob("*.py")}
    assert plugins == {"hydra_plugins/sae_sweep.py"}
    assert plugins <= files
    assert "sae_sweep/py.typed" in files
    assert not any("hydra/plugin" in name for name in files)
    assert "hydra_plugins/__init__.py" not in files, "other packages have plugins too"
    assert not any(name.startswith(("tests/", "scripts/", "configs/", "outputs/")) for name in files)


def test_an_installed_wheel_finds_its_configs_and_plugins(installed: Path, tmp_path: Path) -> None:
    code = (
        "from sae_sweep import cli\n"
        "from sae_sweep.config.files import config_folder\n"
        "print(config_folder())\n"
        "sys.exit(cli.main(['+experiment=gated_gemma', 'dry_run=true']))\n"
    )
    lines = python(code, installed, tmp_path).splitlines()
    assert lines[0] == str(installed / "sae_sweep" / "configs")
    assert lines[1].startswith("outputs/gated_gemma: 13 members")
    assert list(tmp_path.iterdir()) == []


def test_the_plugins_in_use_are_those_of_this_checkout() -> None:
    module = import_module("hydra_plugins.sae_sweep")
    here = PLUGINS / "hydra_plugins" / "sae_sweep.py"
    assert Path(str(module.__file__)).read_text() == here.read_text(), "an installed copy is out of date"


def test_a_checkout_uses_its_own_configs() -> None:
    from sae_sweep.config.files import config_folder

    assert config_folder() == REPOSITORY / "configs"
