"""The iteration against MONAI's own, its guards against NaN, and mixed precision where the machine has it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import nn

from medmamba_monai.engines import EvaluationStep, NumericsError, TrainingStep
from medmamba_monai.errors import ConfigError


def items(count: int = 12, poisoned: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(count):
        image = torch.rand(1, 6, 6, generator=generator)
        if index in poisoned:
            image[0, 0, 0] = math.nan
        found.append(
            {
                "image": MetaTensor(image, meta={"filename_or_obj": f"{index}.png"}),
                "label": index % 2,
                "file": f"f/{index}.png",
            }
        )
    return found


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2))


def trainer(step: Any, data: list[dict[str, Any]] | None = None, epochs: int = 2, **options: Any) -> Any:
    net = options.pop("network", None) or network()
    return SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=epochs, network=net,
        train_data_loader=DataLoader(Dataset(items() if data is None else data), batch_size=4),
        optimizer=torch.optim.SGD(net.parameters(), lr=options.pop("lr", 0.1)), loss_function=nn.CrossEntropyLoss(),
        iteration_update=step, **options,
    )  # fmt: skip


def state_of(engine: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in engine.network.state_dict().items()}


def test_equals_monais_iteration() -> None:
    events: dict[str, list[Any]] = {"ours": [], "stock": []}
    engines = {"ours": trainer(TrainingStep(clip_norm=None)), "stock": trainer(None)}
    for name, engine in engines.items():
        for event in IterationEvents:
            if event in (IterationEvents.INNER_ITERATION_STARTED, IterationEvents.INNER_ITERATION_COMPLETED):
                continue
            engine.add_event_handler(event, lambda engine, name=name, event=event: events[name].append(event))
        engine.run()
    assert events["ours"] == events["stock"] != []
    for name, value in engines["stock"].network.state_dict().items():
        assert torch.equal(value, engines["ours"].network.state_dict()[name]), name
    outputs = [engine.state.output[0] for engine in engines.values()]
    assert list(outputs[0]) == list(outputs[1]) == ["image", "label", "pred", "loss"]
    assert torch.equal(outputs[0]["pred"], outputs[1]["pred"])
    assert isinstance(outputs[0]["image"], MetaTensor)


def test_evaluation_equals_monais() -> None:
    results = []
    for step in (EvaluationStep(), None):
        net = network()
        predictions: list[torch.Tensor] = []
        engine = SupervisedEvaluator(
            device=torch.device("cpu"), val_data_loader=DataLoader(Dataset(items()), batch_size=4), network=net,
            iteration_update=step,
        )  # fmt: skip
        engine.add_event_handler(
            Events.ITERATION_COMPLETED,
            lambda engine, kept=predictions: kept.extend(item["pred"] for item in engine.state.output),
        )
        engine.run()
        assert not predictions[0].requires_grad
        results.append(torch.stack(predictions))
    assert torch.equal(results[0], results[1])


def test_the_network_gets_plain_tensors() -> None:
    seen = []

    class Looker(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(type(image))
            return self.inner(image)

    trainer(TrainingStep(), network=Looker(), epochs=1).run()
    assert set(seen) == {torch.Tensor}


def test_clipping_bounds_the_update() -> None:
    engine = trainer(TrainingStep(clip_norm=1e-3), epochs=1, lr=1.0)
    before = {name: value.clone() for name, value in engine.network.named_parameters()}
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), lambda engine: engine.terminate())
    engine.run()
    change = sum((value.detach() - before[name]).square().sum() for name, value in engine.network.named_parameters())
    assert float(change) == pytest.approx(1e-6, rel=1e-3)


def test_one_bad_batch_changes_nothing_and_training_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    engine = trainer(TrainingStep(), items(poisoned=(5,)), epochs=1)
    states: list[dict[str, torch.Tensor]] = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: states.append(state_of(engine)))
    engine.run()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name  # running statistics included
    assert not torch.equal(states[2]["0.weight"], states[1]["0.weight"])
    assert all(bool(torch.isfinite(value).all()) for value in states[2].values())
    assert "epoch 1, iteration 2: not finite, the step is not taken" in caplog.text
    assert "f/4.png, f/5.png, f/6.png, f/7.png" in caplog.text


def test_monais_iteration_is_ruined_by_it() -> None:
    """The control."""
    engine = trainer(None, items(poisoned=(5,)), epochs=1)
    engine.run()
    assert not bool(torch.isfinite(engine.network.state_dict()["0.weight"]).all())


def test_bad_batches_in_a_row_end_training_naming_the_files() -> None:
    engine = trainer(TrainingStep(max_nonfinite_steps=2), items(poisoned=(0, 4, 8)), epochs=1)
    with pytest.raises(NumericsError, match=r"epoch 1, iteration 2: not finite 2 times in a row.*f/4\.png"):
        engine.run()
    alternating = trainer(TrainingStep(max_nonfinite_steps=2), items(poisoned=(0, 8)), epochs=1)
    alternating.run()
    assert alternating.state.iteration == 3


def test_infinite_gradients_are_refused_too() -> None:
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * math.inf

    engine = trainer(TrainingStep(max_nonfinite_steps=1), epochs=1)
    loss = engine.loss_function
    engine.loss_function = lambda prediction, target: loss(Steep.apply(prediction), target)
    before = state_of(engine)
    with pytest.raises(NumericsError, match="gradient norm"):
        engine.run()
    for name, value in engine.network.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("amp", [True, "true"])
def test_mixed_precision(monkeypatch: pytest.MonkeyPatch, amp: Any) -> None:
    # CPUs without these units emulate them, which is slow but the same arithmetic
    monkeypatch.setattr("medmamba_monai.engines.precision.amp_supported", lambda device: True)
    dtypes = []
    engine = trainer(TrainingStep(amp=amp), epochs=1)
    engine.network[0].register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    engine.add_event_handler(
        IterationEvents.FORWARD_COMPLETED, lambda engine: dtypes.append(engine.state.output["pred"].dtype)
    )
    engine.run()
    assert set(dtypes) == {torch.bfloat16, torch.float32}
    assert dtypes[1] == torch.float32
    assert engine.scaler is None
    assert all(value.dtype != torch.bfloat16 for value in engine.network.state_dict().values())


def test_mixed_precision_is_refused_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmamba_monai.engines.precision.amp_supported", lambda device: False)
    with pytest.raises(ConfigError, match="'cpu' has no bfloat16 arithmetic.*--amp false"):
        trainer(TrainingStep(amp=True), epochs=1).run()
    trainer(TrainingStep(amp="false"), epochs=1).run()  # type: ignore[arg-type]


def test_engines_own_settings_that_would_be_ignored_are_refused() -> None:
    with pytest.raises(ConfigError, match="accumulation_steps=2"):
        trainer(TrainingStep(), accumulation_steps=2).run()
    engine = trainer(TrainingStep())
    engine.amp = True
    with pytest.raises(ConfigError, match="leave the trainer's amp out"):
        TrainingStep()(engine, {})
    engine.amp = True
    with pytest.raises(ConfigError, match="leave the evaluator's amp out"):
        EvaluationStep()(engine, {})


@pytest.mark.parametrize("options", [{"clip_norm": 0}, {"clip_norm": -1}, {"max_nonfinite_steps": 0}, {"amp": "ye"}])
def test_arguments_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TrainingStep(**options)


@pytest.mark.gpu
def test_mixed_precision_on_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    net = network().cuda()
    engine = SupervisedTrainer(
        device=torch.device("cuda"), max_epochs=1, network=net,
        train_data_loader=DataLoader(Dataset(items(poisoned=(5,))), batch_size=4),
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1), loss_function=nn.CrossEntropyLoss(),
        iteration_update=TrainingStep(amp=True),
    )  # fmt: skip
    engine.run()
    assert all(bool(torch.isfinite(value).all()) for value in net.state_dict().values())
