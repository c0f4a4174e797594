"""Names of Whisper models, and where the files of each come from."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from antiphon.errors import ConfigError
from antiphon.models.files import ModelFiles, ensure


class Model(Enum):
    """Models for WhisperSTTService; the value is what the hub or the size is called.

    Attributes:
        TINY: The smallest and quickest, many languages.
        BASE: Small, many languages.
        SMALL: Better, many languages.
        MEDIUM: Better still, many languages.
        LARGE: The best, many languages, slow.
        LARGE_V3_TURBO: Nearly as good as LARGE and several times as quick.
        DISTIL_LARGE_V2: Made smaller from a large one, many languages.
        DISTIL_MEDIUM_EN: Made smaller from a medium one, English only.
    """

    TINY = "tiny"
    BASE = "base"
    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large-v3"
    LARGE_V3_TURBO = "deepdml/faster-whisper-large-v3-turbo-ct2"
    DISTIL_LARGE_V2 = "Systran/faster-distil-whisper-large-v2"
    DISTIL_MEDIUM_EN = "Systran/faster-distil-whisper-medium.en"


class MLXModel(Enum):
    """Models for WhisperSTTServiceMLX; the value is the hub's name.

    Attributes:
        TINY: The smallest and quickest, many languages.
        MEDIUM: Better, many languages.
        LARGE_V3: The best, many languages.
        LARGE_V3_TURBO: Nearly as good as LARGE_V3 and several times as quick.
        DISTIL_LARGE_V3: Made smaller from a large one.
        LARGE_V3_TURBO_Q4: LARGE_V3_TURBO with weights of four bits, for less memory.
    """

    TINY = "mlx-community/whisper-tiny"
    MEDIUM = "mlx-community/whisper-medium-mlx"
    LARGE_V3 = "mlx-community/whisper-large-v3-mlx"
    LARGE_V3_TURBO = "mlx-community/whisper-large-v3-turbo"
    DISTIL_LARGE_V3 = "mlx-community/distil-whisper-large-v3"
    LARGE_V3_TURBO_Q4 = "mlx-community/whisper-large-v3-turbo-q4"


SIZES = {
    **{
        size: f"Systran/faster-whisper-{size}"
        for size in (
            "tiny.en tiny base.en base small.en small medium.en medium large-v1 large-v2 large-v3"
        ).split()
    },
    **{
        f"distil-{size}": f"Systran/faster-distil-whisper-{size}"
        for size in ("small.en", "medium.en", "large-v2", "large-v3")
    },
    "large": "Systran/faster-whisper-large-v3",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
}
"""Repositories, in CTranslate2's form, of the sizes that faster-whisper knows by name."""


def whisper_files(name: str) -> ModelFiles:
    """Says which files a model consists of.

    Args:
        name: One of `SIZES`, or a repository of the hub.

    Raises:
        ConfigError: It is neither.
    """
    repo = name if "/" in name else SIZES.get(name)
    if repo is None:
        raise ConfigError(
            f"there is no Whisper model {name!r}: give a repository (owner/name), a folder, or one "
            f"of {', '.join(SIZES)}"
        )
    return ModelFiles(
        name,
        repo,
        files=("config.json", "tokenizer.json", "model.bin"),
        optional=("preprocessor_config.json", "vocabulary.json", "vocabulary.txt"),
    )


def whisper_directory(name: str) -> Path:
    """Finds a model's folder, or downloads it; blocks.

    Args:
        name: One of `SIZES`, a repository of the hub, or a folder with a model in CTranslate2's form.

    Raises:
        ConfigError: There is no such model, or it is not here and the machine is offline.
        ServiceError: The download failed.
    """
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else ensure(whisper_files(name))
