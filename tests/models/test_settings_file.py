"""How models run, as an operator's file says it."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from tests.models.stand_ins import Shouting

from antiphon.audio.vad._silero_model import SileroModel
from antiphon.audio.vad.silero import SHARED_MODEL
from antiphon.errors import ConfigError
from antiphon.models.model import ModelSpec
from antiphon.services.piper._engine import Piper
from antiphon.services.whisper._engine import Whisper
from antiphon_actors.gateway.registry import Deployment
from antiphon_actors.models.settings import ModelRule, ModelSettings, Scaling
from antiphon_actors.models.settings_file import read_settings, settings_of_plain, settings_to_plain

EVERYTHING = """
preload = ["silero", "base", { model = "en_US-lessac-medium", options = { cpu_threads = 2 } }]
max_actors = 8
load_secs = 60

[[rules]]
match = "SileroModel"
place = "actor"

[[rules]]
match = "Whisper"
resources = { num_gpus = 0.25, num_cpus = 2 }
scaling = { most = 4, queue_secs = 0.1 }
"""

READ = ModelSettings(
    rules=(
        ModelRule("SileroModel", "actor"),
        ModelRule(
            "Whisper",
            resources={"num_gpus": 0.25, "num_cpus": 2},
            scaling=Scaling(most=4, queue_secs=0.1),
        ),
    ),
    preload=(
        SHARED_MODEL,
        ModelSpec(
            Whisper,
            {"model": "base", "device": "auto", "compute_type": "default", "cpu_threads": 0},
        ),
        ModelSpec(Piper, {"voice": "en_US-lessac-medium", "use_cuda": False, "cpu_threads": 2}),
    ),
    max_actors=8,
    load_secs=60,
)


def read(directory: Path, text: str) -> ModelSettings:
    path = directory / "models.toml"
    path.write_text(text)
    return read_settings(path)


def test_a_file_says_all_there_is_to_say(tmp_path: Path) -> None:
    assert read(tmp_path, EVERYTHING) == READ
    assert read(tmp_path, "") == ModelSettings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1", "a: unknown; allowed are rules, preload, max_actors,"),
        ('[[rules]]\nmach = "x"', "rules[0].mach: unknown; allowed are match, place, resources,"),
        ('[[rules]]\nmatch = "x"\nscaling = { leas = 3 }', "rules[0].scaling.leas: unknown; "),
        ('[[rules]]\nplace = "actor"', "rules[0].match: this is needed"),
        ('[[rules]]\nmatch = "x"\nplace = "gpu"', "rules[0].place: Input should be 'actor' or"),
        ("rules = 3", "rules: Input should be a list, and not 3"),
        ('[[rules]]\nmatch = "x"\nresources = { num_gpus = "a" }', "rules[0].resources.num_gpus: "),
        ('[[rules]]\nmatch = "x"\nresources = { num_gpus = -1 }', "num_gpus is 0 or more, not -1"),
        ('[[rules]]\nmatch = "x"\nscaling = { least = 3 }', "least is 1 or more, and most no less"),
        ('[[rules]]\nmatch = "x"\nscaling = { up_secs = nan }', "scaling: up_secs is 0 or more"),
        ("max_actors = 0", "max_actors is 1 or more, not 0"),
        ("load_secs = -1", "load_secs is 0 or more, not -1"),
        ("max actors", "this is not TOML: "),
        ('preload = "base"', "preload: this has to be a list"),
        ("preload = [1]", "preload[0]: give the name of a model, or { model ="),
        ('preload = ["base", "bass"]', "preload[1]: there is no model 'bass': give silero, a Whi"),
        ('preload = ["silero"]', 'that takes a rule: [[rules]] match = "SileroModel", place ='),
        ('preload = ["no.such:Model"]', "no.such:Model cannot be imported here: No module named"),
        ('preload = ["os:getcwd"]', "preload[0]: os:getcwd is no subclass of antiphon.models."),
        (
            'preload = [{ model = "base", options = { gpu = 1 } }]',
            "options of the model base: got an unexpected keyword argument 'gpu'; it has device,",
        ),
    ],
)
def test_an_error_says_where_it_is_and_what_is_allowed(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"--models {tmp_path / 'models.toml'}: ")
    assert said in str(caught.value)


def test_the_example_of_the_documents_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    found = read(tmp_path, example)
    assert [spec.name for spec in found.preload] == ["Whisper", "Piper", "SileroModel"]
    assert found.in_actor(SileroModel)
    assert found.rule_for(Whisper).resources == {"num_gpus": 0.25, "num_cpus": 1}
    keys = {field.name for field in fields(ModelSettings)} - {"rules"}
    assert not [key for key in keys if f"`{key}`" not in page]


def test_there_has_to_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_settings(tmp_path / "models.toml")


def test_models_of_ones_own_are_preloaded_by_their_class(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        'preload = [{ model = "tests.models.stand_ins:Shouting", options = { mark = "!" } }]',
    )
    assert found.preload == (ModelSpec(Shouting, {"mark": "!"}),)


def test_settings_survive_their_plain_form() -> None:
    for settings in (READ, ModelSettings()):
        assert settings_of_plain(json.loads(json.dumps(settings_to_plain(settings)))) == settings


def test_a_class_that_others_cannot_import_has_no_plain_form() -> None:
    class Local(Shouting):
        pass

    with pytest.raises(ConfigError, match="cannot be imported"):
        settings_to_plain(ModelSettings(preload=(ModelSpec(Local),)))


def test_a_deployment_keeps_how_models_run() -> None:
    deployment = Deployment("c", "n", "h", 1, "k", "s", "", 2, READ)
    assert Deployment.from_json(deployment.to_json()) == deployment
    # As it was written before there was a word about models.
    plain = json.loads(deployment.to_json())
    del plain["models"]
    assert Deployment.from_json(json.dumps(plain)).models == ModelSettings()
    with pytest.raises(ConfigError, match="deployment of this cluster cannot be read"):
        Deployment.from_json('{"models": {"a": 1}}')
