"""The ``zoo`` command: its words, its help, and one clear line for every mistake."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zoo.errors import USER_ERRORS, ZooError, nearest_name_hint


@dataclass(frozen=True)
class Command:
    """One sub-command: a summary for ``zoo --help``, a page for its own ``--help``, and what it does with its words."""

    summary: str
    page: str
    run: Callable[[list[str]], None]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits with 0, with 1 and one line on a mistake, with 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        _dispatch(words)
    except USER_ERRORS as error:
        if debug:
            raise
        print(f"zoo: error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("zoo: interrupted; zoo train continues with run.resume=true", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        # the reader (head, less) went away; Python would complain once more while it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        if debug:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"zoo: unexpected {type(error).__name__}: {reason} (this is a bug: run again with --debug and report it)", file=sys.stderr)
        raise SystemExit(2) from None


def _dispatch(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return
    if words[0] in ("-V", "--version"):
        from zoo import __version__

        print(f"equizoo {__version__}")
        return
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise ZooError(f"unknown command {name!r}; {nearest_name_hint(name, COMMANDS)}")
    if any(word in ("-h", "--help") for word in rest):
        print(COMMANDS[name].page.strip().replace("ADAPTERS", ", ".join(_adapters())))
        return
    COMMANDS[name].run(rest)


def _adapters() -> list[str]:
    from zoo.compose import group_options

    return [name for name in group_options("adapter") if name != "file"]


def _overview() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    return f"""usage: zoo COMMAND [key=value ...] [--debug]

Pretrained equivariant interatomic potentials, adapters for every one of them, and one trainer.

{rows}

zoo COMMAND --help explains one command. --debug shows the traceback behind an error's one line.
Start here: zoo train experiment=quickstart"""


def _train(words: list[str]) -> None:
    from zoo.commands import train

    train(words)


def _evaluate(words: list[str]) -> None:
    from zoo.commands import evaluate

    evaluate(words)


def _predict(words: list[str]) -> None:
    from zoo.commands import predict

    predict(words)


def _export(words: list[str]) -> None:
    from zoo.commands import export

    export(words)


def _convert(words: list[str]) -> None:
    from zoo.commands import convert

    convert(words)


def _check_equivariance(words: list[str]) -> None:
    from zoo.commands import check_equivariance

    check_equivariance(words)


def _submit(words: list[str]) -> None:
    from zoo.submission.commands import submit_command

    submit_command(words)


def _verify(words: list[str]) -> None:
    from zoo.submission.commands import verify_command

    verify_command(words)


def _list(words: list[str]) -> None:
    from zoo.listing import list_cards

    if len(words) > 1:
        raise ZooError(f"zoo list takes one pattern, found: {' '.join(words)}")
    list_cards(words[0] if words else "*")


def _info(words: list[str]) -> None:
    from zoo.listing import info

    names = [word for word in words if word != "--elements"]
    if len(names) != 1 or names[0].startswith("-"):
        raise ZooError(f"zoo info takes one card's name and --elements, found: {' '.join(words) or 'nothing'}; zoo list shows the names")
    info(names[0], elements="--elements" in words)


def _adapter(words: list[str]) -> None:
    from zoo.adapter_commands import adapter_command

    adapter_command(words)


def _data(words: list[str]) -> None:
    from zoo.data.catalogue import data_set_names
    from zoo.listing import describe_data_set, list_data

    if len(words) > 1:
        raise ZooError(f"zoo data takes one name or pattern, found: {' '.join(words)}")
    if words and words[0] in data_set_names():
        describe_data_set(words[0])
    else:
        list_data(words[0] if words else "*")


_TRAIN_PAGE = """
usage: zoo train [experiment=NAME] [backbone=CARD|FILE] [adapter=METHOD|FILE] [data=SET|FILE] [key=value ...] [-m]

  zoo train experiment=quickstart                              SevenNet-0 + ELoRA on the embedded Cu-Au set
  zoo train backbone=sevennet-0 adapter=elora data=my.extxyz   your own frames
  zoo train experiment=acac adapter=full                       real DFT data, full fine-tuning
  zoo train -m experiment=acac adapter=elora,full training.seed=0,1,2      a sweep

groups   backbone, data (emt-cuau, file, or a name of: zoo data), training (default, elora_paper, sparse_paper),
         strategy (finetune, scratch), experiment (quickstart, acac),
         adapter (ADAPTERS)
often    training.steps=200 training.batch_size=5 training.seed=0 training.optimizer.learning_rate=5e-3 training.ema_decay=0.99
         adapter.rank=16 adapter.roles=[linear,readout] data.n_train=50 data.n_valid=50 data.energy_key=energy data.forces_key=forces
         data.level_of_theory=PBE backbone.dtype=float64 backbone.device=cpu
base     backbone.head=PBE (of several), backbone.elements=data (MACE: cut to the elements of the data), backbone.trust_pickle=true
run      run.name=NAME (folder runs/NAME) run.resume=true (continue a killed run, to the same bits)
look     --cfg job prints the composed config without running

The run folder holds config.yaml, environment.json, log.txt, history.csv, adapter.safetensors, record.json, plots/, checkpoints/,
tensorboard/. Every key is checked; a misspelt one is refused with the nearest name.
"""
_EVALUATE_PAGE = """
usage: zoo evaluate run=FOLDER | backbone=CARD [adapter=FILE]  [data=SET|FILE] [split=PART] [key=value ...]

  zoo evaluate run=runs/acac-elora-r16
  zoo evaluate run=runs/acac-elora-r16 data=acac split=test_600K
  zoo evaluate backbone=sevennet-0 data=acac reference_energies=model record=zero-shot.json

data                the run's own when left out beside run=; a FILE is evaluated whole unless a split or sizes are given
split               train, valid or a test set; all test sets when left out
reference_energies  base (the model's own), model or least_squares (fitted on the data's training split: to the model's error, to the
                    labels), isolated_atoms or linear (the data set's tables)
task                labels, or relaxation: relax every frame and compare with its relaxed energy and structure (OC20 IS2RE, IS2RS);
                    relaxation.fmax_ev_per_angstrom=0.02 relaxation.max_steps=300 relaxation.output=FILE relaxation.single_points=FILE
metrics             protocol (those the data's protocol asks for, the default) or all
record              write the result of a base without adapter in the leaderboard's schema
"""
_PREDICT_PAGE = """
usage: zoo predict run=FOLDER | backbone=CARD [adapter=FILE]  input=FILE output=FILE.extxyz [batch_size=16]
       zoo predict ... 'input={id: FILE, ood_ads: FILE, ood_cat: FILE, ood_both: FILE}' output=FILE.npz format=oc20_s2ef|oc20_is2re

Energies (eV), forces (eV/Å) and, for 3D-periodic structures, stress (eV/Å^3) of anything ASE reads.

format      extxyz, or the npz of the public OC20 leaderboard from OC20's four test splits: adsorption energies, and forces on free atoms
"""
_EXPORT_PAGE = """
usage: zoo export RUN | run=FOLDER | backbone=CARD|FILE [adapter=FILE]  [format=native] [output=FILE]

  zoo export runs/acac-elora-r16
  zoo export runs/acac-elora-r16 --format native --output acac.pth
  zoo export backbone=sevennet-0 adapter=runs/quickstart/adapter.safetensors output=cu-au.pth

Base + adapter + reference energies as one file that the base's own package loads, without equizoo and in the run's precision.

native      SevenNet .pth (SevenNetCalculator, sevenn get_model), MACE .model (MACECalculator, mace_create_lammps_model),
            NequIP and Allegro .ckpt (nequip-compile, nequip-package), Nequix .nqx (NequixCalculator)
package     NequIP and Allegro .nequip.zip, made by nequip-package
output      exported.SUFFIX in the run's folder when left out; a file of that name is replaced
"""
_CONVERT_PAGE = """
usage: zoo convert FILE.model [output=FILE.mace.safetensors] [trust_pickle=true]
       zoo convert FILE.pt backbone=CARD|FILE [alpha=1.0] [backbone.elements=[H,C,O]] [backbone.head=NAME] [output=FILE.safetensors]

A MACE .model (a pickle of the module, tied to the e3nn that wrote it) as configuration and safetensors, every number as it was; beside
the original where output is left out. zoo.load and backbone=FILE take both; a .model is converted into the cache when it is first loaded.
Nothing of the file is run; one that names packages no model needs is refused unless trust_pickle=true.

With backbone=, the base that it was trained on: LoRA of mace_run_train --lora, from a checkpoint of the training (alpha is its
--lora_alpha, which a checkpoint does not hold) or a pickled model with the wrappers in it, as an adapter file of the method lora-mace.
"""
_CHECK_PAGE = """
usage: zoo check-equivariance [run=FOLDER | backbone=CARD [adapter=METHOD|FILE]] [input=FILE frames=4] [randomise=true] [seed=0]

Rotation, translation, periodic images, permutation, extensivity, batching, inversion (where the backbone claims O(3)) and
finite-difference forces and stress, in float64. An adapter is filled with random weights first (randomise=false keeps its own).
"""
_ADAPTER_PAGE = """
usage: zoo adapter inspect FILE [--blocks]
       zoo adapter diff FILE FILE [--blocks]

  zoo adapter inspect runs/quickstart/adapter.safetensors
  zoo adapter inspect hf://owner/name
  zoo adapter diff runs/a/adapter.safetensors runs/b/adapter.safetensors --blocks

inspect   method, base, data and training of an adapter, and by role and path how many numbers it has, the norm of its change of weights,
          its stable rank (squared Frobenius over squared spectral norm) and the share of weights it changes; no model is needed
diff      the settings in which two adapters differ, and how far apart their changes of weights are, whatever their methods
FILE      a path, file://, http:// or https:// address, or hf://owner/name[@revision][/file.safetensors] on Hugging Face, where HF_TOKEN
          opens private repositories; what is fetched is kept in the cache and must stay the same
--blocks  one line a block
"""
_SUBMIT_PAGE = """
usage: zoo submit RUN author=NAME licence=LICENCE [output=FILE.zip] [frames=16|all] [device=cpu]

  zoo submit runs/acac author='A. Person' licence=CC-BY-4.0
  zoo submit runs/acac author='A. Person' licence=MIT output=acac.zip frames=all

One archive for the leaderboard (record, config, adapter, predictions of all test frames), verified here as the board verifies it, and the
record beside it. A run on a file of your own cannot be entered: its labels could not be had elsewhere.

author        who the board names
licence       of record and adapter: CC0-1.0, CC-BY-4.0, CC-BY-SA-4.0, MIT, Apache-2.0, BSD-3-Clause, or that of the base
output        submission.zip in the run's folder when left out
frames        test frames of each set whose predictions are computed again from base + adapter, or all
equivariance  true to state the residuals of every symmetry and derivative, which the verifier computes again
reproduced    true for a run of the board's own
"""
_VERIFY_PAGE = """
usage: zoo verify FILE.zip [frames=16|all|0] [salt=WORD] [device=cpu]

  zoo verify submission.zip
  zoo verify submission.zip frames=all

Whether a submission is what it says: labels from the data set's own files, metrics from its predictions, predictions from base + adapter.
Nothing from the archive is run. One line for every reason to refuse it; the exit status is 1 then.

frames      test frames of each set whose predictions are computed again, all, or 0 to leave the base alone
salt        joined to the archive's hash, from which those frames are drawn
"""
COMMANDS: dict[str, Command] = {
    "train": Command("fine-tune a potential (Hydra: any key, -m sweeps)", _TRAIN_PAGE, _train),
    "evaluate": Command("metrics of a run or a base model on a data set", _EVALUATE_PAGE, _evaluate),
    "predict": Command("energies, forces and stress of structures, as extended XYZ", _PREDICT_PAGE, _predict),
    "list": Command("the model cards", "usage: zoo list [PATTERN]        e.g. zoo list 'sevennet*'", _list),
    "data": Command(
        "the published data sets; of one set its files, protocols and licence",
        "usage: zoo data [PATTERN | NAME]        e.g. zoo data 'rmd17/*', zoo data rmd17/aspirin",
        _data,
    ),
    "info": Command("everything a card says", "usage: zoo info CARD [--elements]", _info),
    "adapter": Command("what an adapter file holds, and what distinguishes two", _ADAPTER_PAGE, _adapter),
    "export": Command("base + adapter as one file that the base's own package loads", _EXPORT_PAGE, _export),
    "convert": Command("a pickled MACE model, or LoRA that mace trained, as safetensors", _CONVERT_PAGE, _convert),
    "submit": Command("a finished run as a submission to the leaderboard, verified first", _SUBMIT_PAGE, _submit),
    "verify": Command("whether a submission's numbers follow from its files", _VERIFY_PAGE, _verify),
    "check-equivariance": Command("every symmetry and derivative a potential claims", _CHECK_PAGE, _check_equivariance),
}
