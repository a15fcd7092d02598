import pytest
import torch

from mlplugins.training.gradient_config import ScheduleSection
from mlplugins.training.schedule import MovingAverage, Schedule


def test_warmup_is_linear_and_ends():
    schedule = Schedule(ScheduleSection(name="constant", warmup_steps=4))
    assert [schedule.factor(step, 0.0) for step in range(6)] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]


@pytest.mark.parametrize(("name", "middle"), [("cosine", 0.505), ("exponential", 0.1)])
def test_decay_ends_at_final(name, middle):
    schedule = Schedule(ScheduleSection(name=name, warmup_steps=0, final=0.01))
    assert schedule.factor(0, 0.0) == pytest.approx(1.0)
    assert schedule.factor(1, 0.5) == pytest.approx(middle)
    assert schedule.factor(1, 1.7) == pytest.approx(0.01)


def test_plateau_waits_then_halves_and_survives_a_restart():
    schedule = Schedule(ScheduleSection(name="plateau", warmup_steps=0, patience=3, factor=0.5, final=0.2))
    factors = []
    for score in (1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9):
        schedule.after_validation(score, 1)
        restored = Schedule(schedule.settings)
        restored.restore(schedule.state())
        schedule = restored
        factors.append(schedule.factor(100, 0.0))
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2]


def test_moving_average_is_the_recursion():
    module = torch.nn.Linear(1, 1, bias=False).double()
    average = MovingAverage(module, 0.9)
    expected = module.weight.item()
    for step in range(200):
        with torch.no_grad():
            module.weight.fill_(float(step))
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        average.update(step)
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-12)
    assert not average.module.weight.requires_grad
