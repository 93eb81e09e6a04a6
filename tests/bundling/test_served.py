"""A trained bundle as MLflow serves it: the numbers of its network, from paths and from bytes, and clear refusals."""

from __future__ import annotations

import base64
import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas
import pytest
import torch
from mlflow.exceptions import MlflowException
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from medmamba_monai.bundling.opened import open_trained
from medmamba_monai.bundling.served import ServedModel, _load_pyfunc, image_file
from medmamba_monai.engines import precision
from medmamba_monai.errors import DataError

BUNDLE = Path(__file__).parents[2] / "bundles" / "breast_ultrasound_classification"


@pytest.fixture(scope="module")
def model(generated_weights: Path) -> ServedModel:
    return ServedModel(open_trained(generated_weights.parent, BUNDLE, device="cpu"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten PNG files, more than one batch, and the first of them as DICOM."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (40 + 3 * number, 50), dtype=np.uint8) for number in range(10)]
    files = [folder / f"{number}.png" for number in range(10)]
    for array, file in zip(arrays, files, strict=True):
        Image.fromarray(array).save(file)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    picture = Dataset()
    picture.file_meta = meta
    picture.SOPClassUID, picture.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    picture.Rows, picture.Columns = arrays[0].shape
    picture.BitsAllocated = picture.BitsStored = 8
    picture.HighBit, picture.PixelRepresentation, picture.SamplesPerPixel = 7, 0, 1
    picture.PhotometricInterpretation, picture.Modality = "MONOCHROME2", "US"
    picture.PixelData = arrays[0].tobytes()
    picture.save_as(folder / "first.dcm", enforce_file_format=True)
    return [*files, folder / "first.dcm"]


def encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def expected(model: ServedModel, files: list[Path]) -> Any:
    """One at a time, by hand."""
    with torch.no_grad():
        rows = [model.trained.network(model.trained.read(str(file)).tensor[None]).double().softmax(1) for file in files]
    return torch.cat(rows).numpy()


def test_paths_and_bytes_give_the_networks_probabilities(model: ServedModel, pictures: list[Path]) -> None:
    frame = pandas.DataFrame({"other": 1, "image": list(map(str, pictures))}, index=range(5, 16))
    found = model.predict(frame)
    classes = model.trained.class_names
    wanted = expected(model, pictures)
    assert list(found.columns) == ["prediction", *classes]
    assert list(found.index) == list(range(5, 16))
    np.testing.assert_allclose(found[classes], wanted, atol=1e-6)
    assert list(found["prediction"]) == [classes[index] for index in wanted.argmax(1)]
    assert (found[classes].iloc[0] != found[classes].iloc[1]).all()
    np.testing.assert_array_equal(found[classes].iloc[0], found[classes].iloc[10])  # the same picture as DICOM
    by_bytes = model.predict([encoded(file) for file in pictures])
    pandas.testing.assert_frame_equal(by_bytes, found.reset_index(drop=True), atol=1e-6)


@pytest.mark.parametrize("form", ["text", "list", "records", "columns", "data address", "wrapped"])
def test_forms_of_input(model: ServedModel, pictures: list[Path], form: str) -> None:
    path, code = str(pictures[0]), encoded(pictures[0])
    wrapped = "\n".join(code[start : start + 76] for start in range(0, len(code), 76))
    given: Any = {
        "text": path, "list": [path], "records": [{"image": path}], "columns": {"image": [path]},
        "data address": [f"data:image/png;base64,{code}"], "wrapped": [wrapped],
    }[form]  # fmt: skip
    np.testing.assert_allclose(model.predict(given).iloc[:, 1:], expected(model, pictures[:1]), atol=1e-6)


def test_no_images_no_rows(model: ServedModel) -> None:
    assert list(model.predict({"image": []}).columns) == ["prediction", *model.trained.class_names]


def test_what_cannot_be_used_is_named(model: ServedModel, pictures: list[Path], tmp_path: Path) -> None:
    def refusal(value: Any) -> str:
        with pytest.raises(MlflowException) as caught:
            model.predict(value)
        assert caught.value.get_http_status_code() == 400
        return str(caught.value.message)

    good = str(pictures[0])
    assert "image 1: 'no/such.png' is neither an existing file" in refusal([good, "no/such.png"])
    assert "image 0: nan is neither" in refusal([float("nan")])
    assert "no column 'image' but ['picture']" in refusal([{"picture": good}])
    (tmp_path / "note.png").write_text("not a picture, only some text that is long enough")
    assert f"image 0: {tmp_path / 'note.png'}" in refusal([str(tmp_path / "note.png")])
    message = refusal([encoded(tmp_path / "note.png")])
    assert "image 0: the file given as base64 code" in message
    assert "/image" not in message  # the temporary file means nothing to who asked
    cut = base64.b64encode(pictures[0].read_bytes()[:200]).decode()
    assert "the file given as base64 code" in refusal([cut])


def test_what_looks_like_base64_and_is_too_short_is_a_mistyped_name() -> None:
    with pytest.raises(DataError, match="'lesion01' is neither"), image_file("lesion01"):
        pass


def test_temporary_files_are_gone_afterwards(pictures: list[Path]) -> None:
    with image_file(encoded(pictures[0])) as (path, _):
        assert path.read_bytes() == pictures[0].read_bytes()
    assert not path.parent.exists()


@pytest.mark.parametrize(("packed", "suffix"), [(False, ".nii"), (True, ".nii.gz")])
def test_volumes_are_told_by_their_bytes(packed: bool, suffix: str) -> None:
    content = nibabel.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.eye(4)).to_bytes()
    code = base64.b64encode(gzip.compress(content) if packed else content).decode()
    with image_file(code) as (path, _):
        assert path.name == f"image{suffix}"
        assert nibabel.load(path).shape == (8, 8, 8)


def test_several_classes_an_image(model: ServedModel) -> None:
    served = ServedModel(model.trained)
    served.several = True
    names = model.trained.class_names
    assert served._text([0.5, 0.2, 0.9]) == f"{names[0]}|{names[2]}"
    assert served._text([0.1, 0.2, 0.3]) == "No Finding"
    logits = served._probabilities([torch.zeros(1, 64, 64)])
    assert not torch.isclose(logits.sum(), torch.ones((), dtype=torch.float64))


def test_computes_in_the_precision_of_the_bundles_inference(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "amp_supported", lambda device: True)  # any CPU can, though slowly
    assert not model.trained.amp  # on a CPU
    images = [torch.linspace(-1, 1, 64 * 64).reshape(1, 64, 64)]
    found = ServedModel(replace(model.trained, amp=True))._probabilities(images)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = model.trained.network(torch.stack(images)).double().softmax(1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert not torch.equal(found, model._probabilities(images))


def test_mlflow_finds_the_loader(bundle: Path, weights: Path, pictures: list[Path]) -> None:
    (bundle / "models").mkdir()
    for file in weights.parent.iterdir():
        (bundle / "models" / file.name).write_bytes(file.read_bytes())
    assert len(_load_pyfunc(str(bundle)).predict([str(pictures[0])])) == 1
