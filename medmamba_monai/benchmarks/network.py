"""Time of whole networks on CPUs: inference and training step of MedMamba beside MONAI's networks, in one run.

Ratios are to MONAI's DenseNet121 at the same input. Parity of the scan with the reference, and of the optimized network
with the plain one, is checked first; while it is red, no time is printed. Imports networks and monai.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import BackendError
from ..networks import MedMamba, create
from ..networks.medmamba import ScanMixer
from ..ops import index_table
from ..ops.selective_scan import dispatch, reference
from ..ops.selective_scan.contract import DirectionalInputs
from . import gpu, released_flow
from .machine import append_rows, describe
from .scan import check_parity, check_released_flow
from .timing import Timing, measure_together

__all__ = ["add_arguments", "check_optimized", "contestants", "run", "with_released_flow"]

_BASE = "MONAI DenseNet121"
_PARITY = 1e-4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train_batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8.0, help="time spent on each measurement")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/network.csv"))


def run(arguments: argparse.Namespace) -> None:
    """Measure, print ratios and write the table anew."""
    backend = dispatch.resolve("cpu")
    for name in {backend, "portable"}:
        check_parity(name)
    check_released_flow()
    check_optimized(create(arguments.preset, num_classes=6))
    before = torch.get_num_threads()
    torch.set_num_threads(arguments.threads)
    arguments.out.unlink(missing_ok=True)
    image = torch.rand(1, 3, arguments.size, arguments.size)
    batch = torch.rand(arguments.train_batch, 3, arguments.size, arguments.size)
    inference = {
        name: partial(_infer, network.eval(), image)
        for name, network in contestants(arguments.preset, arguments.size, inference=True).items()
    }
    _report(arguments, "inference, batch 1", measure_together(inference, arguments.seconds))
    training = {
        name: _training_step(network.train(), batch)
        for name, network in contestants(arguments.preset, arguments.size, inference=False).items()
    }
    _report(arguments, f"training step, batch {arguments.train_batch}", measure_together(training, arguments.seconds))
    torch.set_num_threads(before)
    gpu.report("network", arguments.out.with_name("gpu.csv"), arguments.seconds)


def check_optimized(network: MedMamba) -> None:
    """Compare the maps of all stages of the optimized network with those of the plain one.

    Raises:
        BackendError: when they differ by more than 1e-4 of the largest value.
    """
    axes = network.spatial_dims
    image = torch.rand((1, network.in_channels) + (72, 60, 48)[:axes], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want = network.eval().forward_features(image)
        got = network.optimize_for_inference().forward_features(image)
    worst = max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(got, want, strict=True))
    if not worst <= _PARITY:
        raise BackendError(f"the optimized network differs from the plain one by {worst:.1e}; no speed is reported")


def contestants(preset: str, size: int, inference: bool) -> dict[str, nn.Module]:
    """Build the networks to compare, all for 3 channels and 6 classes, with fresh weights.

    Args:
        preset: size of MedMamba.
        size: side of the image, which ViT must know.
        inference: whether to include what only makes sense without gradients.
    """
    from monai.networks.nets import ViT, densenet121, resnet50

    networks: dict[str, nn.Module] = {_BASE: densenet121(spatial_dims=2, in_channels=3, out_channels=6)}
    # the stem of the paper; MONAI's default stride of 1 takes four times the work
    networks["MONAI ResNet50"] = resnet50(spatial_dims=2, n_input_channels=3, num_classes=6, conv1_t_stride=2)
    networks["MONAI ViT-S/16"] = ViT(
        3, (size, size), (16, 16), 384, 1536, 12, 6, classification=True, num_classes=6, spatial_dims=2
    )
    networks[f"MedMamba {preset}"] = create(preset, num_classes=6)
    networks[f"MedMamba {preset}, portable scan"] = create(preset, num_classes=6, scan_backend="portable")
    if inference:
        folded = create(preset, num_classes=6).eval().optimize_for_inference()
        networks[f"MedMamba {preset}, optimize_for_inference"] = folded
        networks[f"{_BASE}, torch.jit.optimize_for_inference"] = _frozen(networks[_BASE], size)
        networks[f"MedMamba {preset}, released flow"] = with_released_flow(create(preset, num_classes=6))
    return networks


def _frozen(network: nn.Module, size: int) -> nn.Module:
    """The rival as PyTorch makes it fastest: traced, its batch norms folded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(network.eval(), torch.rand(1, 3, size, size))
        return torch.jit.optimize_for_inference(torch.jit.freeze(traced))


def with_released_flow(network: nn.Module, kernel: released_flow.Kernel = reference.sequence_scan) -> nn.Module:
    """Replace the scans of a network by the released data flow, with the reference loop or another kernel."""
    for mixer in network.modules():
        if isinstance(mixer, ScanMixer):
            mixer._scan = partial(_released_scan, mixer, kernel)  # type: ignore[method-assign]
            mixer.scan_backend = "reference"  # on GPUs, what surrounds the scan stays unfused as well
    return network


def _released_scan(
    mixer: ScanMixer,
    kernel: released_flow.Kernel,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    spatial: list[int],
) -> Tensor:
    order = index_table(mixer.scan, tuple(spatial), u.device)
    inputs = DirectionalInputs(u, dt, A, B, C, mixer.D, mixer.dt_weight, mixer.dt_bias, order)
    return released_flow.directional_scan(inputs, kernel)


def _infer(network: nn.Module, image: Tensor) -> None:
    with torch.inference_mode():
        network(image)


def _training_step(network: nn.Module, batch: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    labels = torch.arange(len(batch)) % 6

    def step() -> None:
        logits = network(batch)
        logits = logits[0] if isinstance(logits, tuple) else logits
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()

    return step


def _report(arguments: argparse.Namespace, task: str, timings: dict[str, Timing]) -> None:
    base = timings[_BASE].median
    rows = [
        {
            "task": task,
            "network": name,
            "size": arguments.size,
            "threads": arguments.threads,
            "median_ms": f"{timing.median:.1f}",
            "quartiles_ms": f"{timing.low:.1f} {timing.high:.1f}",
            "calls": timing.calls,
            "times_densenet121": f"{timing.median / base:.3f}",
            **describe(),
        }
        for name, timing in timings.items()
    ]
    append_rows(arguments.out, rows)
    print(f"{task}, {arguments.size} x {arguments.size}, {arguments.threads} threads")
    for name, timing in timings.items():
        print(f"  {name:<42} {timing.median:9.1f} ms   {timing.median / base:7.2f} x DenseNet121")
