"""What is written of an explanation: names, maps in the place of the file, overlays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureTyped
from PIL import Image

from medmamba_monai.bundling.explained import against_mean, file_stem, in_file, names_of, write_map, write_overlay
from medmamba_monai.bundling.opened import PreparedImage, open_trained, read_prepared
from medmamba_monai.data import FitForegroundd, ReadImaged, ResampleToSpacingd
from medmamba_monai.data.phantom_volume import phantom_head, write_nifti
from medmamba_monai.explain import Explanation


def explanation_of(prepared: PreparedImage, row: int, column: int) -> Explanation:
    """A map with one bright pixel of the network's input."""
    maps = torch.zeros(1, 1, *prepared.tensor.shape[1:])
    maps[0, 0, row, column] = 1
    return Explanation("gradcam", maps, torch.tensor([0]), torch.tensor([[0.7, 0.3]]), {})


@pytest.fixture
def head(tmp_path: Path) -> PreparedImage:
    """A volume stored with other axes than the network's, resampled and cropped on its way into it."""
    volume, affine = phantom_head("wide", 0)
    write_nifti(tmp_path / "head.nii.gz", volume, affine)
    steps = [
        ReadImaged("image", color="grey", spatial_dims=3, scale=None, orientation="PLS"),
        ResampleToSpacingd("image", spacing=5),
        FitForegroundd("image", spatial_size=[40, 28, 36]),
        EnsureTyped("image", dtype=torch.float32, track_meta=False),
    ]
    return read_prepared(Compose(steps), str(tmp_path / "head.nii.gz"))


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
    assert file_stem("a/b c.png", ["a_b_c_overlay.png", "a_b_c_2_overlay.png"]) == "a_b_c_3"
    assert file_stem("x.npz#train/17", []) == "x.npz_train_17"
    assert file_stem("../../é?.png", []) == "é"
    assert file_stem("???.png", []) == "image"


def test_names_of_several_classes_are_joined_as_in_predictions() -> None:
    assert names_of([True, True], ["a", "b"]) == "a|b"
    assert names_of([False, False], ["a", "b"]) == "No Finding"


def test_contributions_keep_their_sum_in_the_pixels_of_the_file(bundle: Path, weights: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((160, 200), dtype=np.uint8)).save(tmp_path / "a.png")
    prepared = open_trained(weights.parent, bundle, device="cpu").read(str(tmp_path / "a.png"))
    rows, columns = (torch.linspace(-4, 4, side) for side in prepared.tensor.shape[1:])
    maps = torch.exp(-(rows[:, None] ** 2) - columns**2)[None, None]
    given = Explanation("scan", maps, torch.tensor([0]), torch.tensor([[0.7, 0.3]]), {"a route": maps / 2})
    whole, part = in_file(prepared, given)
    assert whole.shape == (160, 200)
    assert whole.sum() == pytest.approx(float(maps.sum()), rel=0.03)
    assert part.sum() == pytest.approx(float(maps.sum()) / 2, rel=0.03)
    occluded = in_file(prepared, given._replace(method="occlusion"))[0]
    assert occluded.max() == pytest.approx(1, abs=0.05)


def test_contributions_keep_their_sum_in_the_voxels_of_the_file(head: PreparedImage) -> None:
    axes = [torch.linspace(-5, 5, side) for side in head.tensor.shape[1:]]
    maps = torch.exp(-sum(grid**2 for grid in torch.meshgrid(*axes, indexing="ij")))[None, None]
    heat = in_file(head, Explanation("scan", maps, torch.tensor([0]), torch.tensor([[0.7, 0.3]]), {}))[0]
    assert heat.shape == head.picture.shape[1:]
    assert heat.sum() == pytest.approx(float(maps.sum()), rel=0.03)


def test_the_sides_of_a_volume_are_named_where_they_are_known(
    head: PreparedImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medmamba_monai.bundling import explained

    seen = []
    monkeypatch.setattr(explained, "overlay_figure", lambda *args, **options: seen.append(options["orientation"]))
    monkeypatch.setattr(explained, "figure_png", lambda figure: b"")
    given = Explanation("gradcam", torch.zeros(1), torch.tensor([0]), torch.tensor([[1.0]]), {})
    for prepared in (head, replace(head, affine=np.diag([1.0, 2.0, 3.0, 1.0]))):
        write_overlay(tmp_path / "o.png", prepared, [head.picture[0]], given, "title")
    assert seen == ["PLS", ""]


def test_the_map_of_a_nifti_file_has_its_voxel_grid(head: PreparedImage, tmp_path: Path) -> None:
    stored = nibabel.load(tmp_path / "head.nii.gz")
    assert stored.shape != head.picture.shape[1:]
    written = nibabel.load(tmp_path / write_map(tmp_path, "head", head, head.picture[0]))
    assert written.get_filename().endswith("head_map.nii.gz")
    np.testing.assert_allclose(written.affine, stored.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(stored.dataobj))


def test_log_odds_of_the_image_and_of_its_mean() -> None:
    class Sums(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x[:, 0, 0, 0], x[:, 0, 0, 1]], 1)

    given = Explanation("scan", torch.zeros(1, 1, 1, 2), torch.tensor([1]), torch.tensor([[0.5, 0.5]]), {})
    told = against_mean(Sums(), torch.tensor([[[[1.0, 4.0]]]]), given, "multiclass")
    assert told == {"log_odds": 3.0, "log_odds_of_mean_image": 0.0}
