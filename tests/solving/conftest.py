"""What several files of this folder solve with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridges.julia.engine import using_backend


@pytest.fixture
def stand_in() -> Iterator[None]:
    """SciPy in the Julia engine's worker."""
    with using_backend("tests.bridges.stand_in:StandIn"):
        yield
