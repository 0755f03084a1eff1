"""What is shown of a training to a target, at every width."""

import pytest

from hpcrnn.benchmarks.progress.training import TrainingProgress, training_line, training_view

NOW = TrainingProgress("numpy data=2", 7, 2, 3, 120, 1000, 12.34, (5.545, 4.1, 3.2, 2.9, 2.51), 2.2)


def texts(lines):
    return ["".join(text for text, _ in line) for line in lines]


def test_a_training_at_90_columns():
    assert texts(training_view(NOW, 90, False)) == [
        "training · numpy data=2 · seed 7 (2 of 3) · step 120, at most 1000 · 12 s",
        "held-out loss 2.51, target 2.2  █▅▂▂▁",
    ]


def test_a_plain_line_says_everything():
    assert training_line(NOW) == (
        "training numpy data=2, seed 7 (2 of 3): step 120, at most 1000, 12 s of training: held-out loss 2.51, "
        "target 2.2"
    )


@pytest.mark.parametrize("columns", [1, 5, 20, 33, 60, 200])
@pytest.mark.parametrize("in_ascii", [True, False])
def test_no_line_is_too_long(columns, in_ascii):
    lines = texts(training_view(NOW, columns, in_ascii))
    assert all(len(line) <= columns for line in lines)
    assert not in_ascii or all(line.isascii() for line in lines)
