"""Config files as Hydra reads them; one that cannot be read is told by its name.

With anchors a page of YAML stands for terabytes (`a: &a [x, x]`, `b: &b [*a, *a]`, ...), and OmegaConf copies what they
stand for, so that is counted first.
"""

import re
from pathlib import Path

import yaml  # type: ignore[import-untyped]
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf.errors import OmegaConfBaseException

from sae_sweep.errors import ConfigError, first_line

MOST_BYTES, MOST_ENTRIES = 2**20, 10**5
"""Of one file. The largest that ships has 2 kB and 60 entries."""
_ALIAS = re.compile(r"(?:^|[\s,\[{])\*\w", re.MULTILINE)


class CheckedFiles(FileConfigSource):
    """Hydra's own source of config files, with errors that name the file."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Hydra's entry: the entries of one file."""
        file = Path(self.path, self._normalize_file_name(config_path))
        try:
            if file.is_file():  # Hydra has words for one that is not
                _check(file)
            return super().load_config(config_path)
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file}: not UTF-8 text; save it as such") from error
        except RecursionError as error:
            raise ConfigError(f"{file}: nested too deeply, or an anchor that holds itself") from error
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror or first_line(error)}") from error
        except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError) as error:
            raise ConfigError(f"{file}: no entries of a config ({first_line(error)})") from error


def check_files() -> None:
    """Have Hydra read files as above for the rest of this process."""
    Plugins.instance()  # which brings its own source
    SourcesRegistry.instance().types["file"] = CheckedFiles


def _check(file: Path) -> None:
    """Raises ConfigError for a file of more than a config has."""
    size = file.stat().st_size
    text = file.read_text(encoding="utf-8") if size <= MOST_BYTES else ""
    entries = _entries(yaml.compose(text, yaml.SafeLoader), {}) if _ALIAS.search(text) else 0
    if size > MOST_BYTES or entries > MOST_ENTRIES:
        what = f"{size} bytes" if size > MOST_BYTES else f"{entries:.3g} entries, with its anchors copied"
        raise ConfigError(f"{file}: has {what}; a config has at most {MOST_BYTES} bytes and {MOST_ENTRIES} entries")


def _entries(node: yaml.Node | None, known: dict[int, float]) -> float:
    """How many nodes a node is, once every alias is a copy."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1.0
    if id(node) not in known:
        known[id(node)] = float("inf")  # what it holds itself
        parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1.0 + sum(_entries(part, known) for part in parts)
    return known[id(node)]
