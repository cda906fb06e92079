"""One kind of table for everything that has a name: losses, builders, benchmarks, judges, writers, layouts, families.

A registry maps a name to an entry, which says in one line what the thing is and where it is; nothing is imported until
the thing itself is asked for. Other packages add entries by entry points, your own file by `--plugin` or the
environment variable `SIGHTLINE_PLUGINS`. What an entry of one kind holds beside that is the kind's own class.
"""

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, Union

from pydantic import Field

from sightline.errors import InputError

#: Entry points of this group are modules that register entries when they are imported.
PLUGIN_GROUP = "sightline.plugins"
#: Sightline's own entry points of that group; an installation from before they existed lacks them.
OWN_PLUGINS = frozenset({"lab", "recipes"})
#: Modules or files that register entries, separated by the path separator of the system.
PLUGIN_VARIABLE = "SIGHTLINE_PLUGINS"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A named thing: `target` is the thing itself or "package.module:attribute", `help` one line about it."""

    target: Any
    help: str = ""

    def load(self) -> Any:
        """The thing itself, imported if it is given by its place.

        Raises:
            InputError: the module or the attribute cannot be imported.
        """
        return load_target(self.target) if isinstance(self.target, str) else self.target


E = TypeVar("E")


class Registry(MutableMapping[str, E], Generic[E]):
    """Entries of one kind by name, in the order in which they were added; own ones first, then those of plugins.

    `kind` is the word that errors use, such as "builder". `group` is the group of entry points by which other packages
    add to this registry, and `foreign(target, package)` makes an entry of "package.module:attribute". A registry whose
    entries are the things themselves takes `load_target`.
    """

    def __init__(
        self, kind: str, group: str, foreign: Callable[[str, str], E], entries: Mapping[str, E] | None = None
    ) -> None:
        self.kind, self.group, self._foreign = kind, group, foreign
        self._entries: dict[str, E] = dict(entries or {})
        self._complete = self._pointed = False

    def add(self, name: str, entry: E) -> None:
        """Register an entry.

        Raises:
            InputError: another entry has that name.
        """
        known = self._entries.get(name)
        if known is not None and known != entry:
            raise InputError(f"there are two {self.kind}s called {name!r}; rename one of them")
        self._entries[name] = entry

    def entry(self, name: str) -> E:
        """The entry of that name.

        Raises:
            InputError: there is none; the nearest name is suggested.
        """
        self._discover()
        if name not in self._entries:
            near = get_close_matches(name, self._entries, n=1, cutoff=0.0)
            remedy = f"did you mean {near[0]!r}?" if near else "none is registered."
            raise InputError(f"there is no {self.kind} {name!r}; {remedy}{_install_hint()}")
        return self._entries[name]

    def load(self, name: str) -> Any:
        """The thing of that name; errors as of `entry` and `Entry.load`."""
        entry = self.entry(name)
        return entry.load() if isinstance(entry, Entry) else entry

    def __getitem__(self, name: str) -> E:
        self._discover()
        return self._entries[name]

    def __setitem__(self, name: str, entry: E) -> None:
        self._discover()
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(self._entries)

    def __len__(self) -> int:
        self._discover()
        return len(self._entries)

    def known(self) -> Mapping[str, E]:
        """The entries so far, without loading plugins: for code that runs while its module is being imported.

        A plugin that is loaded then would find half-imported modules. Commands load plugins first.
        """
        self._add_entry_points()
        return self._entries

    def _discover(self) -> None:
        """Add what other packages offer, once."""
        if not self._complete:
            self._complete = True  # before plugins run, which look into registries themselves
            load_plugins()
            self._add_entry_points()

    def _add_entry_points(self) -> None:
        if self._pointed:
            return
        self._pointed = True
        for point in entry_points(group=self.group):
            try:
                self.add(point.name, self._foreign(point.value, _origin(point)))
            except InputError as error:
                log.warning("%s %r is left out: %s", self.kind, point.name, error)


def config_union(classes: Iterable[Any]) -> Any:
    """The type of a config section that is one of several classes, told apart by their `name`."""
    return Annotated[Union[tuple(classes)], Field(discriminator="name")]  # noqa: UP007 - made at run time


def load_target(target: str, origin: str = "") -> Any:
    """What "package.module:attribute" names; `origin` is the package that registered it, if another.

    Raises:
        InputError: it cannot be imported.
    """
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        package = f" of {origin}" if origin else ""
        raise InputError(f"{target}{package} cannot be imported ({error}); install it or correct the name") from error


_loaded: set[str] = set()


def load_plugins() -> None:
    """Import every plugin once: those of installed packages, then those that the environment variable names.

    A plugin of an installed package that fails is reported and left out; one that the user names must load.
    """
    for point in entry_points(group=PLUGIN_GROUP):
        if point.value in _loaded:
            continue
        _loaded.add(point.value)
        try:
            importlib.import_module(point.value)
        except Exception as error:  # noqa: BLE001 - another package's code must not end every command
            log.warning("plugin %r of %s is left out: %s", point.name, _origin(point), error)
    for place in filter(None, os.environ.get(PLUGIN_VARIABLE, "").split(os.pathsep)):
        load_plugin(place)


def load_plugin(place: str) -> None:
    """Import a module or run a Python file that registers entries; a second time does nothing.

    Raises:
        InputError: there is no such module or file, or it fails.
    """
    if place in _loaded:
        return
    _loaded.add(place)
    try:
        if place.endswith(".py"):
            _import_file(Path(place))
        else:
            importlib.import_module(place)
    except InputError:
        raise
    except Exception as error:
        _loaded.discard(place)
        raise InputError(f"plugin {place} cannot be loaded ({type(error).__name__}: {error})") from error


def _import_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"plugin {path} does not exist; name a Python file or an importable module")
    name = f"sightline_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"plugin {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic and pickle look classes up by their module
    spec.loader.exec_module(module)


def _install_hint() -> str:
    """How to repair an installation whose metadata lack Sightline's own entry points; empty where they are there."""
    missing = OWN_PLUGINS - {point.name for point in entry_points(group=PLUGIN_GROUP)}
    if not missing:
        return ""
    names = " and ".join(sorted(missing))
    return f" (the installation lacks Sightline's entry points {names}: install it again with `pip install -e .`)"


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "another package"
