"""Names of Piper voices, and where the files of each come from."""

from __future__ import annotations

import re
from pathlib import Path

from antiphon.errors import ConfigError
from antiphon.models.files import ModelFiles, ensure

VOICES_REPO = "rhasspy/piper-voices"

_VOICE = re.compile(
    r"(?P<language>[a-z]{2,3})_(?P<region>[A-Z0-9]{2,3})-(?P<name>[^-/.\\]+)-(?P<quality>[^-/.\\]+)"
)


def is_voice(name: str) -> bool:
    """Whether a name has the form of a published voice's, like ``en_US-lessac-medium``."""
    return _VOICE.fullmatch(name) is not None


def voice_files(name: str) -> ModelFiles:
    """Says which files a published voice consists of.

    Args:
        name: Like ``en_US-lessac-medium``: language, region, name and quality.

    Raises:
        ConfigError: It has another form.
    """
    match = _VOICE.fullmatch(name)
    if match is None:
        raise ConfigError(
            f"{name!r} is no Piper voice: write language_REGION-name-quality, as in "
            f"en_US-lessac-medium (all of them: https://huggingface.co/{VOICES_REPO}), or the path "
            "of an .onnx file"
        )
    language, region, speaker, quality = match.groups()
    model = f"{language}/{language}_{region}/{speaker}/{quality}/{name}.onnx"
    return ModelFiles(name, VOICES_REPO, files=(f"{model}.json", model))


def voice_path(voice: str) -> Path:
    """Finds a voice's model, or downloads it; blocks. Its description lies beside it, as ``.json``.

    Args:
        voice: The name of a published voice, or the path of an ``.onnx`` file.

    Raises:
        ConfigError: There is no such voice, or it is not here and the machine is offline.
        ServiceError: The download failed.
    """
    path = Path(voice).expanduser()
    if path.suffix != ".onnx":
        files = voice_files(voice)
        return ensure(files) / files.files[-1]
    for wanted in (path, Path(f"{path}.json")):
        if not wanted.is_file():
            raise ConfigError(f"the Piper voice {voice} cannot be used: there is no file {wanted}")
    return path
