"""Every mistake is one line that says what was found and what to do, and leaves nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.io import write

from tests.refusals import cli_refusal, lacks
from tests.structures import dimers

# words, and what the line must name: what was found, and the remedy or the nearest name
WRONG_WORDS = [
    (["backbone=sevennet-1"], ["unknown model 'sevennet-1'", "did you mean", "sevennet-0"]),
    (["backbone=missing.pth"], ["missing.pth: no such file"]),
    (["adapter=eloar"], ["adapter=eloar: not an option", "elora"]),
    (["data=emt-cuua"], ["data=emt-cuua: not an option", "emt-cuau"]),
    (["training=defualt"], ["training=defualt: not an option", "default"]),
    (["experiment=quickstrat"], ["experiment=quickstrat: not an option", "quickstart"]),
    (["training.stepz=3"], ["unknown key 'training.stepz'", "did you mean 'steps'"]),
    (["training.optimizer.learning_rat=3"], ["unknown key 'training.optimizer.learning_rat'", "did you mean 'learning_rate'"]),
    (["training.loss.forces.wieght=3"], ["unknown key 'training.loss.forces.wieght'", "did you mean 'weight'"]),
    (["data.nme=x"], ["unknown key 'data.nme'", "did you mean 'name'"]),
    (["adapter.rnk=4"], ["adapter.rnk", "did you mean 'rank'"]),
    (["adaptor.rank=4"], ["unknown key 'adaptor'", "did you mean 'adapter'"]),
    (["+trainin.steps=3"], ["unknown key 'trainin'", "did you mean 'training'"]),
    (["training.steps=many"], ["training.steps='many'", "integer"]),
    (["training.steps=0"], ["training.steps=0", "greater than or equal to 1"]),
    (["training.seed=-1"], ["training.seed=-1", "greater than or equal to 0"]),
    (["adapter=sparse", "adapter.form=printed"], ["form='printed'", "training.ema_decay=null"]),
    (["training.optimizer.name=sgd"], ["training.optimizer.name='sgd'", "'adamw'"]),
    (["backbone.dtype=float16"], ["backbone.dtype='float16'", "'float32' or 'float64'"]),
    (["backbone.device=cudda"], ["device='cudda' is not a device", "'cpu'"]),
    (["backbone.device=cuda:99"], ["device='cuda:99'", "pass 'cpu'"]),
    (["data.test=3"], ["config: data.test=3"]),
    (["data.n_train=1000"], ["1000"]),
    (["data.path=x.xyz"], ["data.path=x.xyz", "emt-cuau"]),
    (["training.loss.energy.kind=l2norm"], ["l2norm is defined for forces only"]),
    (["training.loss.energy.weight=0", "training.loss.forces.weight=0"], ["every weight is 0", "training.loss.forces.weight="]),
    (["training.optimizer.name=schedule_free_adamw"], ["config: training: schedule_free_adamw averages", "training.ema_decay=null"]),
    (["adapter=sparse", "training.optimizer.name=adam"], ["decoupled weight decay", "adamw"]),
    (["adapter.roles=[readuot]"], ["readuot", "readout"]),
    (["strategy.reference_energies_before=isolated_atoms"], ["no isolated atoms", "data.isolated_atoms=FILE"]),
    (["training.loggers.wandb_project=x"], ["wandb", "pip install wandb"]),
    (["data=missing.xyz"], ["data=missing.xyz: no such file"]),
    (["adapter=missing.safetensors"], ["adapter=missing.safetensors: no such file"]),
    (["training"], ["'training': arguments are key=value"]),
    (["training.steps=[3"], ["training.steps=[3"]),
]


@pytest.mark.parametrize(("words", "wanted"), WRONG_WORDS, ids=[" ".join(words) for words, _ in WRONG_WORDS])
def test_wrong_words_are_one_line_and_no_run_folder(words, wanted, zoo, small_run, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.training.trainer.find_spec", lambda _: None)  # as where wandb is not installed
    assert not lacks(cli_refusal(zoo("train", *small_run, "run.name=run", *words)), *wanted)
    assert not (tmp_path / "runs/run").exists()


def test_same_words_without_the_mistake_run(zoo, small_run, tmp_path):
    # the control of the parametrised test above
    finished = zoo("train", *small_run, "run.name=run", "training.steps=2")
    assert finished.code == 0, finished.err
    assert (tmp_path / "runs/run/record.json").is_file()


def _rename_forces(frames: list[Atoms]) -> None:
    for atoms in frames:
        atoms.arrays["REF_forces"] = atoms.calc.results.pop("forces")


def _drop_forces_of_one(frames: list[Atoms]) -> None:
    del frames[7].calc.results["forces"]


def _nan_frame(frames: list[Atoms]) -> None:
    frames[5].calc.results.update(energy=float("nan"), forces=np.full((2, 3), np.nan))


def _unknown_element(frames: list[Atoms]) -> None:
    frames[3].symbols[0] = "Po"


def _far_apart(frames: list[Atoms]) -> None:
    frames[4].positions[1] += 30.0


BAD_FRAMES = {
    "forces under another name": (_rename_forces, ["data.xyz: frame 0 has no 'forces'", "data.forces_key=", "REF_forces"]),
    "one frame without forces": (_drop_forces_of_one, ["data.xyz: frame 7", "forces"]),
    "a frame of NaN": (_nan_frame, ["data.xyz: frame 5", "NaN"]),
    "an element the model does not know": (_unknown_element, ["data.xyz", "3", "Po", "toy.pth does not know"]),
    "a frame of two atoms without any edge": (_far_apart, ["data.xyz", "4", "2 atoms but no pair within the cutoff of 4 Å"]),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_bad_frames_are_one_line_and_no_run_folder(name, zoo, small_run, tmp_path):
    spoil, wanted = BAD_FRAMES[name]
    frames = dimers(12)
    spoil(frames)
    write(tmp_path / "data.xyz", frames)
    assert not lacks(cli_refusal(zoo("train", *small_run, "data=data.xyz", "run.name=run")), *wanted)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["data.xyz"]


def test_same_frames_unspoilt_run(zoo, small_run, tmp_path):
    write(tmp_path / "data.xyz", dimers(12))
    assert zoo("train", *small_run, "data=data.xyz", "run.name=run", "training.steps=1").code == 0


@pytest.mark.parametrize("content", [b"", b"12\nnot extended xyz", b"\x00\xff" * 100])
def test_unreadable_data_file_is_one_line(content, zoo, small_run, tmp_path):
    (tmp_path / "data.xyz").write_bytes(content)
    assert "data.xyz" in cli_refusal(zoo("train", *small_run, "data=data.xyz", "run.name=run"))
    assert not (tmp_path / "runs/run").exists()


def test_pickle_that_would_run_code_is_refused_without_running_it(zoo, small_run, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    payload = {"model_state_dict": {}, "config": Hostile()}
    torch.save(payload, tmp_path / "hostile.pt")
    assert not lacks(
        cli_refusal(zoo("train", *small_run, f"backbone={tmp_path}/hostile.pt", "run.name=run")), "hostile.pt", "would run code", "trust"
    )
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "runs/run").exists()


@pytest.fixture(scope="module")
def finished_run(small_run, tmp_path_factory) -> Path:
    from zoo.cli import main

    folder = tmp_path_factory.mktemp("finished") / "run"
    main(["train", *small_run, "adapter.rank=2", "training.steps=3", f"hydra.run.dir={folder}", "run.name=run"])
    return folder


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_folder_of_another_run_is_refused_and_untouched(zoo, small_run, finished_run):
    before = _snapshot(finished_run)
    finished = zoo("train", *small_run, f"hydra.run.dir={finished_run}")
    assert not lacks(cli_refusal(finished), str(finished_run), "not empty", "run.resume=true", "run.name=")
    assert _snapshot(finished_run) == before


def test_resumption_with_another_config_is_refused_and_untouched(zoo, small_run, finished_run):
    before = _snapshot(finished_run)
    words = [*small_run, "adapter.rank=2", "training.steps=3", f"hydra.run.dir={finished_run}", "run.name=run", "run.resume=true"]
    finished = zoo("train", *words, "training.seed=7")
    assert not lacks(cli_refusal(finished), str(finished_run), "training.seed=0", "7", "resume with the same config")
    assert _snapshot(finished_run) == before


def test_run_from_before_a_setting_existed_is_resumed_and_one_with_a_foreign_setting_is_not(zoo, small_run, finished_run, tmp_path):
    words = [*small_run, "adapter.rank=2", "training.steps=3", "run.name=run", "run.resume=true"]
    for name, change in (("older", lambda training: training.pop("ema_warmup")), ("foreign", lambda training: training.update(epoch=3))):
        folder = _resumable(finished_run, tmp_path / name)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        change(config["training"])
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        finished = zoo("train", *words, f"hydra.run.dir={folder}")
        if name == "older":
            assert finished.code == 0, finished.err
        else:
            assert not lacks(cli_refusal(finished), "foreign/config.yaml", "unknown key 'training.epoch'", "start a new run")


def test_folder_with_other_files_is_no_run_to_resume(zoo, small_run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    finished = zoo("train", *small_run, "hydra.run.dir=mine", "run.resume=true")
    assert not lacks(cli_refusal(finished), "mine", "no config.yaml", "run.name=")
    assert _snapshot(tmp_path / "mine") == {"thesis.txt": b"years of work"}


def _resumable(finished_run: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(finished_run, target)
    (target / "record.json").unlink()  # the last file a run writes: without it the run is not finished
    return target


@pytest.mark.parametrize("damage", ["truncated", "bit flipped", "empty", "foreign", "hostile"])
def test_damaged_checkpoint_is_one_line(damage, zoo, small_run, finished_run, tmp_path):
    folder = _resumable(finished_run, tmp_path / "run")
    checkpoint = folder / "checkpoints/last.ckpt"
    content = bytearray(checkpoint.read_bytes())
    if damage == "truncated":
        checkpoint.write_bytes(content[: len(content) // 2])
    elif damage == "bit flipped":
        with zipfile.ZipFile(checkpoint) as archive:
            largest = max(archive.infolist(), key=lambda member: member.file_size if "/data/" in member.filename else 0)
            place = content.index(archive.read(largest))
        content[place + largest.file_size // 2] ^= 1
        checkpoint.write_bytes(content)
    elif damage == "empty":
        checkpoint.write_bytes(b"")
    elif damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, checkpoint)
    else:
        torch.save({"state_dict": {}, "global_step": 3, "equizoo": np.random.default_rng(0)}, checkpoint)
    words = [*small_run, "adapter.rank=2", "training.steps=3", f"hydra.run.dir={folder}", "run.name=run", "run.resume=true"]
    assert not lacks(cli_refusal(zoo("train", *words)), "last.ckpt", "not a checkpoint of this program, or damaged", "delete it")


def test_missing_best_weights_are_one_line(zoo, small_run, finished_run, tmp_path):
    folder = _resumable(finished_run, tmp_path / "run")
    for path in folder.glob("checkpoints/kept-*"):
        path.unlink()
    words = [*small_run, "adapter.rank=2", "training.steps=3", f"hydra.run.dir={folder}", "run.name=run", "run.resume=true"]
    assert not lacks(cli_refusal(zoo("train", *words)), "kept-", "cannot be read", "run again")


def test_run_folder_below_a_file_is_one_line(zoo, small_run, tmp_path):
    (tmp_path / "plain").write_text("a file")
    for folder in ("plain", "plain/run"):
        assert not lacks(cli_refusal(zoo("train", *small_run, f"hydra.run.dir={folder}")), "plain", "cannot be written", "hydra.run.dir=")
    assert (tmp_path / "plain").read_text() == "a file"


def test_run_folder_without_permission_is_one_line(zoo, small_run, tmp_path, monkeypatch):
    # root may write everywhere, so the system's answer is simulated
    monkeypatch.setattr("zoo.training.folder.os.access", lambda *_: False)
    assert not lacks(cli_refusal(zoo("train", *small_run, "run.name=run")), "cannot be written", "no permission", "hydra.run.dir=")
    assert not (tmp_path / "runs/run").exists()


@pytest.mark.parametrize("damage", ["truncated", "bit flipped", "other base"])
def test_damaged_or_foreign_adapter_is_one_line_everywhere(damage, zoo, small_run, toy_checkpoint, finished_run, tmp_path):
    content = bytearray((finished_run / "adapter.safetensors").read_bytes())
    base, wanted = str(toy_checkpoint), ["adapter.safetensors", "damaged"]
    if damage == "truncated":
        content = content[:-40]
    elif damage == "bit flipped":
        content[-1000] ^= 1
    else:
        from zoo.backbones import load_family

        base = str(tmp_path / "other.pth")
        torch.save(load_family("sevennet").toy(1).upstream_checkpoint({}), base)
        stated = json.loads((finished_run / "record.json").read_text())["base"]["values_sha256"]
        wanted = [stated, "found a base with values"]
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(content)
    assert not lacks(cli_refusal(zoo("train", *small_run, f"backbone={base}", f"adapter={path}", "run.name=run")), *wanted)
    assert not (tmp_path / "runs/run").exists()
    assert not lacks(cli_refusal(zoo("evaluate", f"backbone={base}", f"adapter={path}")), *wanted)
    assert not lacks(cli_refusal(zoo("export", f"backbone={base}", f"adapter={path}", "output=exported.pth")), *wanted)
    assert not (tmp_path / "exported.pth").exists()


def test_adapter_file_takes_no_settings_besides(zoo, small_run, finished_run, tmp_path):
    words = [*small_run, f"adapter={finished_run}/adapter.safetensors", "adapter.rank=3", "run.name=run"]
    assert not lacks(cli_refusal(zoo("train", *words)), "adapter.safetensors", "leave adapter.rank out")


@pytest.mark.parametrize("part", ["config.yaml", "kept-", "history.csv", "last.ckpt", "adapter.safetensors", "record.json", "log.txt"])
def test_full_disk_is_one_line_and_the_resumed_run_is_whole(part, zoo, small_run, finished_run, tmp_path, monkeypatch):
    real_replace, real_open = os.replace, Path.open

    def full(source, target, *args, **kwargs):
        if part in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return real_replace(source, target, *args, **kwargs)

    def full_log(self, *args, **kwargs):
        if self.name == part and "a" in args:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return real_open(self, *args, **kwargs)

    words = [*small_run, "adapter.rank=2", "training.steps=3", "run.name=run"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        patch.setattr(Path, "open", full_log)
        assert not lacks(cli_refusal(zoo("train", *words)), part, "No space left on device", "disk space")
    assert not [path for path in tmp_path.rglob(".*") if path.name.endswith(".partial")]
    assert not (tmp_path / "runs/run/record.json").exists()
    assert zoo("train", *words, "run.resume=true").code == 0
    assert (tmp_path / "runs/run/adapter.safetensors").read_bytes() == (finished_run / "adapter.safetensors").read_bytes()


def test_write_that_fails_in_the_middle_of_a_checkpoint_is_one_line(forked_zoo, small_run, finished_run, tmp_path):
    # the kernel refuses every byte of a file beyond the limit, as a full disk does
    words = ["train", *small_run, "adapter.rank=2", "training.steps=3", "run.name=run"]
    limit = (finished_run / "checkpoints/last.ckpt").stat().st_size // 2
    assert forked_zoo(words, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) == 1
    line = (tmp_path / "output.txt").read_text().splitlines()[-1]
    assert line.startswith("zoo: error: ")
    assert "cannot be written" in line
    assert not (tmp_path / "runs/run/checkpoints/last.ckpt").exists()
    assert forked_zoo([*words, "run.resume=true"]) == 0
    assert (tmp_path / "runs/run/adapter.safetensors").read_bytes() == (finished_run / "adapter.safetensors").read_bytes()


def test_diverging_run_names_step_and_remedy(zoo, small_run, tmp_path):
    finished = zoo("train", *small_run, "training.optimizer.learning_rate=1e30", "training.schedule.warmup_steps=0", "run.name=run")
    assert not lacks(cli_refusal(finished), "not a number", "training.optimizer.learning_rate")


MISUSES = [
    (["evaluate", "run=nowhere"], ["nowhere: not a run folder", "config.yaml"]),
    (["evaluate", "adapter=eloar"], ["eloar", "elora"]),
    (["evaluate", "adapter=gone.safetensors"], ["gone.safetensors: cannot be read"]),
    (["evaluate", "split=tset"], ["no part 'tset'", "test"]),
    (["evaluate", "referenc_energies=model"], ["unknown key 'referenc_energies'", "reference_energies"]),
    (
        ["evaluate", "reference_energies=guess"],
        ["reference_energies='guess'", "'base', 'model', 'isolated_atoms', 'least_squares' or 'linear'"],
    ),
    (["evaluate", "data=gone.xyz"], ["data=gone.xyz: no such file"]),
    (["predict", "output=out.xyz"], ["input is missing", "input=..."]),
    (["predict", "input=gone.xyz", "output=out.xyz"], ["gone.xyz"]),
    (["predict", "input=gone.xyz", "output=out.xyz", "inptu=3"], ["unknown key 'inptu'", "input"]),
    (["export"], ["output is missing", "output=FILE.pth"]),
    (["export", "output=x.pth", "format=pickle"], ["format=pickle: not a format of sevennet", "native"]),
    (["export", "output=x.pth", "--format"], ["--format has no value", "format=..."]),
    (["export", "output=x.model"], ["x.model: its tools know this format by the suffix .pth", "output=x.pth"]),
    (["export", "output=."], ["is a folder", "exported.pth"]),
    (["export", "ouput=x.pth"], ["unknown key 'ouput'", "output"]),
    (["export", "--outptu", "x.pth"], ["'--outptu'", "key=value"]),
    (["check-equivariance", "frames=0"], ["frames=0"]),
    (["check-equivariance", "adapter=full", "seeed=1"], ["unknown key 'seeed'", "seed"]),
    (["list", "mace*", "x"], ["zoo list takes one pattern"]),
    (["list", "sevenet-0"], ["no model matches 'sevenet-0'", "sevennet-0"]),
    (["info"], ["zoo info takes one card's name", "zoo list"]),
    (["info", "sevennet-O"], ["unknown model 'sevennet-O'", "sevennet-0"]),
    (["trian"], ["unknown command 'trian'", "train"]),
]


@pytest.mark.parametrize(("words", "wanted"), MISUSES, ids=[" ".join(words) for words, _ in MISUSES])
def test_misuse_of_the_other_commands_is_one_line(words, wanted, zoo, toy_checkpoint, tmp_path):
    base = [f"backbone={toy_checkpoint}"] if words[0] not in ("list", "info", "trian") and "run=nowhere" not in words else []
    assert not lacks(cli_refusal(zoo(words[0], *base, *words[1:])), *wanted)
    assert not list(tmp_path.iterdir())


def test_unwritable_output_is_one_line(zoo, toy_checkpoint, tmp_path):
    (tmp_path / "plain").write_text("a file")
    write(tmp_path / "in.xyz", dimers(1))
    base = f"backbone={toy_checkpoint}"
    assert not lacks(cli_refusal(zoo("predict", base, "input=in.xyz", "output=plain/out.xyz")), "plain/out.xyz", "cannot be written")
    assert not lacks(cli_refusal(zoo("export", base, "output=plain/exported.pth")), "plain/exported.pth", "cannot be written")
    assert not lacks(
        cli_refusal(zoo("evaluate", base, "data.test=[]", "data.n_train=2", "data.n_valid=2", "record=plain/record.json")),
        "plain/record.json",
        "cannot be written",
    )


def test_debug_shows_the_traceback(toy_checkpoint):
    from zoo.cli import main
    from zoo.errors import ZooError

    with pytest.raises(ZooError, match="unknown command"):
        main(["trian", "--debug"])
