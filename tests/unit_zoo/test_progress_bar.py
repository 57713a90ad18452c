"""The progress bar of a training counts the steps of the run, whichever step it begins at."""

from types import SimpleNamespace

from zoo.training.trainer import _progress_bar


def test_the_bar_of_a_resumed_run_ends_at_the_steps_of_the_run():
    bar = _progress_bar()
    for step in (0, 11):  # a run resumed at 10 of 60 steps once ended at "60/49"
        bar._trainer = SimpleNamespace(max_steps=60, max_epochs=-1, global_step=step, num_training_batches=1000)
        assert bar.total_train_batches == 60
