"""The places of test files, and the names of classes."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_file_of_unit_tests_stands_where_its_module_does() -> None:
    """Each unit test file has the path of its module: `unit/a/test_b.py` or `unit/a/test_b_aspect.py` for `a/b.py`."""
    units, package = ROOT / "tests" / "unit", ROOT / "server" / "antiphon"
    tests = [path.relative_to(units) for path in units.rglob("test_*.py")]
    assert tests

    def module(test: Path) -> bool:
        words = test.stem.removeprefix("test_").split("_")
        names = ("_".join(words[:count]) for count in range(1, len(words) + 1))
        return any((package / test.with_name(f"{name}.py")).exists() for name in names)

    assert [test for test in tests if not module(test)] == []


def test_each_public_class_has_a_name_of_its_own() -> None:
    """No two public classes of the server share a name. Generated files do not count."""
    package = ROOT / "server" / "antiphon"
    files = [path for path in package.rglob("*.py") if "_pb2" not in path.name]
    trees = [ast.parse(path.read_text()) for path in files]
    names = Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert names
    assert [name for name, count in names.items() if count > 1 and not name.startswith("_")] == []
