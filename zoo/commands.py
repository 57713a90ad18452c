"""What each ``zoo`` command does, once its words are parsed: callable from Python with the same effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.choices import CheckConfig, EvaluateConfig, ExportConfig, PredictConfig, choose_model, key_of, parse_choice, words_of
from zoo.compose import run_hydra
from zoo.data.reference_choice import needs_training_split
from zoo.errors import ZooError
from zoo.evaluation.asked import asked_of
from zoo.evaluation.relaxations import RelaxationSettings
from zoo.training.config import parse_config

if TYPE_CHECKING:
    from zoo.data.parts import DataSplits
    from zoo.evaluation.evaluate import Evaluation
    from zoo.potential import Potential


_CONVERT_OPTIONS = ("output", "trust_pickle", "backbone", "backbone.head", "backbone.elements", "alpha")


def train(arguments: Sequence[str]) -> None:
    """``zoo train``: compose, validate, fine-tune."""

    def task(values: Mapping[str, Any]) -> None:
        from zoo.training.run import fine_tune

        fine_tune(parse_config(values))

    run_hydra("train", arguments, task)


def evaluate(arguments: Sequence[str]) -> None:
    """``zoo evaluate``: metrics of a model on a data set's parts, and a record of them where asked for."""
    config: EvaluateConfig = parse_choice("evaluate", arguments, EvaluateConfig)
    evaluate_as(config, config.run is None or _names_data(config, arguments))


def evaluate_as(config: EvaluateConfig, names_data: bool = True) -> None:
    """What ``zoo evaluate`` does; a run's own data are looked at where none are named."""
    from zoo.data.source import load_evaluated
    from zoo.evaluation.evaluate import overlap_with_training, write_evaluation_record
    from zoo.training.folder import RunFolder

    potential = choose_model(config)
    trained_on = RunFolder.existing(config.run)[1].data if config.run is not None else None
    data = config.data if trained_on is None or names_data else trained_on
    splits = load_evaluated(data, config.split, needs_training_split(config.reference_energies))
    evaluation = _evaluated(config, potential, splits)
    if config.run is not None and trained_on is not None:
        for note in overlap_with_training(config.run, trained_on, {name: splits.parts[name] for name in evaluation.metrics}):
            print(note)
    print(evaluation.text(config.metrics))
    if config.record is not None:
        write_evaluation_record(Path(config.record), potential, splits, evaluation, asked_of(config, data))
        print(f"record: {config.record}")


def _evaluated(config: EvaluateConfig, potential: Potential, splits: DataSplits) -> Evaluation:
    from zoo.evaluation.evaluate import evaluate_parts

    if config.task == "labels":
        if config.relaxation != RelaxationSettings():
            raise ZooError("relaxation.... has no effect without task=relaxation; add it or leave the settings out")
        return evaluate_parts(potential, splits, config.split, config.batch_size, config.reference_energies)
    from zoo.evaluation.relaxation_task import check_labelled, evaluate_relaxations

    if config.record is not None:
        check_labelled(splits, config.split, f"record={config.record}")

    return evaluate_relaxations(potential, splits, config.split, config.batch_size, config.reference_energies, config.relaxation)


def _names_data(config: EvaluateConfig, arguments: Sequence[str]) -> bool:
    """Whether the words name a data set; raises `ZooError` for options of one beside a run without it."""
    words = words_of("data", arguments)
    if any(key_of(word) in ("data", "data.name") for word in words):
        return True
    if words:
        raise ZooError(f"run={config.run} brings its own data; pass data=... beside {words[0]}, or leave it out")
    return False


def predict(arguments: Sequence[str]) -> None:
    """``zoo predict``: energies, forces and stress of any structures, as extended XYZ; or of OC20's test splits, for its leaderboard."""
    from zoo.data.loader import check_edges
    from zoo.data.readers import read_structures
    from zoo.evaluation.predictions import predict_frames, write_extxyz

    config: PredictConfig = parse_choice("predict", arguments, PredictConfig)
    if config.format != "extxyz":
        _predict_oc20(config)
        return
    if not isinstance(config.input, str):
        raise ZooError(f"input names {len(config.input)} files, and format=extxyz takes one; pass input=FILE")
    potential = choose_model(config)
    frames = read_structures(config.input)
    check_edges(frames, potential.backbone.graph_recipe)
    write_extxyz(Path(config.output).expanduser(), frames, predict_frames(potential, frames, batch_size=config.batch_size))
    print(f"{len(frames)} structures -> {config.output}")


def _predict_oc20(config: PredictConfig) -> None:
    """Split by split, since a test split of OC20 fills a good part of the memory."""
    from zoo.data.loader import check_edges
    from zoo.data.readers import read_structures
    from zoo.evaluation.oc20_submission import check_splits, leaderboard_arrays, write_leaderboard_file
    from zoo.evaluation.predictions import predict_frames

    assert config.format != "extxyz"
    inputs = config.input if isinstance(config.input, dict) else {"id": config.input}
    check_splits(inputs)
    potential = choose_model(config)
    arrays: dict[str, Any] = {}
    for split, path in inputs.items():
        frames = read_structures(path)
        check_edges(frames, potential.backbone.graph_recipe)
        arrays |= leaderboard_arrays(split, frames, predict_frames(potential, frames, batch_size=config.batch_size), config.format)
        print(f"{split}: {len(frames)} structures of {path}")
    write_leaderboard_file(Path(config.output).expanduser(), arrays)
    print(f"{config.format} -> {config.output}, for the public OC20 leaderboard")


def export(arguments: Sequence[str]) -> None:
    """``zoo export``: base + adapter + reference energies as one file that the family's own package loads."""
    from zoo.export import export as write
    from zoo.export import keys_of_words

    config: ExportConfig = parse_choice("export", keys_of_words(arguments), ExportConfig)
    potential = choose_model(config)
    output, run = (None if path is None else Path(path).expanduser() for path in (config.output, config.run))
    path, taken_by = write(potential, output, config.format, run)
    adapters, precision = ", ".join(potential.adapters.active) or "no adapter", str(potential.dtype).removeprefix("torch.")
    print(f"{potential.source} with {adapters}, in {precision} -> {path}, for {taken_by}")
    if potential.adapters.active and potential.conservative and not potential.backbone.conservative:
        print("warning: trained with forces=gradient, so derive forces from the energy there too: its own force output was not trained")


def convert(arguments: Sequence[str]) -> None:
    """``zoo convert``: a pickled MACE model as configuration and safetensors, or with ``backbone=`` mace's LoRA as an adapter file."""
    from zoo.backbones.mace_conversion import convert as write

    options = {key: value for key, equals, value in (word.partition("=") for word in arguments) if equals and key in _CONVERT_OPTIONS}
    files = [word for word in arguments if not ("=" in word and word.partition("=")[0] in _CONVERT_OPTIONS)]
    if len(files) != 1 or options.get("trust_pickle", "false") not in ("true", "false") or options.get("output") == "":
        found = " ".join(arguments) or "nothing"
        raise ZooError(f"zoo convert takes one FILE, output=FILE and trust_pickle=true, found: {found}; zoo convert --help explains them")
    output = Path(options["output"]).expanduser() if "output" in options else None
    if "backbone" in options:
        print(f"{files[0]} -> {_convert_lora(Path(files[0]).expanduser(), output, options)}")
        return
    lora_only = [key for key in _CONVERT_OPTIONS[2:] if key in options]
    if lora_only:
        raise ZooError(f"zoo convert: {lora_only[0]} is for LoRA that mace trained; name its base too: backbone=CARD|FILE")
    print(f"{files[0]} -> {write(Path(files[0]), output, options.get('trust_pickle') == 'true')}")


def _convert_lora(source: Path, output: Path | None, options: Mapping[str, str]) -> Path:
    from zoo.loading import load
    from zoo.mace_lora import convert_lora

    elements = options["backbone.elements"].strip("[]").split(",") if "backbone.elements" in options else None
    try:
        alpha = float(options["alpha"]) if "alpha" in options else None
    except ValueError:
        raise ZooError(f"alpha={options['alpha']}: wanted a number, the --lora_alpha of the training") from None
    potential = load(options["backbone"], head=options.get("backbone.head"), elements=elements)
    target = output or source.with_name(f"{source.stem}.adapter.safetensors")
    return convert_lora(source, potential, target, alpha, options.get("trust_pickle") == "true")


def check_equivariance(arguments: Sequence[str]) -> None:
    """``zoo check-equivariance``: every claimed symmetry and derivative, in float64; raises `ZooError` where one fails."""
    from zoo.data.readers import read_structures
    from zoo.evaluation.equivariance import check_equivariance as check
    from zoo.evaluation.probes import probe_frames

    config: CheckConfig = parse_choice("check-equivariance", arguments, CheckConfig)
    potential = choose_model(config, dtype="float64")
    if config.randomise:
        for name in potential.adapters.active:
            potential.adapters.randomise(name, config.seed, config.relative_size)
            weights = potential.adapters.get(name).method.mergeable
            size = f"|dW|/|W| >= {config.relative_size:g} in every block" if weights else f"changes of about {config.relative_size:g}"
            print(f"adapter {name}: random weights, {size}")
    frames = read_structures(config.input)[: config.frames] if config.input else probe_frames(potential.backbone.elements)
    report = check(potential, frames, seed=config.seed)
    print(report.text())
    if not report.passed:
        failed = ", ".join(f"{row.test} ({row.quantity}, {row.residual:.1e})" for row in report.rows if not row.passed)
        raise ZooError(f"check-equivariance: {potential.source} fails {failed}")
