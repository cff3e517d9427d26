"""docs/differences.md names the test that holds each row: those tests exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "differences.md").read_text()
ROWS = {int(row[0]): row for row in (line.strip("| ").split(" | ") for line in TEXT.splitlines()) if row[0].isdigit()}


def _tests_of(name):
    """The names of the tests in a file that the document calls by its subject."""
    found = list((ROOT / "tests").rglob(f"{name}.py" if "/" in name else f"test_{name}.py"))
    assert len(found) == 1, f"{name}: expected one file of that name below tests/, not {len(found)}"
    [path] = found
    return re.findall(r"^def test_(\w+)", path.read_text(), re.MULTILINE)


def _named(cell):
    """File -> what is named of it, in a cell such as "`loop`: this, that; `state`"."""
    parts = re.split(r"[;,] (?=`)", re.sub(r" \([^)]*\)", "", cell))
    for part in parts:
        file, _, names = part.partition(":")
        yield file.strip("` "), [name.strip() for name in re.split("[;,]", names) if name.strip()]


def test_every_defect_has_its_row():
    assert sorted(ROWS) == list(range(1, 45))


@pytest.mark.parametrize("number", sorted(ROWS))
def test_a_row_names_tests_that_exist(number):
    cell = ROWS[number][-1]
    for file, names in _named(cell):
        found = _tests_of(file)
        assert found, file
        for name in names:
            assert any(name in test for test in found), f"row {number}: test_{file}.py has no {name}"


def test_files_that_the_text_names_exist():
    for path in re.findall(r"`((?:tests|config|pipeline|corl|diffusion)/[\w/]+\.\w+)`", TEXT):
        assert (ROOT / path).exists(), path
