"""Handlers for MONAI's engines: checkpoints, resuming, reproducible epochs, MLflow, predictions, one a file.

Configs name them. May import ``errors`` and ``networks``; knows neither engines, data nor metrics.
"""

from medmamba_monai.handlers.checkpoint import CheckpointHandler, training_run
from medmamba_monai.handlers.early_stopping import EarlyStopping
from medmamba_monai.handlers.ema import ExponentialMovingAverage
from medmamba_monai.handlers.feature_recorder import FeatureRecorder
from medmamba_monai.handlers.history import History, read_history
from medmamba_monai.handlers.mlflow_client import default_tracking_uri
from medmamba_monai.handlers.mlflow_tracker import MLflowTracker, record_model
from medmamba_monai.handlers.predictions import PredictionWriter
from medmamba_monai.handlers.progress import Progress
from medmamba_monai.handlers.reproducible import ReproducibleEpochs
from medmamba_monai.handlers.resume import resume_training
from medmamba_monai.handlers.signals import PREEMPTED_EXIT_CODE, Preempted, TerminateOnSignal
from medmamba_monai.handlers.weights import load_weights_for_inference

__all__ = [
    "PREEMPTED_EXIT_CODE",
    "CheckpointHandler",
    "EarlyStopping",
    "ExponentialMovingAverage",
    "FeatureRecorder",
    "History",
    "MLflowTracker",
    "PredictionWriter",
    "Preempted",
    "Progress",
    "ReproducibleEpochs",
    "TerminateOnSignal",
    "default_tracking_uri",
    "load_weights_for_inference",
    "read_history",
    "record_model",
    "resume_training",
    "training_run",
]
