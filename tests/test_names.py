"""Names in the package: the field's words, each class name once, files and folders of a readable size."""

import ast
import io
import re
import tokenize
from collections import defaultdict
from pathlib import Path

import sightline

PACKAGE = Path(sightline.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
#: Participles that tell a reader nothing of what a value is or what a function does.
BANNED = {"told", "made", "asked", "said"}
#: Names that Python's own protocols give.
ALLOWED = {"connection_made"}
MAX_FILES, MAX_LINES, MAX_PUBLIC = 400, 400, 40


def _names(path: Path) -> set[str]:
    text = path.read_text(encoding="utf-8")
    return {
        token.string for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.NAME
    }


def test_no_identifier_is_a_bare_participle_of_saying_or_making() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in FILES
        for name in _names(path) - ALLOWED
        if set(re.split("_+", name.lower())) & BANNED
    }
    assert found == set()


def test_no_two_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    own = {name: files for name, files in places.items() if len(set(files)) > 1}
    assert own == {}


def test_the_package_stays_readable() -> None:
    assert len(FILES) <= MAX_FILES
    assert [path for path in FILES if path.read_text(encoding="utf-8").count("\n") > MAX_LINES] == []
    assert len(sightline.__all__) <= MAX_PUBLIC
