"""The ``zoo`` command: its words, its help, and one clear line for every mistake."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zoo import help_pages
from zoo.errors import USER_ERRORS, ZooError, is_full_disk, nearest_name_hint


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
        if isinstance(error, OSError) and is_full_disk(error):  # of a package that writes by itself
            print(
                f"zoo: error: {error.filename or 'a file'}: cannot be written ({error.strerror}); free disk space and run again",
                file=sys.stderr,
            )
            raise SystemExit(1) from None
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
    from zoo.config_groups import adapter_names

    return adapter_names()


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


def _doctor(words: list[str]) -> None:
    from zoo.doctor.command import doctor

    code = doctor(words)
    if code:
        raise SystemExit(code)


def _submit(words: list[str]) -> None:
    from zoo.submission.commands import submit_command

    submit_command(words)


def _verify(words: list[str]) -> None:
    from zoo.submission.commands import verify_command

    verify_command(words)


def _reproduce(words: list[str]) -> None:
    from zoo.reproduce import reproduce_command

    reproduce_command(words)


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


def _sweep(words: list[str]) -> None:
    from zoo.sweeps.command import sweep_command

    sweep_command(words)


def _analyse(words: list[str]) -> None:
    from zoo.analysis.command import analyse_command

    analyse_command(words)


def _data(words: list[str]) -> None:
    from zoo.data.catalogue import data_set_names
    from zoo.data.config import EMBEDDED_SET
    from zoo.listing import describe_data_set, list_data

    if len(words) > 1:
        raise ZooError(f"zoo data takes one name or pattern, found: {' '.join(words)}")
    if words and words[0] in (EMBEDDED_SET, *data_set_names()):
        describe_data_set(words[0])
    else:
        list_data(words[0] if words else "*")


def _cache(words: list[str]) -> None:
    from zoo.cache_command import cache_command

    cache_command(words)


COMMANDS: dict[str, Command] = {
    "train": Command("fine-tune a potential (Hydra: any key, -m sweeps)", help_pages.TRAIN_PAGE, _train),
    "sweep": Command("runs over ranks, rates, thresholds or training sizes, with the figure", help_pages.SWEEP_PAGE, _sweep),
    "evaluate": Command("metrics of a run or a base model on a data set", help_pages.EVALUATE_PAGE, _evaluate),
    "predict": Command("energies, forces and stress of structures, as extended XYZ", help_pages.PREDICT_PAGE, _predict),
    "doctor": Command("what is wrong with data, model and settings, before training", help_pages.DOCTOR_PAGE, _doctor),
    "list": Command("the model cards", "usage: zoo list [PATTERN]        e.g. zoo list 'sevennet*'", _list),
    "data": Command(
        "the data sets; of one set its files, protocols and licence",
        "usage: zoo data [PATTERN | NAME]        e.g. zoo data 'rmd17/*', zoo data rmd17/aspirin",
        _data,
    ),
    "cache": Command("what lies in the cache, and room made there", help_pages.CACHE_PAGE, _cache),
    "info": Command("everything a card says", "usage: zoo info CARD [--elements]", _info),
    "adapter": Command("what an adapter file holds, what distinguishes two, and one of several", help_pages.ADAPTER_PAGE, _adapter),
    "analyse": Command("what an adapter did to its base: coverage, ranks, norms, spectra", help_pages.ANALYSE_PAGE, _analyse),
    "export": Command("base + adapter as one file that the base's own package loads", help_pages.EXPORT_PAGE, _export),
    "convert": Command("a pickled MACE model, or LoRA that mace trained, as safetensors", help_pages.CONVERT_PAGE, _convert),
    "check-equivariance": Command("every symmetry and derivative a potential claims", help_pages.CHECK_PAGE, _check_equivariance),
    "submit": Command("a finished run as a submission to the leaderboard, verified first", help_pages.SUBMIT_PAGE, _submit),
    "verify": Command("whether a submission's numbers follow from its files", help_pages.VERIFY_PAGE, _verify),
    "reproduce": Command("a result made again from its record, and every number compared", help_pages.REPRODUCE_PAGE, _reproduce),
}
