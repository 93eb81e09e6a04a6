"""The networks: MedMamba in all sizes, checkpoints, released weights. Imports ops and errors, never monai."""

from .checkpoints import load_pretrained, load_strictly, load_weights
from .inference import optimize_for_inference
from .medmamba import MedMamba
from .model_info import ModelInfo
from .presets import (
    PRESETS,
    create,
    medmamba_base,
    medmamba_base_released,
    medmamba_nano,
    medmamba_small,
    medmamba_small_released,
    medmamba_tiny,
    preset_name,
)
from .released import from_released_state_dict, to_released_state_dict

__all__ = [
    "PRESETS",
    "MedMamba",
    "ModelInfo",
    "create",
    "from_released_state_dict",
    "load_pretrained",
    "load_strictly",
    "load_weights",
    "medmamba_base",
    "medmamba_base_released",
    "medmamba_nano",
    "medmamba_small",
    "medmamba_small_released",
    "medmamba_tiny",
    "optimize_for_inference",
    "preset_name",
    "to_released_state_dict",
]
