"""The keys of a bundle that people override: what each means and which values it takes.

One table serves three readers: the check of a run's overrides, the bundles' docs, and the tests that
compare it with the configs. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["KEYS", "KINDS", "PARTS", "Key", "as_flag", "normal"]


@dataclass(frozen=True)
class Key:
    """One key to override: its name, the kind of value it takes (see `KINDS`) and its meaning in one line."""

    name: str
    kind: str
    meaning: str


def as_flag(value: Any) -> bool | None:
    """Read yes or no from what a command line may deliver; None where it is neither.

    Example:
        >>> as_flag("False"), as_flag(1), as_flag("maybe")
        (False, True, None)
    """
    if isinstance(value, str):
        return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}.get(value.lower())
    return bool(value) if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_size(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return 1 <= len(value) <= 3 and all(_is_whole(length, 32) for length in value)
    return _is_whole(value, 32)


def _is_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 1 and all(isinstance(name, str) for name in value)


def _is_folders(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, (list, tuple)) and all(map(_is_text, value)))


def _is_window(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value)) and value[1] > 0


def _is_frame(value: Any) -> bool:
    return value == "middle" or _is_whole(value, 0)


def _is_spacing(value: Any) -> bool:
    lengths = value if isinstance(value, (list, tuple)) else [value] * 3
    return len(lengths) == 3 and all(_is_number(length) and length > 0 for length in lengths)


def _is_axes(value: Any) -> bool:
    if not _is_text(value) or len(value) != 3:
        return False
    return all(len(set(pair) & set(value)) == 1 for pair in ("RL", "AP", "SI"))


def _is_layout(value: Any) -> bool:
    return isinstance(value, dict) and value.get("kind") in ("folders", "table", "npz")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _optional(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _one_of(*choices: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(choices)}", lambda value: value in choices


KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "text": ("a text", _is_text),
    "text?": ("a text or null", _optional(_is_text)),
    "flag": ("true or false", lambda value: isinstance(value, bool)),
    "flag or path": ("true, false or a path", lambda value: isinstance(value, bool) or _is_text(value)),
    "count": ("a whole number of at least 1", lambda value: _is_whole(value, 1)),
    "whole": ("a whole number of at least 0", lambda value: _is_whole(value, 0)),
    "open share": ("a number above 0 and below 1", lambda value: _is_number(value) and 0 < value < 1),
    "rate": ("a number above 0", lambda value: _is_number(value) and value > 0),
    "amount": ("a number of at least 0", lambda value: _is_number(value) and value >= 0),
    "fraction": ("a number from 0 to below 1", lambda value: _is_number(value) and 0 <= value < 1),
    "share": ("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1),
    "size": ("a whole number of at least 32, or a list of such", _is_size),
    "folders?": ("null, a folder or a list of folders", _optional(_is_folders)),
    "names?": ("null or a list of two or more names", _optional(_is_names)),
    "color": _one_of("grey", "rgb"),
    "window?": ("null or a list of a centre and a width above 0", _optional(_is_window)),
    "frame?": ("null, middle or a whole number of at least 0", _optional(_is_frame)),
    "spacing?": ("null, a number above 0 or a list of three", _optional(_is_spacing)),
    "axes?": ("null or three letters such as PLS", _optional(_is_axes)),
    "metric": _one_of(
        *("balanced_accuracy", "accuracy", "auc", "f1", "quadratic_kappa"),
        *("average_precision", "sensitivity", "specificity", "exact_match", "mcc", "kappa"),
        *("brier", "log_loss", "ece", "hamming_loss"),
    ),
    "task": _one_of("multiclass", "multilabel"),
    "uncertain": _one_of("refuse", "negative", "positive"),
    "split": _one_of("test", "validation", "training"),
    "flag or pixels": (
        "true, false or one of 28, 64, 128 and 224",
        lambda value: isinstance(value, bool) or (isinstance(value, int) and value in (28, 64, 128, 224)),
    ),
    "layout?": ("null or a dictionary with the kind folders, table or npz", _optional(_is_layout)),
    "any": ("anything", lambda value: True),
}
"""Kinds of value: how an error names them, and the test that a value has to pass."""


def normal(kind: str, value: Any) -> Any:
    """Turn a value as a command line delivers it into what the kind means, where there is no doubt.

    Example:
        >>> normal("flag", "false"), normal("text", 7), normal("text?", "null"), normal("names?", ("a", "b"))
        (False, '7', None, ['a', 'b'])
    """
    if kind.startswith("flag"):
        flag = as_flag(value)
        return value if flag is None else flag
    if kind.endswith("?") and isinstance(value, str) and value.lower() in ("null", "none"):
        return None
    if kind.startswith("text") and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


KEYS = (
    Key("bundle_root", "text", "folder of the bundle; default: the one the config file lies in"),
    Key(
        "dataset_dir",
        "text",
        "folder with the images: one subfolder a class, or a labels.csv, or a MedMNIST npz",
    ),
    Key(
        "datalist",
        "text?",
        "JSON or CSV file that lists images, labels and splits; null: made from dataset_dir",
    ),
    Key(
        "class_names",
        "names?",
        "class names in the order of the network's outputs; null: as found in the data",
    ),
    Key(
        "layout",
        "layout?",
        "how a public archive in dataset_dir is laid out, as the files dataset_NAME.json say; null: as found",
    ),
    Key(
        "download",
        "flag or pixels",
        "fetch a MedMNIST set that dataset_dir lacks: true (in the size that suits image_size), 28, 64, 128 or 224",
    ),
    Key(
        "task",
        "task",
        "multiclass: each image has one class; multilabel: any number of them; evaluate and inference read it from "
        "model.json",
    ),
    Key(
        "uncertain_labels",
        "uncertain",
        "what -1 in a class's column means, multilabel only: refuse, negative (0) or positive (1); an empty cell is "
        "refused or 0",
    ),
    Key(
        "allow_leakage",
        "flag",
        "train although given splits share patients or pictures, which flatters the scores; what was found is recorded",
    ),
    Key(
        "ckpt_dir",
        "text",
        "where model.pt (weights), model.json (what they need) and the last training state lie",
    ),
    Key("output_dir", "text", "where the data list, metrics, predictions and the MLflow database are written"),
    Key("image_size", "size", "height and width in pixels, of volumes depth too: one number, or one an axis"),
    Key("color", "color", "grey (one channel) or rgb (three); files of the other kind are converted"),
    Key(
        "window",
        "window?",
        "[centre, width] of the grey values of DICOM and NIfTI files, HU for CT; null: the file's own window, "
        "of volumes values as stored",
    ),
    Key(
        "frame",
        "frame?",
        "frame, slice or time point to read from files that hold several: a number from 0, or middle",
    ),
    Key("spacing", "spacing?", "voxel length in mm that volumes are resampled to, one or three; null: as stored"),
    Key(
        "orientation",
        "axes?",
        "sides that rows, columns and slices of volumes run towards, such as PLS; null: as stored",
    ),
    Key("series", "text?", "UID or description of the series to read from folders that hold several"),
    Key("batch_size", "count", "images a step, for each process"),
    Key("epochs", "count", "passes over the training part"),
    Key("learning_rate", "rate", "AdamW's highest learning rate, reached after the warm-up"),
    Key("weight_decay", "amount", "AdamW's decay; norms, biases and the scan's A_log and D are left out"),
    Key("warmup_epochs", "amount", "epochs (fractions allowed) of linear warm-up ahead of the cosine schedule"),
    Key("label_smoothing", "fraction", "label smoothing of the loss"),
    Key("clip_norm", "rate", "largest gradient norm; longer gradients are scaled down to it"),
    Key(
        "class_weights",
        "flag",
        "weight the loss by inverse class frequency; multilabel: positive answers by negatives over positives",
    ),
    Key("balanced_sampling", "flag", "draw training images so that classes are equally frequent; multiclass only"),
    Key("ema", "flag", "validate and keep a moving average of the weights instead of the weights"),
    Key("ema_decay", "fraction", "share of the moving average that a step keeps"),
    Key("early_stop_patience", "whole", "validations without improvement after which training stops; 0: never"),
    Key("val_interval", "count", "epochs between validations"),
    Key(
        "key_metric",
        "metric",
        "validation metric that decides which weights are kept; default for multilabel: auc, the mean over classes",
    ),
    Key("preset", "text", "size of the network: nano, tiny, small or base"),
    Key("network_def", "any", "the network itself: any `_target_` that maps (B, C, H, W) to (B, classes)"),
    Key("pretrained", "text?", "weights to start from; the head is replaced when the classes differ"),
    Key(
        "exported",
        "text?",
        "file of `python -m medmamba_monai export` to predict with, in place of the weights in ckpt_dir",
    ),
    Key("tta", "flag", "average each image's predictions over the flips that training used; model.json records them"),
    Key(
        "ensemble",
        "folders?",
        "folders of further weights (model.pt, model.json) to average predictions with: a list, or one",
    ),
    Key(
        "resume",
        "flag or path",
        "continue the last training in ckpt_dir (true), or the state in the given file",
    ),
    Key(
        "conformal_alpha",
        "open share",
        "share of prediction sets that may lack the true class, below 1; used when calibration.json is fitted",
    ),
    Key("calibrated", "flag", "give predictions the temperature that was fitted on the validation part"),
    Key(
        "prediction_sets",
        "flag",
        "write the column prediction_set: the classes that hold the true one with probability 1 - conformal_alpha",
    ),
    Key(
        "ood_score",
        "flag",
        "write the column ood_score: how unlike the validation images an image is; above 1: more than 95 % of them",
    ),
    Key("device", "text", "cpu, cuda or cuda:1"),
    Key("amp", "flag", "bfloat16 autocast where the device supports it"),
    Key("num_workers", "whole", "processes that load images"),
    Key("cache_rate", "share", "share of the images kept in memory after reading and resizing"),
    Key("cache_num", "whole", "largest number of images kept in memory; default: what fits in 2 GB"),
    Key("seed", "whole", "seed of the split, of the initial weights and of the augmentation"),
    Key("split", "split", "part of the data that evaluate looks at"),
    Key("explain_examples", "whole", "images whose explanation evaluate draws, errors first; 0: none"),
    Key("progress", "flag", "show a progress bar"),
    Key("report", "flag", "draw figures; evaluate also writes report.html, one page with all results"),
    Key("mlflow", "flag", "record the run with MLflow"),
    Key("tracking_uri", "text?", "MLflow server or database; default: sqlite in output_dir"),
    Key("experiment_name", "text", "MLflow experiment"),
    Key("run_name", "text?", "MLflow run; null: a unique name is made"),
    Key("parent_run_id", "text?", "MLflow run that this one is shown under, as a fold or a trial; null: none"),
    Key("log_model", "flag", "record the trained network with MLflow as a model to load or serve"),
    Key(
        "system_metrics",
        "flag",
        "record the load of processor, memory, disk, network and GPU with MLflow; needs psutil",
    ),
    Key("save_execute_config", "flag or path", "write the config that was run beside the outputs"),
)
"""Every key, in the order the docs list them."""

PARTS = frozenset(
    {
        *("imports", "initialize", "run", "finalize", "train", "validate"),
        *(
            "data_source",
            "spatial_dims",
            "in_channels",
            "spatial_size",
            "splits",
            "classes",
            "preprocessing",
            "postprocessing",
        ),
        *("model_info", "initial_network", "network", "loss", "optimizer", "steps_per_epoch", "lr_scheduler"),
        *("dataset", "dataloader", "inferer", "handlers", "evaluator"),
        *("calibrate", "calibration", "averaging"),
    }
)
"""The other top-level keys of the bundles: parts that the keys above set up."""
