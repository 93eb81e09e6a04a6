"""Where mixed precision is allowed."""

from __future__ import annotations

import pytest
import torch

from medmamba_monai.engines import amp_supported, autocast
from medmamba_monai.engines.precision import is_on
from medmamba_monai.errors import ConfigError


def test_off_changes_nothing() -> None:
    with autocast("cpu", False):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_on_is_bfloat16_or_refused() -> None:
    if amp_supported("cpu"):
        with autocast("cpu", True):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    else:
        with pytest.raises(ConfigError, match="no bfloat16"):
            autocast("cpu", True)


def test_devices_without_it() -> None:
    assert not amp_supported("meta")
    with pytest.raises(ConfigError, match="device 'meta'"):
        autocast("meta", True)
    if not torch.cuda.is_available():
        assert not amp_supported("cuda:0")


def test_switches_of_the_command_line() -> None:
    assert [is_on(value) for value in (True, "true", False, "False", None)] == [True, True, False, False, False]
    with pytest.raises(ConfigError, match="amp='1'"):
        is_on("1")
