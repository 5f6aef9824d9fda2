"""The number of cases that Hypothesis draws: a sample in the suite, CONVOXEL_DRAWN where it is set."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

__all__ = ["drawn"]


def drawn(sample: int) -> settings:
    """Return settings for a test that runs ``sample`` examples in the suite.

    ``CONVOXEL_DRAWN=1000 python -m pytest tests/nn/test_functional_matrix.py`` runs 1 000.
    """
    wanted = int(os.environ.get("CONVOXEL_DRAWN", "0"))
    return settings(
        max_examples=max(sample, wanted), deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
    )
