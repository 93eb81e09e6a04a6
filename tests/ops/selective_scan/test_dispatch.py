"""Choosing a backend: the printed order, the variable, and that nothing is replaced in silence."""

from __future__ import annotations

import shutil
import warnings
from types import SimpleNamespace

import pytest

from medmamba_monai.errors import BackendError
from medmamba_monai.ops import explain
from medmamba_monai.ops.selective_scan import dispatch


@pytest.fixture
def fresh():  # type: ignore[no-untyped-def]
    caches = (dispatch.unavailable, dispatch._first_usable, dispatch._warn_portable)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def broken(reason: str | None, self_test: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(unavailable=lambda device: reason, self_test=lambda: self_test)


def test_a_named_backend_is_taken_or_refused(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "load", lambda name: broken("no library" if name == "portable" else None))
    assert dispatch.resolve("cpu", "reference") == "reference"
    with pytest.raises(BackendError, match="'portable' cannot run on cpu: no library"):
        dispatch.resolve("cpu", "portable")


def test_an_unknown_name_lists_what_exists() -> None:
    with pytest.raises(BackendError, match="unknown scan backend 'cuda'.*portable"):
        dispatch.resolve("cpu", "cuda")


def test_the_variable_names_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "reference")
    assert dispatch.resolve("cpu") == "reference"
    assert dispatch.resolve("cpu", "portable") == "portable"


def test_a_backend_that_fails_its_self_test_is_refused(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    load = dispatch.load
    monkeypatch.setattr(
        dispatch, "load", lambda name: broken(None, "self-test failed") if name == "cpu" else load(name)
    )
    with pytest.raises(BackendError, match="self-test failed"):
        dispatch.resolve("cpu", "cpu")
    with pytest.warns(RuntimeWarning, match="self-test failed"):
        assert dispatch.resolve("cpu") == "portable"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dispatch.resolve("cpu") == "portable"  # warned once


def test_explain_has_a_line_for_each(fresh: None) -> None:
    lines = explain("cpu").splitlines()
    assert [line.split()[0] for line in lines] == list(dispatch.BACKENDS)
    assert sum("chosen" in line.split(":")[-1] for line in lines) == 1


@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("clang")), reason="no C compiler built the library")
def test_the_c_kernel_is_there_and_right() -> None:
    """Its own tests are skipped without it; a kernel that was not built, or that is refused, must not go unseen."""
    assert dispatch.unavailable("cpu", "cpu") is None
