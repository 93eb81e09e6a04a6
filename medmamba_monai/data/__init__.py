"""Data: datalists with leak-free splits, one reader for medical pictures, checks.

May import networks, ops and errors; never engines, handlers or metrics. Importing it registers the reader
with MONAI.
"""

from medmamba_monai.data.builder import build_datalist
from medmamba_monai.data.check import check_datalist
from medmamba_monai.data.datalist import Datalist, Record
from medmamba_monai.data.duplicates import Duplicates, find_duplicates
from medmamba_monai.data.folders import list_images
from medmamba_monai.data.foreground import FitForegroundd, NormalizeForegroundd
from medmamba_monai.data.image import MedicalImage, read_image
from medmamba_monai.data.leakage import Leakage, find_leakage
from medmamba_monai.data.medmnist_fetch import fetch_medmnist
from medmamba_monai.data.prepare import prepare_datalist
from medmamba_monai.data.reader import MedMambaImageReader, ReadImaged
from medmamba_monai.data.report import CheckReport
from medmamba_monai.data.source import DataSource
from medmamba_monai.data.spacing import ResampleToSpacingd
from medmamba_monai.data.splits import assign_splits
from medmamba_monai.data.stain import RandStainJitterd
from medmamba_monai.data.storage import preprocessing_digest

__all__ = [
    "CheckReport",
    "DataSource",
    "Datalist",
    "Duplicates",
    "FitForegroundd",
    "Leakage",
    "MedMambaImageReader",
    "MedicalImage",
    "NormalizeForegroundd",
    "RandStainJitterd",
    "ReadImaged",
    "Record",
    "ResampleToSpacingd",
    "assign_splits",
    "build_datalist",
    "check_datalist",
    "fetch_medmnist",
    "find_duplicates",
    "find_leakage",
    "list_images",
    "prepare_datalist",
    "preprocessing_digest",
    "read_image",
]
