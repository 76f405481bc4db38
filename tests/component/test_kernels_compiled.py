"""Machine code of small kernels: the same results as plain Python, and entry points that are found once."""

import numpy as np
import pytest

from skyshore.rules.kernel import compiled, entry
from skyshore.rules.records import NODE, put, rows
from skyshore.rules.reserve import mark_full, update_open
from skyshore.rules.reward import quantile

pytest.importorskip("numba", reason="numba is not installed: pip install 'skyshore[sim]'")

pytestmark = pytest.mark.timeout(300)


def test_a_compiled_kernel_writes_records_as_the_plain_one_does():
    found = []
    for arrays in (False, True):
        nodes = rows(NODE, 1, arrays=arrays)
        put(nodes[0], {"own": 1.0, "capacity": 3.0, "open": 1})
        (compiled(mark_full) if arrays else mark_full)(nodes[0])
        found.append([nodes[0][name] if arrays else getattr(nodes[0], name) for name in ("foreign", "open", "own")])
    assert found[0] == found[1] == [2.0, 0, 1.0]
    assert compiled(update_open) is compiled(update_open), "it is made once"


def test_an_entry_point_gives_what_the_kernel_gives_at_the_first_call_and_later():
    call, values = entry(quantile), np.array([1.0, 2.0, 4.0, 8.0])
    shares = (0.0, 0.5, 0.9, 1.0)
    assert [call(values, 4, share) for share in shares] == [quantile(values.tolist(), 4, share) for share in shares]
