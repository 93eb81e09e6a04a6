"""The table of MedMNIST class names and sums is complete and well formed."""

from __future__ import annotations

import re

from medmamba_monai.data.medmnist_table import MEDMNIST_CLASSES, MEDMNIST_MD5


def test_every_set_has_names_and_sums_for_every_size() -> None:
    assert len(MEDMNIST_CLASSES) == 18
    for name, classes in MEDMNIST_CLASSES.items():
        assert len(set(classes)) == len(classes) >= 2
        sizes = ("", "_64") if name.endswith("3d") else ("", "_64", "_128", "_224")
        assert all(f"{name}{size}.npz" in MEDMNIST_MD5 for size in sizes)
    assert all(re.fullmatch("[0-9a-f]{32}", value) for value in MEDMNIST_MD5.values())
    assert len(set(MEDMNIST_MD5.values())) == len(MEDMNIST_MD5) == 12 * 4 + 6 * 2
