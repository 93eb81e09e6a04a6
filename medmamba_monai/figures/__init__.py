"""Figures of trainings and evaluations as PNG files, for people with every kind of colour vision.

May import ``errors``, ``data``, ``handlers``, ``metrics`` and matplotlib; needs neither MLflow nor a display.
"""

from medmamba_monai.figures.gallery import FOLDER, NAMES, draw_batch, draw_evaluation, draw_history
from medmamba_monai.figures.pictures import Mistake, worst_mistakes
from medmamba_monai.figures.style import Heading

__all__ = [
    "FOLDER",
    "NAMES",
    "Heading",
    "Mistake",
    "draw_batch",
    "draw_evaluation",
    "draw_history",
    "worst_mistakes",
]
