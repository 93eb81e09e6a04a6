"""Parts of MONAI's engines: iteration, optimiser groups, schedule, class balance, seeds.

Configs name them. May import ``errors``; knows neither handlers, data nor metrics.
"""

from medmamba_monai.engines.averaging import AveragingInferer
from medmamba_monai.engines.balance import class_weights, evaluation_sampler, train_sampler
from medmamba_monai.engines.compare import better_metric
from medmamba_monai.engines.loss import MultiLabelLoss, classification_loss
from medmamba_monai.engines.numerics import NumericsError
from medmamba_monai.engines.optim import parameter_groups
from medmamba_monai.engines.ordinal import OrdinalLoss
from medmamba_monai.engines.precision import amp_supported, autocast
from medmamba_monai.engines.schedule import warmup_cosine
from medmamba_monai.engines.seed import loader_generator, seed_everything
from medmamba_monai.engines.step import EvaluationStep, TrainingStep

__all__ = [
    "AveragingInferer",
    "EvaluationStep",
    "MultiLabelLoss",
    "NumericsError",
    "OrdinalLoss",
    "TrainingStep",
    "amp_supported",
    "autocast",
    "better_metric",
    "class_weights",
    "classification_loss",
    "evaluation_sampler",
    "loader_generator",
    "parameter_groups",
    "seed_everything",
    "train_sampler",
    "warmup_cosine",
]
