"""Every file under configs/ composes and validates; words become keys; wrong keys name the nearest one."""

from __future__ import annotations

import pytest
import yaml

from tests.refusals import refusal_of
from zoo.analysis.command import AnalyseConfig
from zoo.choices import CheckConfig, EvaluateConfig, ExportConfig, PredictConfig
from zoo.compose import compose
from zoo.config_groups import NO_METHODS, config_root, group_options
from zoo.errors import ZooError
from zoo.overrides import rewrite_overrides
from zoo.training.config import RunConfig, TrainingConfig, parse_config

NETWORKS = "network"  # architectures, which are files of a family and no part of a run's configuration
TRAIN_GROUPS = ("backbone", "data", "training", "strategy", "adapter", "experiment")
# an option that cannot stand alone, and what it needs
NEEDS = {
    ("data", "named"): ["data.name=acac"],
    ("adapter", "file"): ["adapter.path=some.safetensors"],
    ("adapter", "plugin"): ["adapter.name=elora"],
    ("training", "sparse_paper"): ["adapter=sparse"],
    # the other methods' files bring rates of their own
    **{("training", name): ["adapter=full_scratch"] for name in group_options("training") if name.startswith("equiformer_v2_")},
}
OPTIONS = [(group, option) for group in TRAIN_GROUPS for option in group_options(group)]


def _composed(*words: str) -> RunConfig:
    # the run folder is Hydra's to say, and there is none outside its main
    return parse_config(compose("train", [*words, "run.folder=runs/x", "run.name=x"]))


COMMANDS = ("train", "evaluate", "predict", "export", "check-equivariance", "analyse")


def test_no_config_file_is_missed_by_the_tests_below():
    files = {path.relative_to(config_root()) for path in config_root().rglob("*.yaml")}
    top = {path for path in files if len(path.parts) == 1}
    assert {str(path) for path in top} == {f"{name}.yaml" for name in COMMANDS}
    assert {(path.parts[0], path.stem) for path in files - top if path.parts[0] != NETWORKS} == set(OPTIONS)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{group}={option}" for group, option in OPTIONS])
def test_every_option_composes_and_validates_with_every_key_kept(group, option):
    config = _composed(f"{group}={option}", *NEEDS.get((group, option), []))
    written = yaml.safe_load((config_root() / group / f"{option}.yaml").read_text(encoding="utf-8"))
    of_train = yaml.safe_load((config_root() / "train.yaml").read_text(encoding="utf-8")).get(group, {})  # the command's own word wins
    body = {key: value for key, value in written.items() if key != "defaults" and key not in of_train}
    assert all(getattr(getattr(config, group), key) == value for key, value in of_train.items())
    top = body if group in ("experiment",) or set(body) & {"training", "adapter"} else {group: body}
    assert not _changed(config.model_dump(mode="json"), top)


def _changed(found, wanted) -> list[str]:
    """Keys whose values are not those of the file; names and values that are filled in are left out."""
    changed = []
    for key, value in wanted.items():
        if isinstance(value, dict):
            changed += [f"{key}.{name}" for name in _changed(found[key], value)]
        elif not (isinstance(value, str) and ("${" in value or value == "???")) and key != "name":
            changed += [] if found[key] == value or float(found[key]) == float(value) else [key]
    return changed


# optimizer, rate, schedule, steps, moving average, validations, batch, seed
PAPERS = {
    "elora": (["training=elora_paper", "adapter=elora_paper"], ("amsgrad", 5e-3, "plateau", 5000, 0.995, 10, 5, 123)),
    "sparse": (["training=sparse_paper", "adapter=sparse"], ("schedule_free_adamw", 1e-2, "constant", 1000, None, 50, 64, 0)),
}


@pytest.mark.parametrize("experiment", [[], *([f"experiment={name}"] for name in group_options("experiment"))], ids=str)
@pytest.mark.parametrize("paper", PAPERS)
def test_preset_of_a_paper_is_what_runs(paper, experiment):
    """Neither an adapter's file nor an experiment's takes the paper's optimisation back."""
    words, expected = PAPERS[paper]
    training = _composed(*experiment, *words).training
    optimizer = training.optimizer
    found = (optimizer.name, optimizer.learning_rate, training.schedule.name, training.steps, training.ema_decay)
    assert (*found, training.validate_every, training.batch_size, training.seed) == expected


def test_experiment_alone_takes_the_default_steps_unless_it_has_a_training_of_its_own():
    own = {name for name in group_options("experiment") if name in group_options("training")}
    assert own == {"equiformer_v2_overfit", "equiformer_v2_ethanol"}
    steps = {name: _composed(f"experiment={name}").training.steps for name in group_options("experiment")}
    assert steps == {name: None if name in own else 200 for name in steps}


@pytest.mark.parametrize("experiment", group_options("experiment"))
@pytest.mark.parametrize("adapter", [name for name in group_options("adapter") if name not in NO_METHODS])
def test_every_experiment_takes_every_adapter(experiment, adapter):
    config = _composed(f"experiment={experiment}", f"adapter={adapter}")
    assert config.adapter["name"] in adapter


@pytest.mark.parametrize(
    ("name", "words", "model"),
    [
        ("evaluate", ["data=acac", "split=test_600K", "data.n_train=50"], EvaluateConfig),
        ("predict", ["input=a.xyz", "output=b.xyz"], PredictConfig),
        ("export", ["run=runs/x", "output=b.pth"], ExportConfig),
        ("check-equivariance", ["backbone=sevennet-0", "adapter=elora"], CheckConfig),
        ("analyse", ["run=runs/x"], AnalyseConfig),
    ],
)
def test_every_other_command_composes_and_validates(name, words, model):
    assert isinstance(parse_config(compose(name, words), model), model)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("backbone=sevennet-0", ["backbone=card", "backbone.name=sevennet-0"]),
        ("backbone=my model.pth", ["backbone=card", "backbone.name='my model.pth'"]),
        ("backbone=sevennet-0,sevennet-l3i5", ["backbone.name=sevennet-0,sevennet-l3i5"]),
        ("data=here.xyz", ["data=file", "data.path=here.xyz"]),
        ("data=acac", ["data=named", "data.name=acac"]),
        ("data=rmd17/aspirin", ["data=named", "data.name=rmd17/aspirin"]),
        ("data=rmd17/aspirin,3bpa", ["data=named", "data.name=rmd17/aspirin,3bpa"]),
        ("adapter=elora,full", ["adapter=elora,full"]),
        ("adapter=here.xyz", ["adapter=file", "adapter.path=here.xyz"]),
        ("experiment=null", ["experiment=null"]),
        ("training.steps=3", ["++training.steps=3"]),
        ("training.seed=0,1", ["++training.seed=0,1"]),
        ("hydra.run.dir=x", ["hydra.run.dir=x"]),
        ("+data.test=[a]", ["+data.test=[a]"]),
        ("~data.n_valid", ["~data.n_valid"]),
        ("data.path=with space.xyz", ["++data.path='with space.xyz'"]),
    ],
)
def test_words_become_keys(word, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("here.xyz", "with space.xyz"):
        (tmp_path / name).touch()
    assert rewrite_overrides([word], TRAIN_GROUPS) == expected


def test_value_longer_than_a_file_name_is_no_file():
    word = "data.test=[" + ",".join(f"file{number}.xyz" for number in range(100)) + "]"
    assert rewrite_overrides([word], TRAIN_GROUPS) == [f"++{word}"]


def test_defaults_of_the_model_and_of_the_file_agree():
    written = TrainingConfig.model_validate(yaml.safe_load((config_root() / "training/default.yaml").read_text(encoding="utf-8")))
    assert written == TrainingConfig()


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("training.sed", "did you mean 'seed'"),
        ("training.loss.force.weight", "did you mean 'forces'"),
        ("run.resum", "did you mean 'resume'"),
        ("evaluation.plot", "did you mean 'plots'"),
        ("strategy.refit", "did you mean"),
    ],
)
def test_unknown_key_names_the_nearest_at_every_depth(key, hint):
    with pytest.raises(ZooError, match=hint):
        _composed(f"{key}=1")


def test_error_inside_a_group_does_not_print_the_group():
    message = refusal_of(_composed, "training.optimizer.name=schedule_free_adamw")
    assert message.startswith("config: training: schedule_free_adamw")
    assert "{" not in message
