"""Kinds of one thing (architectures, forms, analyses, clusters ...): siblings that follow one protocol.

Ours are the modules of a folder; others are installed with entry points in a group of that name. Names are known
without importing anything, and a kind is imported when it is asked for: planning must not bring in torch.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoints, entry_points
from pkgutil import iter_modules
from types import ModuleType


class Kinds(Mapping[str, ModuleType]):
    """The kinds in one folder, by name, and those of other packages; each is a module that follows the protocol."""

    def __init__(self, package: str, group: str, inside: str = "") -> None:
        """`package` is the folder's dotted name, `group` that of the entry points. Where a kind is a folder itself,
        `inside` names the module of it that is meant."""
        self._package, self._group, self._inside = package, group, inside

    def __getitem__(self, name: str) -> ModuleType:
        if name not in self._modules:
            raise KeyError(name)
        module = self._modules[name]
        return import_module(f"{module}.{self._inside}" if self._inside else module)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    @property
    def _modules(self) -> dict[str, str]:
        """Dotted names by kind: ours first, and no other package can take the name of one of them."""
        return {point.name: point.value for point in _installed(self._group)} | _own(self._package, bool(self._inside))


@cache
def _own(package: str, folders: bool) -> dict[str, str]:
    """The public modules of a package, or the folders among them."""
    found = iter_modules(import_module(package).__path__)
    return {m.name: f"{package}.{m.name}" for m in found if m.ispkg == folders and not m.name.startswith("_")}


@cache
def _installed(group: str) -> EntryPoints:
    """What installed packages offer: reading their metadata takes tens of milliseconds."""
    return entry_points(group=group)
