"""Tiny copies of public archives: their folders, tables and file names as published, pictures of a few pixels."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

PARTS = ("training", "validation", "test")
CLASSES = {
    "pad_ufes_20": ["ACK", "BCC", "MEL", "NEV", "SCC", "SEK"],
    "fetal_planes_db": ["Fetal abdomen", "Fetal brain", "Fetal femur", "Fetal thorax", "Maternal cervix", "Other"],
    "cpn_xray": ["COVID", "NORMAL", "PNEUMONIA"],
    "kvasir": [
        *("dyed-lifted-polyps", "dyed-resection-margins", "esophagitis", "normal-cecum"),
        *("normal-pylorus", "normal-z-line", "polyps", "ulcerative-colitis"),
    ],
    "cervical_us": ["benign", "metastatic", "normal", "primary"],
    "otoscopy2024": [
        *("acute otitis media", "cholesteatoma of middle ear", "chronic suppurative otitis media"),
        *("external auditory canal bleeding", "impacted cerumen", "normal eardrum", "otomycosis externa"),
        *("secretory otitis media", "tympanic membrane calcification"),
    ],
    "pathmnist": [
        *("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa"),
        *("cancer-associated stroma", "colorectal adenocarcinoma epithelium"),
    ],
    "dermamnist": [
        *("actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma", "benign keratosis-like lesions"),
        *("dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions"),
    ],
    "octmnist": ["choroidal neovascularization", "diabetic macular edema", "drusen", "normal"],
    "pneumoniamnist": ["normal", "pneumonia"],
    "retinamnist": ["0", "1", "2", "3", "4"],
    "breastmnist": ["malignant", "normal, benign"],
    "bloodmnist": [
        *("basophil", "eosinophil", "erythroblast"),
        "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
        *("lymphocyte", "monocyte", "neutrophil", "platelet"),
    ],
} | {
    name: [
        *("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver"),
        *("lung-left", "lung-right", "pancreas", "spleen"),
    ]
    for name in ("organamnist", "organcmnist", "organsmnist")
}
"""The classes in the order of their numbers, written down independently of the presets."""


@dataclass(frozen=True)
class Truth:
    """What a stand-in holds, by file: the class, the patient (None: not known), the part (None: not published)."""

    labels: dict[str, str]
    groups: dict[str, str | None]
    parts: dict[str, str | None]


def picture(path: Path, number: int, color: bool = True) -> None:
    """A noisy picture whose brightness tells the class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (10, 12, 3) if color else (10, 12)
    noise = np.random.default_rng(zlib.crc32(path.name.encode())).integers(0, 40, shape)
    Image.fromarray((20 * number + noise).astype(np.uint8)).save(path)


def folders(root: Path, name: str, suffix: str, color: bool, per_class: int = 8) -> Truth:
    """A folder a class."""
    labels = {}
    for number, label in enumerate(CLASSES[name]):
        for index in range(per_class):
            file = f"{label}/{label[:4]}-{number:02}{index:03}{suffix}"
            picture(root / file, number, color)
            labels[file] = label
    return Truth(labels, dict.fromkeys(labels), dict.fromkeys(labels))


def pad_ufes_20(root: Path) -> Truth:
    """metadata.csv with the publisher's columns beside three folders of PNG files; two pictures a patient."""
    rows, labels, groups = [], {}, {}
    for number, label in enumerate(CLASSES["pad_ufes_20"]):
        for index in range(8):
            patient = f"PAT_{100 * number + index // 2}"
            name = f"{patient}_{900 + index // 2}_{index:03}.png"
            file = f"images/imgs_part_{1 + index % 3}/{name}"
            picture(root / file, number)
            rows.append({"patient_id": patient, "lesion_id": 900 + index // 2, "smoke": "", "age": 50 + index})
            rows[-1] |= {"diagnostic": label, "itch": "True", "img_id": name, "biopsed": "False"}
            labels[file], groups[file] = label, patient
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return Truth(labels, groups, dict.fromkeys(labels))


def fetal_planes_db(root: Path) -> Truth:
    """The semicolon table, whose last column's name ends in a blank and whose image names lack their suffix."""
    lines = ["Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train "]
    labels, groups, parts = {}, {}, {}
    for number, label in enumerate(CLASSES["fetal_planes_db"]):
        for index in range(12):
            patient, train = 1 + 6 * number + index // 2, index < 8
            name = f"Patient{patient:05}_Plane{number + 1}_{index % 2 + 1}_of_2"
            file = f"Images/{name}.png"
            picture(root / file, number, color=index % 4 > 0)
            brain = "Trans-thalamic" if label == "Fetal brain" else "Not A Brain"
            lines.append(f"{name};{patient};{label};{brain};Op. 1;Voluson E6;{int(train)}")
            labels[file], groups[file], parts[file] = label, str(patient), "training" if train else "test"
    (root / "FETAL_PLANES_DB_data.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Truth(labels, groups, parts)


def npz(root: Path, name: str, file: str | None = None) -> Truth:
    """An archive with the arrays that MedMNIST has: images (N, H, W[, 3]) and labels (N, 1), both uint8."""
    color = name in ("pathmnist", "dermamnist", "retinamnist", "bloodmnist")
    classes, file = CLASSES[name], file or f"{name}.npz"
    rng = np.random.default_rng(1)
    arrays, labels, parts = {}, {}, {}
    for part, short, per_class in zip(PARTS, ("train", "val", "test"), (4, 2, 2), strict=True):
        numbers = rng.permutation(np.repeat(np.arange(len(classes)), per_class))
        noise = rng.integers(0, 40, (len(numbers), 28, 28, *([3] if color else [])))
        level = 20 * numbers.reshape(-1, *[1] * (noise.ndim - 1))
        arrays |= {f"{short}_images": (level + noise).astype(np.uint8)}
        arrays |= {f"{short}_labels": numbers.astype(np.uint8)[:, None]}
        for index, number in enumerate(numbers):
            labels[f"{file}#{short}/{index}"] = classes[number]
            parts[f"{file}#{short}/{index}"] = part
    root.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(root / file, **arrays)
    return Truth(labels, dict.fromkeys(labels), parts)


MAKERS: dict[str, Callable[[Path], Truth]] = {
    "pad_ufes_20": pad_ufes_20,
    "fetal_planes_db": fetal_planes_db,
    "cpn_xray": lambda root: folders(root, "cpn_xray", ".png", color=False),
    "kvasir": lambda root: folders(root, "kvasir", ".jpg", color=True),
    "cervical_us": lambda root: folders(root, "cervical_us", ".png", color=False),
    "otoscopy2024": lambda root: folders(root, "otoscopy2024", ".jpg", color=True),
}


def make(name: str, root: Path) -> Truth:
    """Write the stand-in of a data set."""
    return MAKERS[name](root) if name in MAKERS else npz(root, name)
