"""What is written of an explanation: names, maps in the place of the file, overlays."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image

from medmamba_monai.bundling.explained import file_stem, in_file, names_of, write_map, write_overlay
from medmamba_monai.bundling.opened import PreparedImage, open_trained
from medmamba_monai.data.phantom_volume import phantom_head, write_nifti
from medmamba_monai.explain import Explanation


def explanation_of(prepared: PreparedImage, row: int, column: int) -> Explanation:
    """A map with one bright pixel of the network's input."""
    maps = torch.zeros(1, 1, *prepared.tensor.shape[1:])
    maps[0, 0, row, column] = 1
    return Explanation("gradcam", maps, torch.tensor([0]), torch.tensor([[0.7, 0.3]]), {})


def test_a_map_lies_in_the_pixels_of_the_file(bundle: Path, weights: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((90, 120), dtype=np.uint8)).save(tmp_path / "a.png")
    prepared = open_trained(weights.parent, bundle, device="cpu").read(str(tmp_path / "a.png"))
    rows, columns = prepared.tensor.shape[1:]
    heat = in_file(prepared, explanation_of(prepared, rows // 4, columns // 2))[0]
    assert heat.shape == (90, 120)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert abs(row - 90 * 0.25) <= 2
    assert abs(column - 120 * 0.5) <= 2
    write_overlay(tmp_path / "o.png", prepared, [heat], explanation_of(prepared, 0, 0), "title")
    with Image.open(tmp_path / "o.png") as image:
        image.verify()
    name = write_map(tmp_path, "o", prepared, heat)
    assert np.array_equal(np.load(tmp_path / name), heat)


def test_the_map_of_a_volume_lies_over_it(tmp_path: Path) -> None:
    volume, affine = phantom_head("wide", 0)
    write_nifti(tmp_path / "head.nii.gz", volume, affine)
    heat = np.random.default_rng(0).random(volume.shape).astype(np.float32)
    prepared = PreparedImage(torch.zeros(1), heat[None], affine, None, None)  # type: ignore[arg-type]
    written = nibabel.load(tmp_path / write_map(tmp_path, "map", prepared, heat))
    np.testing.assert_allclose(written.affine, affine)
    np.testing.assert_array_equal(np.asarray(written.dataobj), heat)


def test_names_of_files_are_kept_apart_and_harmless() -> None:
    assert file_stem("a/b c.nii.gz", []) == "a_b_c"
    assert file_stem("a/b c.png", ["a_b_c", "a_b_c_2"]) == "a_b_c_3"
    assert file_stem("x.npz#train/17", []) == "x.npz_train_17"
    assert file_stem("../../é?.png", []) == "é"
    assert file_stem("???.png", []) == "image"


def test_names_of_several_classes_are_joined_as_in_predictions() -> None:
    assert names_of([True, True], ["a", "b"]) == "a|b"
    assert names_of([False, False], ["a", "b"]) == "No Finding"
