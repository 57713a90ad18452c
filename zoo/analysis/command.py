"""``zoo analyse``: from a run or an adapter file to a folder of tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapters.state import read_adapter
from zoo.adapter_sources import is_address, local_adapter
from zoo.analysis.analysis import analyse
from zoo.choices import ModelChoice, choose_model, parse_choice
from zoo.errors import ZooError
from zoo.overrides import quoted
from zoo.registry import list_models
from zoo.training.folder import RunFolder

_FOLDER = "analysis"


class AnalyseConfig(ModelChoice):
    """``out``: the folder to write; None for ``analysis`` in the run's folder, or ``NAME-analysis`` beside an adapter file."""

    out: str | None = None


def analyse_command(words: Sequence[str]) -> None:
    """Analyse the adapter that the words name, write the files and say what is in them.

    Raises:
        ZooError: a source that is no run and no adapter file, a base that is missing or trained from random weights, a folder that cannot
            be written.
        adapters.errors.AdapterError: an adapter file that is broken, or of another base.
    """
    config: AnalyseConfig = parse_choice("analyse", keys_of_words(words), AnalyseConfig)
    folder = _folder(config)
    _check_has_base(config)
    analysis = analyse(choose_model(config))
    written = analysis.write(folder)
    print(f"{analysis.title}: {len(written)} files in {folder}/")
    for name in dict.fromkeys(path.stem for path in written):
        print(f"  {name:<16} {_SAYS[name]}")
    for note in analysis.notes:
        print(f"note: {note}")


_SAYS = {
    "coverage": "which weights are adapted, by role and path",
    "r2_species": "1 - R^2 of the weights of single elements, by layer and channel",
    "r2_paths": "1 - R^2 of all weights, by layer, role and channel",
    "stable_rank": "stable rank of each delta",
    "singular_values": "spectrum of each delta",
    "irreps": "norms of the deltas by irrep",
    "sparsity": "share of zeros in the deltas, by parameter",
}


def keys_of_words(words: Sequence[str]) -> list[str]:
    """``RUN`` or ``FILE [backbone=CARD]`` as the keys that every command takes; the base of a file is the card that it names.

    Raises:
        ZooError: what is neither a run's folder nor an adapter file, or a file of a base that no card has, without ``backbone=``.
    """
    keys = [word for word in words if "=" in word and not Path(word).exists()]
    sources = [word for word in words if word not in keys]
    named = {key.partition("=")[0]: key.partition("=")[2] for key in keys}
    if len(sources) + ("run" in named) + ("adapter" in named) != 1:
        found = " ".join(words) or "nothing"
        raise ZooError(f"zoo analyse takes one RUN or one adapter FILE, found: {found}; see zoo analyse --help")
    if "run" in named:
        return keys
    source = sources[0] if sources else named["adapter"]
    if sources and not is_address(source) and Path(source).is_dir():
        return [f"run={quoted(source)}", *keys]
    if not is_address(source) and not Path(source).is_file():
        raise ZooError(f"{source}: neither a run's folder nor an adapter file; pass what zoo train wrote")
    keys = [key for key in keys if not key.startswith("adapter=")]
    if "backbone" not in named and "backbone.name" not in named:
        card = read_adapter(local_adapter(source))[0].base_card
        if card not in list_models():
            raise ZooError(f"{source}: its base {card!r} is no card; pass its checkpoint: backbone=FILE")
        keys.append(f"backbone={card}")
    return [f"adapter={source if is_address(source) else quoted(source)}", *keys]


def _folder(config: AnalyseConfig) -> Path:
    if config.out is not None:
        return Path(config.out).expanduser()
    if config.run is not None:
        return Path(config.run) / _FOLDER
    source = str(config.adapter)
    if is_address(source):
        raise ZooError(f"{source}: an address has no folder for the results; pass out=FOLDER")
    path = Path(source)
    return path.with_name(f"{path.stem}-{_FOLDER}")


def _check_has_base(config: AnalyseConfig) -> None:
    """Refuse a run from random weights before its model is built: what its weights were is in no file."""
    if config.run is not None and RunFolder.existing(config.run)[1].strategy.weights == "random":
        raise ZooError(f"{config.run}: trained from random weights, so that there is no base to compare with; analyse a fine-tuned run")
