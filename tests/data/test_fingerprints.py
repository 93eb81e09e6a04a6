"""Near duplicates: planted copies are found, different pictures are not."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmamba_monai.data.fingerprints import near_duplicates, pooled, thumbnail, volume_similarity
from medmamba_monai.data.image import read_image
from medmamba_monai.data.phantom_volume import CLASS_NAMES, phantom_head


def _scene(rng: np.random.Generator, side: int = 160) -> Image.Image:
    """A picture like many others of its kind: one common dark frame and disc, blobs of its own."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    disc = 1 / (1 + np.exp((np.hypot(y, x) - 0.9) * 40))
    picture = 0.5 * disc
    for _ in range(30):
        cy, cx, radius = rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), rng.uniform(0.05, 0.25)
        picture += rng.uniform(-0.3, 0.3) * disc * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / radius**2)
    picture += rng.normal(0, 0.01, picture.shape)
    return Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))


def _copy(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = int(picture.width * rng.uniform(0.6, 1.6))
    buffer = io.BytesIO()
    picture.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=int(rng.integers(50, 95)))
    return Image.open(buffer).transpose(Image.Transpose(int(rng.integers(0, 7))))


def _thumb(picture: Image.Image) -> np.ndarray:
    return thumbnail(np.asarray(picture.convert("L"), dtype=np.float32)[np.newaxis] / 255)


def test_planted_copies_are_found_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    scenes = [_scene(rng) for _ in range(300)]
    thumbs = [_thumb(scene) for scene in scenes]
    originals = rng.choice(300, 25, replace=False)
    thumbs += [_thumb(_copy(scenes[index], rng)) for index in originals]
    found = {(i, j) for i, j, _ in near_duplicates(np.stack(thumbs))}
    planted = {(int(original), 300 + number) for number, original in enumerate(originals)}
    assert len(found & planted) >= 24
    assert not found - planted


def test_projection_loses_no_pair() -> None:
    # blocks smaller than the data and few directions, compared with all pairs in full
    rng = np.random.default_rng(1)
    scenes = [_scene(rng, 64) for _ in range(40)]
    thumbs = np.stack([_thumb(scene) for scene in scenes] + [_thumb(_copy(scene, rng)) for scene in scenes[:20]])
    import medmamba_monai.data.fingerprints as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", 7)
        patch.setattr(module, "_CHUNK", 5)
        patch.setattr(module, "_COARSE", 8)
        patch.setattr(module, "_FINE", 32)
        fast = near_duplicates(thumbs, 0.8)
    patterns = module._patterns(thumbs)
    best = np.max([module._patterns(form) @ patterns.T for form in module._forms(thumbs)], axis=0)
    index = range(len(thumbs))
    sure = {(i, j) for i in index for j in index if i < j and best[i, j] > 0.8001}
    possible = {(i, j) for i in index for j in index if i < j and best[i, j] > 0.7999}
    slow = {(i, j) for i, j, _ in fast}
    assert sure <= slow <= possible
    assert len(slow) >= 10


def test_flat_and_few_thumbnails() -> None:
    flat = np.zeros((3, 32, 32), np.uint8)
    assert near_duplicates(flat) == []
    assert near_duplicates(flat[:0]) == []
    one = np.random.default_rng(0).integers(0, 256, (1, 32, 32), dtype=np.uint8)
    assert near_duplicates(np.concatenate([flat, one])) == []
    assert near_duplicates(np.concatenate([one, flat, one[:, ::-1]])) == [(0, 4, pytest.approx(1.0))]


def test_thumbnails_of_volumes_show_the_middle() -> None:
    volume = np.zeros((1, 40, 40, 9), np.float32)
    volume[..., 4] = 1
    assert (thumbnail(volume) == 255).all()


def test_volumes_are_compared_as_a_whole() -> None:
    heads = [phantom_head(label, seed)[0][np.newaxis].astype(np.float32) for label in CLASS_NAMES for seed in (0, 1)]
    small = [pooled(head) for head in heads]
    assert small[0].shape == (16, 16, 16)
    np.testing.assert_allclose(
        pooled(heads[0][:, :32, :32, :32]), heads[0][0, :32, :32, :32].reshape([16, 2] * 3).mean((1, 3, 5)), rtol=1e-5
    )
    assert volume_similarity(small[0], pooled(np.repeat(heads[0], 2, axis=3))) > 0.97
    for i, j in itertools.combinations(range(4), 2):
        assert volume_similarity(small[i], small[j]) < 0.95
    assert volume_similarity(small[0], pooled(heads[0][..., ::-1] * 7 + 3)) > 0.99
    assert volume_similarity(small[0], np.zeros_like(small[0])) == 0


def test_real_pictures(shared: Path) -> None:
    folder = shared / "data" / "chest_xray"
    paths = sorted(folder.rglob("*.jpg"))[:250]
    rng = np.random.default_rng(2)
    thumbs = [thumbnail(read_image(path).array) for path in paths]
    thumbs += [_thumb(_copy(Image.open(path), rng)) for path in paths[:25]]
    found = {(i, j) for i, j, _ in near_duplicates(np.stack(thumbs))}
    assert found == {(index, 250 + index) for index in range(25)}
