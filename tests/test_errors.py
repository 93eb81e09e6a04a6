"""What an error's message is made of."""

from __future__ import annotations

import pytest

from medmamba_monai.errors import BackendError, CheckpointError, ConfigError, DataError, MedMambaError


def test_message_says_where_what_and_what_to_do() -> None:
    error = DataError("label 'benig' is unknown.", where="labels.csv, row 7", remedy="did you mean 'benign'?")
    assert str(error) == "labels.csv, row 7: label 'benig' is unknown. Remedy: did you mean 'benign'?"
    assert (error.where, error.remedy) == ("labels.csv, row 7", "did you mean 'benign'?")
    assert str(DataError("no images")) == "no images"


@pytest.mark.parametrize("kind", [BackendError, CheckpointError, ConfigError, DataError])
def test_one_family(kind: type[MedMambaError]) -> None:
    with pytest.raises(MedMambaError):
        raise kind("x")
