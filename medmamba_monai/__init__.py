"""MedMamba for MONAI: state-space networks for medical image classification."""

__version__ = "0.1.0"
