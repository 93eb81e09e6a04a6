"""The MONAI reader and the loading transform."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, LoadImage, LoadImaged, Resized
from monai.transforms.io.array import SUPPORTED_READERS
from PIL import Image

from medmamba_monai.data import MedMambaImageReader, ReadImaged, list_images
from medmamba_monai.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(4):
        Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    Image.fromarray(rng.integers(0, 256, (6, 9), dtype=np.uint8)).save(tmp_path / "4.png")
    return tmp_path


@pytest.mark.parametrize(("color", "channels"), [("grey", 1), ("rgb", 3)])
def test_transform_gives_rows_first_meta_tensors(folder: Path, color: str, channels: int) -> None:
    for item in list_images(folder):
        result = ReadImaged("image", color=color)(item)
        image = result["image"]
        assert isinstance(image, MetaTensor)
        assert image.dtype == torch.float32
        assert image.shape == (channels, 6, 9)
        assert image.min() >= 0 and image.max() <= 1
        assert image.meta["filename_or_obj"] == item["image"]
        assert image.meta["original_channel_dim"] == 0
        assert result["file"] == item["file"]
        oracle = np.asarray(Image.open(item["image"]).convert("L" if channels == 1 else "RGB"), dtype=np.float32)
        np.testing.assert_allclose(image.numpy() * 255, oracle.reshape(6, 9, channels).transpose(2, 0, 1), atol=0.51)


@pytest.mark.parametrize("context", [None, pytest.param("spawn", marks=pytest.mark.slow)])
def test_batches_from_workers(folder: Path, context: str | None) -> None:
    transform = Compose([ReadImaged("image", color="grey"), Resized("image", (8, 8))])
    workers = {"num_workers": 1, "multiprocessing_context": context} if context else {"num_workers": 0}
    loader = DataLoader(Dataset(list_images(folder), transform), batch_size=5, **workers)
    (batch,) = list(loader)
    assert batch["image"].shape == (5, 1, 8, 8)
    assert batch["image"].meta["filename_or_obj"][0].endswith("0.png")


def test_transform_can_be_pickled_and_misses_keys_as_asked(folder: Path) -> None:
    transform = pickle.loads(pickle.dumps(ReadImaged("image", color="grey", window=(40, 400))))
    assert transform({"image": str(folder / "0.png")})["image"].shape == (1, 6, 9)
    with pytest.raises(KeyError):
        transform({})
    assert ReadImaged("image", allow_missing_keys=True)({"x": 1}) == {"x": 1}
    with pytest.raises(ConfigError, match="color"):
        ReadImaged("image", color="blue")


def test_errors_keep_their_one_message(folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"bad.png: is empty"):
        ReadImaged("image")({"image": str(folder / "bad.png")})


def test_registered_by_name_only_and_not_in_the_way(folder: Path) -> None:
    assert SUPPORTED_READERS["medmambaimagereader"] is MedMambaImageReader
    path = str(folder / "0.png")
    ours = LoadImage(reader="MedMambaImageReader", color="rgb")(path)
    assert ours.shape == (3, 6, 9)
    # without a name MONAI's own reader is used, with its own axes
    assert LoadImage()(path).shape == (9, 6, 3)
    loaded = LoadImaged("image", reader=MedMambaImageReader(color="grey"), ensure_channel_first=True)({"image": path})
    assert loaded["image"].shape == (1, 6, 9)


def test_reader_by_itself(folder: Path) -> None:
    reader = MedMambaImageReader(color="grey")
    paths = [folder / "0.png", folder / "1.png"]
    array, meta = reader.get_data(reader.read(paths))
    assert array.shape == (2, 6, 9)
    assert meta["filename_or_obj"] == str(paths[0])
    assert reader.verify_suffix(paths)
    assert reader.verify_suffix("x.npz#train/3")
    assert not reader.verify_suffix("x.txt")
    with pytest.raises(ConfigError, match="read"):
        reader.read(paths, color="rgb")
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / "small.png")
    with pytest.raises(DataError, match="small.png: has the size"):
        reader.get_data(reader.read([paths[0], folder / "small.png"]))


def test_no_warning_of_an_absent_codec(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LoadImage()(str(folder / "0.png"))
    assert not [record for record in caplog.records if "odec" in record.getMessage()]
