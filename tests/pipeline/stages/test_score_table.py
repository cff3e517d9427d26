"""The one table of all methods."""

import re

import pytest

from pipeline.stages.score_table import COLUMNS, ScoreRow, best_step, read_score_table, write_score_table
from runtime.errors import DataError

HEADER = ",".join(COLUMNS)
ROWS = [
    ScoreRow("a", "loop", 0, 0, 3, 10, 0.1 + 0.2),
    ScoreRow("a", "loop", 1, 0, 0, 10, -1e-300),
    ScoreRow("a", "loop", 0, 1, 2, 5, 1e6),
]


def test_rows_come_back_exactly(tmp_path):
    write_score_table(tmp_path / "scores.csv", ROWS)
    assert (tmp_path / "scores.csv").read_text().splitlines()[0] == "task,method,seed,step,solved,trials,return"
    assert read_score_table(tmp_path / "scores.csv") == ROWS


def test_the_best_step_is_that_of_the_highest_mean_over_seeds_and_of_equal_ones_the_first():
    assert best_step(ROWS) == 1
    assert best_step([ScoreRow("a", "loop", 0, step, 5, 10, 0.0) for step in (4, 2, 3)]) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("task,method\n", "has the columns task, method, expected task, method, seed"),
        (f"{HEADER}\na,b,0,0,11,10,1\n", "line 2: 11 of 10 episodes solved"),
        (f"{HEADER}\na,b,0,0,0,0,1\n", "line 2: 0 of 0 episodes solved"),
        (f"{HEADER}\na,b,0,0,1,10,1\na,b,x,0,1,10,1\n", "line 3: invalid literal"),
        (f"{HEADER}\na,b,0\n", "line 2: "),
        (f"{HEADER}\na,b,0,0,1,10,1\na,b,0,0,2,10,1\n", "line 3: b on a, seed 0, step 0 again"),
    ],
)
def test_a_table_with_anything_else_is_refused_with_the_line(tmp_path, content, message):
    path = tmp_path / "scores.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}: {message}')}"):
        read_score_table(path)
