"""What a sweep is asked for is read as it was meant, composed before anything runs, and refused in one line where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.refusals import cli_refusal, lacks, refusal_of
from zoo.sweeps import KINDS, plan_sweep, run_sweep
from zoo.sweeps.jobs import value_text
from zoo.sweeps.request import Method, request_of_words
from zoo.sweeps.words import items_of

TOY = "backbone=sevennet-0"


def values_in(config, key: str):
    current = config.model_dump()
    for part in key.split("."):
        current = current[part]
    return current


@pytest.mark.parametrize("kind", KINDS)
def test_every_run_of_every_kind_composes_to_its_own_value_seed_and_folder(kind: str, tmp_path: Path) -> None:
    request = request_of_words(kind, [TOY, f"sweep.folder={tmp_path}", "seeds=[3,5]", "training.steps=7"])
    jobs = plan_sweep(request)
    row = KINDS[kind]
    assert len(jobs) == len(row.methods) * max(1, len(row.values)) * 2
    assert len({job.folder for job in jobs}) == len({job.name for job in jobs}) == len(jobs)
    for job in jobs:
        assert job.config.training.seed == job.seed
        assert job.config.training.steps == 7
        assert Path(job.config.run.folder) == job.folder == tmp_path / "runs" / job.name
        assert row.key is None or values_in(job.config, row.key) == job.value
    assert {job.seed for job in jobs} == {3, 5}
    assert {job.value for job in jobs} == (set(row.values) or {None})
    assert not list(tmp_path.iterdir())


def test_the_settings_of_a_method_are_the_adapters_unless_they_name_a_group(tmp_path: Path) -> None:
    methods = "methods=[sparse:setting=linear,elora:rank=3:training.optimizer.learning_rate=0.5,elora:roles=[linear,readout]]"
    request = request_of_words("convergence", [TOY, methods, "seeds=4", f"sweep.folder={tmp_path}"])
    sparse, elora, roles = (job.config for job in plan_sweep(request))
    assert (sparse.adapter["name"], sparse.adapter["setting"]) == ("sparse", "linear")
    assert (elora.adapter["rank"], elora.training.optimizer.learning_rate) == (3, 0.5)
    assert list(roles.adapter["roles"]) == ["linear", "readout"]
    assert next(job.name for job in plan_sweep(request)) == "sparse-setting-linear-s4"


def test_a_preset_keeps_the_rate_that_belongs_to_it_and_a_rate_in_the_words_wins(tmp_path: Path) -> None:
    def rates(*words: str) -> list[float]:
        request = request_of_words("convergence", [TOY, "methods=[elora,sparse]", "seeds=0", f"sweep.folder={tmp_path}", *words])
        return [job.config.training.optimizer.learning_rate for job in plan_sweep(request)]

    assert rates() == [5e-3, 1e-2]
    assert rates("training.optimizer.learning_rate=0.25") == [0.25, 0.25]
    own = ["methods=[elora:training.optimizer.learning_rate=0.5,sparse]", "training.optimizer.learning_rate=0.25"]
    request = request_of_words("convergence", [TOY, "seeds=0", f"sweep.folder={tmp_path}", *own])
    assert [job.config.training.optimizer.learning_rate for job in plan_sweep(request)] == [0.5, 0.25]


def test_commas_within_brackets_and_addresses_separate_nothing() -> None:
    assert items_of("[a,b:c=[1,2], d]") == ("a", "b:c=[1,2]", "d")
    assert items_of("1,2") == ("1", "2")
    assert Method.of("hf://owner/name").words == ("adapter=hf://owner/name",)


def test_numbers_are_whole_where_they_are_written_so_and_the_folder_names_them() -> None:
    request = request_of_words("learning_rate", ["values=[1,0.5,1e-3]"])
    assert request.values == (1, 0.5, 1e-3)
    assert isinstance(request.values[0], int)
    assert [job.name for job in plan_sweep(request_of_words("learning_rate", [TOY, "values=[1e-5]", "seeds=0"]))][
        1
    ] == "elora-learning_rate-1e-05-s0"


def test_the_folder_is_named_after_kind_base_and_data() -> None:
    (job,) = plan_sweep(request_of_words("rank", [TOY, "values=2", "seeds=0", "data=rmd17/aspirin"]))
    assert job.folder == Path("sweeps/rank-sevennet-0-rmd17_aspirin/runs/elora-rank-2-s0")


def test_adapter_settings_for_all_runs_are_those_of_the_methods_and_of_no_default() -> None:
    words = [TOY, "values=1", "seeds=0", "adapter.tau_learning_rate=0.5"]
    jobs = plan_sweep(request_of_words("lambda_tau", words))
    assert [job.config.adapter["tau_learning_rate"] for job in jobs] == [0.5] * 3
    mixed = request_of_words("convergence", [*words[:1], *words[2:]])
    assert not lacks(refusal_of(plan_sweep, mixed), "full-s0", "tau_learning_rate")


def test_keys_may_carry_the_sweeps_prefix_and_the_dry_run_may_be_a_flag() -> None:
    assert request_of_words("rank", ["sweep.values=[2]", "--dry-run", "sweep.jobs=2"]).model_dump() == (
        request_of_words("rank", ["values=2", "dry_run=true", "jobs=2"]).model_dump()
    )


REFUSED = {
    "values=[a]": ("values", "'a' is not a number"),
    "values=[]": ("values is empty",),
    "values=[2,2]": ("values", "2 stands there twice"),
    "values=[inf]": ("values", "finite"),
    "seeds=[-1]": ("seeds", "none below 0"),
    "seeds=[0.5]": ("seeds",),
    "jobs=0": ("jobs", "greater than or equal to 1"),
    "show=[los]": ("show", "did you mean 'loss'"),
    "force_metric=force_mae": ("force_metric", "did you mean 'force_mae_mev_per_angstrom'"),
    "valeus=[2]": ("unknown key 'valeus'", "did you mean 'values'"),
    "sweep.job=2": ("unknown key 'sweep.job'", "did you mean 'jobs'"),
    "experiment": ("'experiment'", "key=value"),
    "-m": ("'-m'", "key=value"),
    "adapter=elora": ("adapter is set by the sweep", "methods=[...]"),
    "training.seed=3": ("training.seed is set by the sweep", "seeds=[...]"),
    "run.name=x": ("run.name is set by the sweep", "sweep.folder=..."),
    "adapter.rank=3": ("adapter.rank is what it varies", "values=[...]"),
    "training.stepz=3": ("unknown key", "steps"),
    "methods=[elora:rnk=2]": ("elora-rnk-2-rank-2-s0", "rnk", "rank"),
    "methods=[full]": ("full-rank-2-s0", "rank"),
    "methods=[lora]": ("lora", "elora"),
    "methods=[elora:rank]": ("methods", "NAME:key=value"),
    "hydra.job.chdir=true": ("unknown key 'hydra.job.chdir'",),
}


@pytest.mark.parametrize("word", REFUSED)
def test_a_mistake_is_one_line_before_anything_runs_or_is_written(word: str, zoo, tmp_path: Path) -> None:
    words = [TOY, "values=[2]", "seeds=[0]", word]
    if word.partition("=")[0] in ("values", "seeds"):
        words = [TOY, "values=[2]", "seeds=[0]"]
        words[1 if word.startswith("values") else 2] = word
    assert not lacks(cli_refusal(zoo("sweep", "rank", *words)), *REFUSED[word])
    assert not list(tmp_path.iterdir())


def test_an_unknown_kind_is_refused_with_the_nearest(zoo) -> None:
    assert not lacks(cli_refusal(zoo("sweep", "ranks")), "'rank'", "did you mean")
    assert not lacks(cli_refusal(zoo("sweep")), "the first word is the kind", "lambda_tau")
    assert not lacks(cli_refusal(zoo("sweep", "values=[2]")), "the first word is the kind")
    assert not lacks(refusal_of(run_sweep, "rank", [TOY], value=[2]), "unknown option 'value'", "'values'")


def test_what_would_make_a_sweep_vary_nothing_is_refused(tmp_path: Path) -> None:
    preset = request_of_words("lambda_tau", [TOY, "methods=[sparse_low]", f"sweep.folder={tmp_path}"])
    assert not lacks(refusal_of(plan_sweep, preset), "threshold_end", "fixes what lambda_tau varies")
    assert not lacks(refusal_of(request_of_words, "convergence", ["values=[2]"]), "takes no values")


def test_two_methods_of_one_name_are_refused(tmp_path: Path) -> None:
    request = request_of_words("convergence", [TOY, "methods=[elora:rank=1,elora-rank-1]", f"sweep.folder={tmp_path}"])
    assert not lacks(refusal_of(plan_sweep, request), "share the name", "elora-rank-1")


def test_the_table_of_the_documentation_is_that_of_the_kinds() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/sweeps.md").read_text(encoding="utf-8")
    for kind in KINDS.values():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{kind.name}` |")]
        assert not lacks(row, kind.key or "nothing", *(method.partition(":")[0] for method in kind.methods), kind.figure.partition(", ")[2])
        assert not lacks(row, *(value_text(value) for value in kind.values[:1] + kind.values[-1:]))
