"""For tests of published numbers, which hold for the benchmark's elements and not where some were added to an axis."""

import pytest

from offline_compositional_rl_datasets.composuite import AXES

benchmark_axes = pytest.mark.skipif(
    [len(elements) for elements in AXES.values()] != [4, 4, 4, 4], reason="holds for the benchmark's own elements"
)
