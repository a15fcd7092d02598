import os
import signal

import pytest
import torch
from ase import Atoms

from mlplugins.errors import BadInput, Interrupted, RunFailed
from mlplugins.models import nequip
from mlplugins.models.base import TrainingStatistics
from mlplugins.structures import batch
from mlplugins.structures.dataset import from_atoms
from mlplugins.training.fit import Parts, fit
from mlplugins.training.gradient_config import ScheduleSection, TrainingSection
from mlplugins.training.loss import ErrorSums

from .argon import argon


class Memory:
    """Store and observer in memory; optionally breaks off after some saves, as a killed process would."""

    def __init__(self, state=None, saves=None):
        self.state, self.saves, self.rows, self.notes = state, saves, [], []

    def load(self):
        return self.state

    def save(self, state):
        stream = __import__("io").BytesIO()
        torch.save(state, stream)
        stream.seek(0)
        self.state = torch.load(stream, weights_only=True)
        if self.saves is not None:
            self.saves -= 1
            if self.saves == 0:
                raise InterruptedError

    def log(self, rows, restart):
        self.rows = list(rows) if restart else [*self.rows, *rows]

    def start(self, epoch, epochs):
        pass

    def epoch(self, row, epochs, best):
        pass

    def note(self, text):
        self.notes.append(text)


def parts(seed=0, **settings) -> Parts:
    structures = [from_atoms(a) for a in argon(10, 5)]
    graphs = [batch.single(s, ["Ar"], 5.5, 0.0, torch.float64) for s in structures]
    torch.manual_seed(seed)
    hyperparameters = nequip.Hyperparameters(cutoff=5.5, num_layers=1, num_features=4, radial_mlp=[8])
    model = nequip.Model(["Ar"], hyperparameters)
    model.initialise(TrainingStatistics(40.0, 0.5))
    defaults = {"epochs": 4, "batch_size": 3, "devices": 1, "dtype": "float64", "checkpoint_seconds": 0.0}
    return Parts(model, graphs[:7], graphs[7:], TrainingSection(**{**defaults, **settings}), seed)


def weights(p: Parts) -> torch.Tensor:
    return torch.cat([w.detach().ravel() for w in p.potential.parameters()])


def numbers(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module", params=["cosine", "plateau"])
def schedule(request):
    """Settings, and the run with them that nothing breaks off."""
    settings = {"schedule": ScheduleSection(name=request.param, patience=1, warmup_steps=2)}
    whole, store = parts(**settings), Memory()
    fit(whole, store, store)
    return settings, whole, store


@pytest.mark.parametrize("saves", [1, 5, 7, 11])
def test_a_run_broken_off_at_any_step_ends_as_if_it_had_not_been(saves, schedule):
    settings, whole, store = schedule
    broken = Memory(saves=saves)
    with pytest.raises(InterruptedError):
        fit(parts(**settings), broken, broken)
    again, resumed = parts(**settings), Memory(state=broken.state)
    torch.manual_seed(99)
    outcome = fit(again, resumed, resumed)
    torch.testing.assert_close(weights(again), weights(whole), rtol=0, atol=1e-13)
    assert numbers(outcome.history) == [pytest.approx(row, rel=1e-10) for row in numbers(store.rows)]
    assert len(resumed.rows) == 4


@pytest.mark.parametrize("call", [2, 3])
def test_a_signal_ends_the_run_also_while_it_validates(call, monkeypatch):
    """Sums are read after the steps of an epoch (odd calls) and after its validation (even ones)."""
    whole, store = parts(), Memory()
    fit(whole, store, store)
    rows = numbers(store.rows)
    calls, summary = [], ErrorSums.summary

    def with_signal(self):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return summary(self)

    monkeypatch.setattr(ErrorSums, "summary", with_signal)
    stopped = Memory()
    with pytest.raises(Interrupted) as ended:
        fit(parts(), stopped, stopped)
    assert ended.value.number == signal.SIGTERM
    assert len(stopped.rows) == 1
    assert "the same command continues" in stopped.notes[-1]
    again, resumed = parts(), Memory(state=stopped.state)
    fit(again, resumed, resumed)
    torch.testing.assert_close(weights(again), weights(whole), rtol=0, atol=1e-13)
    assert numbers(resumed.rows) == rows


def test_same_seed_same_result_other_seed_other_order():
    results = []
    for seed in (1, 1, 2):
        p, store = parts(seed), Memory()
        fit(p, store, store)
        results.append(weights(p))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert not torch.equal(results[0], results[2])


def test_global_random_state_is_left_alone():
    p, store = parts(), Memory()
    before = torch.get_rng_state()
    fit(p, store, store)
    assert torch.equal(before, torch.get_rng_state())


def test_best_averaged_weights_are_kept():
    p, store = parts(epochs=12, lr=0.2, schedule=ScheduleSection(name="constant", warmup_steps=0)), Memory()
    outcome = fit(p, store, store)
    scores = [row["validation_loss"] for row in outcome.history]
    assert outcome.counters.best_score == min(scores)
    assert outcome.counters.best_epoch == 1 + scores.index(min(scores))
    best = torch.cat([store.state["best"][name].ravel() for name, _ in p.potential.named_parameters()])
    torch.testing.assert_close(weights(p), best, rtol=0, atol=0)


def test_early_stopping_counts_epochs_without_improvement():
    p, store = parts(epochs=500, lr=1.0, early_stopping=3), Memory()
    outcome = fit(p, store, store)
    assert outcome.counters.epoch == outcome.counters.best_epoch + 3 < 500
    assert outcome.counters.stopped == "no better validation loss for 3 epochs"


@pytest.mark.long
def test_time_limit_ends_the_run_in_the_middle_of_an_epoch():
    p, store = parts(epochs=100000, max_minutes=0.02), Memory()
    outcome = fit(p, store, store)
    assert 1.2 <= outcome.counters.wall_s < 10
    assert outcome.counters.stopped == "0.02 minutes are over"
    assert outcome.history[-1]["lr"] < 0.02 * p.settings.lr  # the schedule ended with the time


def test_divergence_is_an_error_and_keeps_the_last_finite_state():
    p, store = parts(epochs=50, lr=1e200, gradient_clip=None), Memory()
    with pytest.raises(RunFailed, match="the loss became .* lower training.lr"):
        fit(p, store, store)
    if store.state is not None:
        assert all(bool(torch.isfinite(w).all()) for w in store.state["weights"].values())


def test_without_validation_the_last_average_counts():
    p = parts(epochs=2)
    p, store = Parts(p.potential, p.train, [], p.settings), Memory()
    outcome = fit(p, store, store)
    assert outcome.counters.best_epoch == 2
    average = torch.cat([store.state["average"][n].ravel() for n, _ in p.potential.named_parameters()])
    torch.testing.assert_close(weights(p), average, rtol=0, atol=0)


@pytest.mark.long
def test_isolated_atoms_train_along():
    p, store = parts(epochs=20), Memory()
    atom = from_atoms(Atoms("Ar", info={"energy": 0.3}))
    alone = batch.single(atom, ["Ar"], 5.5, 0.0, torch.float64)
    p = Parts(p.potential, [*p.train, alone, alone, alone], [alone], p.settings)
    outcome = fit(p, store, store)
    errors = [row["validation_energy_mae_meV_per_atom"] for row in outcome.history]
    assert errors[-1] < 0.5 * errors[0]


def test_packing_keeps_order_and_limits_edges():
    graphs = parts().train
    packed = batch.pack(graphs, max_edges=2 * graphs[0].centers.shape[0] + 20)
    assert sum(b.n_systems for b in packed) == len(graphs)
    assert len(packed) > 1
    torch.testing.assert_close(*(torch.cat([b.labels["energy"] for b in each]) for each in (packed, graphs)))


def test_checkpoint_of_another_model_version_is_refused():
    p, store = parts(epochs=1), Memory()
    fit(p, store, store)
    del store.state["weights"]["shift"]
    with pytest.raises(BadInput, match="other weights: .*--restart .*shift"):
        fit(parts(epochs=2), store, store)
