"""An exported file says what it was made for; one that cannot be used is refused with its name and a remedy."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import pytest
import torch

import medmamba_monai
from medmamba_monai.errors import BackendError, CheckpointError, ConfigError
from medmamba_monai.networks.exported import FORMATS, ExportedNetwork, format_of, read_info

from .conftest import Export, Small


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_file_says_of_itself(name: str, exported: Export) -> None:
    info = read_info(exported.files[name])
    made_with = info.extra.pop("exported_with")
    assert dataclasses.asdict(info) == dataclasses.asdict(exported.info)
    assert made_with["medmamba_monai"] == medmamba_monai.__version__


@pytest.mark.parametrize("name", FORMATS)
def test_an_exported_network_stays_in_evaluation_mode(name: str, exported: Export) -> None:
    network = ExportedNetwork(exported.files[name])
    assert (network.format, network.num_classes, network.in_channels) == (name, 3, 1)
    assert not network.train().training
    assert not network.eval().to("cpu").training
    assert list(network.parameters()) == []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(torch.randn(2, 1, 32, 40)).dtype == torch.float32


@pytest.mark.parametrize("name", FORMATS)
def test_images_of_another_shape_are_refused(name: str, exported: Export) -> None:
    network = ExportedNetwork(exported.files[name])
    with pytest.raises(ConfigError, match="exported for"):
        network(torch.zeros(1, 3, 32, 40))
    if name != "torchscript":
        with pytest.raises(ConfigError, match=r"\(1, 40, 32\).*\(1, 32, 40\)"):
            network(torch.zeros(1, 1, 40, 32))


@pytest.mark.parametrize("suffix", FORMATS.values())
def test_files_that_are_not_what_they_should_be(suffix: str, exported: Export, tmp_path: Path) -> None:
    file = tmp_path / f"net{suffix}"
    with pytest.raises(CheckpointError, match="there is no such file"):
        ExportedNetwork(file)
    file.write_bytes(b"not a network at all")
    with pytest.raises(CheckpointError, match=f"net{suffix}"):
        ExportedNetwork(file)
    other = {".ts": "torch_export", ".onnx": "torchscript", ".pt2": "torchscript"}[suffix]
    shutil.copy(exported.files[other], file)
    with pytest.raises(CheckpointError, match=f"net{suffix}"):
        ExportedNetwork(file)
    whole = exported.files[format_of(file)].read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=f"net{suffix}"):
        ExportedNetwork(file)


def test_a_file_of_another_origin_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Small().eval()), str(tmp_path / "net.ts"))
    with pytest.raises(CheckpointError, match=r"does not say.*python -m medmamba_monai export"):
        ExportedNetwork(tmp_path / "net.ts")
    torch.jit.save(
        torch.jit.script(Small().eval()), str(tmp_path / "net.ts"), _extra_files={"model.json": '{"channels": 1}'}
    )
    with pytest.raises(CheckpointError, match="does not say"):
        read_info(tmp_path / "net.ts")
    torch.jit.save(torch.jit.script(Small().eval()), str(tmp_path / "net.ts"), _extra_files={"model.json": "{"})
    with pytest.raises(CheckpointError, match="description cannot be read"):
        read_info(tmp_path / "net.ts")


def test_the_end_of_the_name_tells_the_format() -> None:
    assert [format_of(f"a/b{suffix}") for suffix in FORMATS.values()] == list(FORMATS)
    with pytest.raises(CheckpointError, match=r"\.ts \(torchscript\), \.onnx \(onnx\), \.pt2 \(torch_export\)"):
        format_of("models/model.pt")


def test_a_missing_package_or_provider_is_named(exported: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
        with pytest.raises(BackendError, match=r"CUDAExecutionProvider.*--device cpu"):
            ExportedNetwork(exported.files["onnx"], "cuda:0")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"onnxruntime.*medmamba_monai\[export\]"):
        read_info(exported.files["onnx"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["torchscript", "torch_export"])
def test_it_runs_on_a_gpu(name: str, exported: Export) -> None:
    images = torch.randn(2, 1, 32, 40)
    logits = ExportedNetwork(exported.files[name], "cuda")(images.cuda())
    assert logits.is_cuda
    with torch.no_grad():
        torch.testing.assert_close(logits.cpu(), exported.network(images), atol=1e-3, rtol=0)
