"""MedMamba for MONAI: state-space networks for medical image classification, with fast selective scans.

Importing this package registers the network as ``monai.networks.nets.MedMamba`` and loads neither MONAI nor anything
else that is heavy beside torch.
"""

from . import registration
from .errors import BackendError, CheckpointError, ConfigError, DataError, MedMambaError
from .networks import MedMamba

__all__ = [
    "BackendError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "MedMamba",
    "MedMambaError",
    "__version__",
]
__version__ = "0.1.0"

registration.register()
