"""Threads that share one potential: everyone gets the numbers that they would get alone, and the base stays what it was."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from zoo.backbones import load_family
from zoo.graph import collate
from zoo.potential import Potential
from zoo.testing.measures import assert_same_state, bits, state_of

STRUCTURES = [molecule("CH3OH"), bulk("CuAu", "rocksalt", a=5.2)]
NAMES = ["one", "other"]
TURNS = 6


@pytest.fixture(scope="module")
def potential() -> Potential:
    potential = Potential(load_family("sevennet").toy(0))
    for seed, name in enumerate(NAMES):
        potential.adapters.add(name, "full")
        potential.adapters.randomise(name, seed)
    potential.adapters.activate([])
    return potential


def together(*tasks: Callable[[], None]) -> list[BaseException]:
    """Run the tasks in a thread each; what they raised."""
    raised: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            for _ in range(TURNS):
                task()
        except BaseException as error:  # a thread's error would be lost
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_each_thread_gets_the_numbers_it_would_get_alone(potential):
    before = state_of(potential.backbone)
    expected = {name: bits(potential.predict(STRUCTURES, adapters=[name] * len(STRUCTURES))) for name in NAMES}
    mixed = bits(potential.predict(STRUCTURES, adapters=NAMES))
    assert len({str(one) for one in (*expected.values(), mixed)}) == 3
    wrong: list[str] = []

    def asks_for_each_structure() -> None:
        if bits(potential.predict(STRUCTURES, adapters=NAMES)) != mixed:
            wrong.append("mixed")

    def switches(name: str) -> Callable[[], None]:
        def turn() -> None:
            with potential.adapters.exclusive():
                potential.adapters.activate([name])
                if bits(potential.predict(STRUCTURES)) != expected[name]:
                    wrong.append(name)
                potential.adapters.deactivate()

        return turn

    def merges() -> None:
        with potential.adapters.exclusive():
            potential.adapters.activate(["one"])
            potential.adapters.merge()
            potential.predict(STRUCTURES)
            potential.adapters.unmerge()
            potential.adapters.deactivate()

    def adds_and_deletes() -> None:
        with potential.adapters.exclusive():
            potential.adapters.add("passing", "readout")
            potential.adapters.deactivate()
            potential.adapters.delete("passing")

    assert together(asks_for_each_structure, switches("one"), switches("other"), merges, adds_and_deletes) == []
    assert wrong == []
    assert_same_state(state_of(potential.backbone), before)


def test_a_merge_waits_for_gradients_that_need_the_weights(potential):
    """Between a forward and its derivatives another thread must not write into what the derivatives are made of."""
    graph = collate([potential.graph(atoms) for atoms in STRUCTURES])
    potential.adapters.activate(["one"])
    expected = potential(graph)
    merged_expected = None
    seen: list[dict[str, torch.Tensor]] = []

    def computes() -> None:
        seen.append(potential(graph))

    def merges() -> None:
        with potential.adapters.exclusive():
            if not potential.adapters.is_merged:
                potential.adapters.merge()
        with potential.adapters.exclusive():
            potential.adapters.unmerge()

    try:
        assert together(computes, computes, merges) == []
        potential.adapters.merge()
        merged_expected = potential(graph)
    finally:
        potential.adapters.unmerge()
        potential.adapters.deactivate()
    assert len(seen) == 2 * TURNS
    for results in seen:  # merged or not, the same numbers to rounding
        for name, value in results.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12, equal_nan=True)
    assert torch.allclose(merged_expected["forces"], expected["forces"], rtol=1e-10, atol=1e-12)


def test_two_potentials_on_one_network_wait_for_one_another(potential):
    twin = Potential(potential.backbone)
    expected, base = bits(potential.predict(STRUCTURES, adapters=NAMES)), bits(twin.predict(STRUCTURES))
    wrong: list[str] = []

    def one() -> None:
        if bits(potential.predict(STRUCTURES, adapters=NAMES)) != expected:
            wrong.append("adapted")

    def other() -> None:
        if bits(twin.predict(STRUCTURES)) != base:
            wrong.append("base")

    assert together(one, other, one, other) == []
    assert wrong == []


def test_calculators_of_their_own_in_threads(potential):
    expected = {}
    for name in NAMES:
        potential.adapters.activate([name])
        expected[name] = potential.predict([STRUCTURES[0]])[0].energy
    potential.adapters.deactivate()
    wrong: list[float] = []

    def run(name: str, atoms: Atoms) -> Callable[[], None]:
        atoms.calc = potential.calculator()

        def turn() -> None:
            with potential.adapters.exclusive():
                atoms.calc.set_adapter(name)
                energy = atoms.get_potential_energy()
            if energy != expected[name]:
                wrong.append(energy)

        return turn

    assert together(*(run(name, STRUCTURES[0].copy()) for name in NAMES)) == []
    assert wrong == []
    potential.adapters.deactivate()
