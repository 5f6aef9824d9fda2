"""What a network is, before it runs: shapes, costs and receptive fields of every step.

Read in this order:

``step``        one step of a network, as data
``vocabulary``  which operator a PyTorch function is
``trace``       a PyTorch module becomes steps, run without data
``sight``       what every step sees of the image
``describe``    the public function: steps become a table
``summary``     the table, printed or as a dict
"""

from __future__ import annotations

from convoxel.inspect.describe import describe
from convoxel.inspect.summary import Row, Summary

__all__ = ["Row", "Summary", "describe"]
