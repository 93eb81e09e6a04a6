"""Explanations of classifications: pixel contributions by route, Grad-CAM, occlusion, and whether they hold.

May import networks, ops and errors; never data, engines, handlers or metrics. docs/explain.md introduces it.
"""

from .explanation import METHODS, Explanation, Method, explain
from .faithfulness import Faithfulness, deletion_insertion, peak_inside, rank_correlation, with_random_weights

__all__ = [
    "METHODS",
    "Explanation",
    "Faithfulness",
    "Method",
    "deletion_insertion",
    "explain",
    "peak_inside",
    "rank_correlation",
    "with_random_weights",
]
