"""The methods of explanations in words; no PyTorch, so that pictures can name them."""

from __future__ import annotations

#: The methods and what their maps show, in the order in which they are shown.
METHODS = {
    "gradcam++": "where features of a layer support the score",
    "occlusion": "drop of the score where a window covers the image",
    "integrated-gradients": "each pixel's share in the score, against an image of mean intensity",
    "field": "influence of each input on one unit, and the exact receptive field of the unit",
}
