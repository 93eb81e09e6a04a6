"""Uploads a release to the Hugging Face hub with MONAI's own function."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from medmamba_monai.bundling.merge import read_json
from medmamba_monai.bundling.release import Release, assemble
from medmamba_monai.bundling.source import METADATA
from medmamba_monai.bundling.trained import MODEL
from medmamba_monai.errors import CheckpointError, ConfigError

__all__ = ["IGNORED", "TOKEN_VARIABLE", "Upload", "publish"]

TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 the variable's name, no secret
CARD = "README.md"
IGNORED = [
    *("eval/*", "data/*", "mlruns/*", "*.db", "*.log", "*.csv", "models/checkpoint*", "models/*previous*"),
    *("*__pycache__*", "*.pyc", ".*", "*/.*"),
]
"""Told to the hub as well, although a release holds none of these."""


class Upload(NamedTuple):
    """What an upload sends: paths with their bytes, and the version it is tagged with."""

    files: dict[str, int]
    version: str


def publish(
    folder: Path, repo_id: str, release: Release, token: str | None = None, public: bool = False, dry_run: bool = False
) -> Upload:
    """Upload a bundle with its trained weights, and tag the upload with the version.

    Args:
        folder: the bundle.
        repo_id: ORGANISATION/NAME on the hub; created if it does not exist.
        release: what goes along; its weights default to the bundle's models/model.pt.
        token: of the hub; None: ``HF_TOKEN``, or the login that is stored on this machine.
        public: make a new repository public.
        dry_run: put everything together and upload nothing.

    Raises:
        ConfigError: the repository's name is no such name, huggingface_hub is not installed or refuses; or see
            `assemble`.
        CheckpointError: there are no trained weights.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repo_id):
        raise ConfigError(f"{repo_id!r} is no name on the hub", where="--repo_id", remedy="give ORGANISATION/NAME")
    if not dry_run:
        _require_hub()
    release = _with_weights(folder, release)
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary) / folder.name
        assemble(folder, staged, release)
        version = str(read_json(staged / METADATA)["version"])
        if dry_run:
            # MONAI's function puts the model card there
            (staged / CARD).write_bytes((staged / "docs" / CARD).read_bytes())
        else:
            _push(staged, repo_id, token or os.environ.get(TOKEN_VARIABLE) or None, version, not public)
        sent = {path.relative_to(staged).as_posix(): path.stat().st_size for path in staged.rglob("*")}
        files = {path: sent[path] for path in sorted(sent) if (staged / path).is_file()}
    return Upload(files, version)


def _with_weights(folder: Path, release: Release) -> Release:
    import dataclasses

    weights = release.weights or folder / MODEL
    if not weights.is_file():
        raise CheckpointError(
            "there are no trained weights, and a bundle without them is not published",
            where=str(weights),
            remedy="train and evaluate first, or give --weights",
        )
    return dataclasses.replace(release, weights=weights)


def _require_hub() -> None:
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "publishing needs the package huggingface_hub",
            where="extra 'hub'",
            remedy="pip install 'medmamba_monai[hub]'; --dry_run does without",
        ) from error


def _push(staged: Path, repo_id: str, token: str | None, version: str, private: bool) -> None:
    from monai.bundle import push_to_hf_hub

    try:
        push_to_hf_hub(
            repo=repo_id,
            name=staged.name,
            bundle_dir=str(staged.parent),
            token=token,
            private=private,
            version=version,
            ignore_patterns=IGNORED,
            commit_message=f"{staged.name} {version}",
        )
    except (OSError, ValueError) as error:  # the hub's errors derive from these
        reason = str(error).replace(token, "***") if token else str(error)
        # not chained: the original may quote the token
        raise ConfigError(f"the hub refused: {reason}", where=repo_id, remedy="see --token and --repo_id") from None
