"""The training loop: losses, schedule, average, the best weights, and a loss that becomes no number."""

import numpy as np
import pytest
import torch
from training_folders import Heard, same, tiny

from live_restore.errors import TrainingError
from live_restore.models.nets import build_net
from live_restore.training.arithmetic import Arithmetic, choose_arithmetic
from live_restore.training.average import POWER, Average
from live_restore.training.fit import fit
from live_restore.training.held_out import HeldOut, HeldOutImage
from live_restore.training.losses import CHARBONNIER_WIDTH, LOSSES, choose_loss
from live_restore.training.patches import Batch
from live_restore.training.schedule import Schedule
from live_restore.training.start import build_start
from live_restore.training.terms import Terms

CPU = Arithmetic(torch.device("cpu"), "f32", 2)


# --- losses


FORMULAS = {
    "mae": lambda x, y: np.abs(x - y).mean(),
    "mse": lambda x, y: ((x - y) ** 2).mean(),
    "charbonnier": lambda x, y: np.sqrt((x - y) ** 2 + CHARBONNIER_WIDTH**2).mean(),
    "laplace": lambda x, y: (np.abs(x[:, :1] - y) / x[:, 1:] + np.log(2 * x[:, 1:])).mean(),
}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_loss_is_its_formula(loss):
    rng = np.random.default_rng(0)
    target = rng.gamma(1, 1, (3, 1, 8, 8))
    output = rng.gamma(1, 1, (3, 2 if loss.probabilistic else 1, 8, 8)) + 0.01
    computed = float(loss.compute(torch.from_numpy(output), torch.from_numpy(target)))
    assert computed == pytest.approx(FORMULAS[loss.name](output, target), rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_loss_estimates_what_it_says(loss):
    """The constant that makes it smallest, over skewed targets whose mean and median are far apart."""
    target = np.random.default_rng(0).gamma(0.5, 1, 4001)
    tensor = torch.from_numpy(target).reshape(1, 1, 1, -1)
    scales = [np.abs(target - np.median(target)).mean()] if loss.probabilistic else [None]
    found = []
    for value in np.linspace(0.05, 1, 381):
        for scale in scales:
            output = torch.full_like(tensor, value)
            output = output if scale is None else torch.cat([output, torch.full_like(tensor, scale)], 1)
            found.append((float(loss.compute(output, tensor)), value))
    expected = target.mean() if loss.name == "mse" else np.median(target)
    assert loss.estimates.startswith("mean" if loss.name == "mse" else "median")
    assert min(found)[1] == pytest.approx(expected, abs=0.01)


def test_the_scale_of_laplace_is_the_mean_absolute_deviation():
    target = np.random.default_rng(0).gamma(0.5, 1, 4001)
    tensor, laplace = torch.from_numpy(target).reshape(1, 1, 1, -1), choose_loss("laplace", True)
    means = torch.full_like(tensor, np.median(target))
    found = [
        (float(laplace.compute(torch.cat([means, torch.full_like(tensor, b)], 1), tensor)), b) for b in np.linspace(0.1, 1, 361)
    ]
    assert min(found)[1] == pytest.approx(np.abs(target - np.median(target)).mean(), abs=0.005)


def test_losses_that_do_not_fit():
    with pytest.raises(ValueError, match="no loss 'l1'; the losses are mae"):
        choose_loss("l1", False)
    with pytest.raises(ValueError, match="'mae' does not fit a network that gives a scale for every pixel; use loss 'laplace'"):
        choose_loss("mae", True)
    with pytest.raises(ValueError, match="loss 'laplace' does not fit a network that gives no scale; use mae"):
        choose_loss("laplace", False)


# --- schedule, average, arithmetic


@pytest.mark.parametrize(
    "limits", [{"steps": 1000}, {"seconds": 50.0}, {"steps": 1000, "seconds": 500.0}, {"steps": 9999, "seconds": 50.0}]
)
def test_the_schedule_fits_itself_to_steps_and_minutes(limits):
    """At 20 steps a second all of these end after 1000 steps, with the same learning rates on the way."""
    schedule = Schedule(2e-3, warm_up=0.1, **limits)
    positions = [schedule.position(step, step / 20) for step in range(0, 1001, 50)]
    assert positions == pytest.approx(np.arange(0, 1.001, 0.05))
    rates = [schedule.rate(position) for position in positions]
    assert rates[:3] == pytest.approx([2e-5, 1e-3, 2e-3])
    assert np.all(np.diff(rates[2:]) < 0)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert schedule.position(1200, 60) == 1


def test_a_schedule_that_is_late_still_ends_in_time():
    schedule = Schedule(1.0, steps=1000, seconds=10.0)
    assert schedule.position(3, 9.0) == 0.9
    assert schedule.rate(0.9) < 0.05


def test_schedules_that_are_none():
    with pytest.raises(ValueError, match="the schedule has no end"):
        Schedule(1e-3)
    with pytest.raises(ValueError, match="warm_up 1 must be a fraction"):
        Schedule(1e-3, steps=3, warm_up=1)


@pytest.mark.parametrize("longest", [0.0, 0.9, 0.9999])
def test_the_average_of_weights_is_its_formula(longest):
    net = build_net("care", {"n_dim": 2, "depth": 1, "first_filters": 2, "kernel": 3}, 0)
    average, expected = Average(net, longest), None
    for step in range(1, 30):
        with torch.no_grad():
            for weights in net.parameters():
                weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(step)))
        average.update(net, step)
        keep = min(longest, (1 - 1 / step) ** (1 + POWER))
        now = net.head_mean.weight.detach().double()
        expected = now if expected is None else keep * expected + (1 - keep) * now
    assert average.net.head_mean.weight.double() == pytest.approx(expected, abs=1e-4)
    twin = Average(net, longest)
    twin.load(average.state())
    assert same(twin.state(), average.state())


def test_arithmetic_that_would_go_wrong_is_refused():
    assert choose_arithmetic("cpu", "auto", 3).precision == "f32"
    assert "CPU" in str(choose_arithmetic("cpu", "f32", 2))
    with pytest.raises(TrainingError, match="precision f16 is for GPUs"):
        choose_arithmetic("cpu", "f16", 2)
    with pytest.raises(TrainingError, match="bf16 gives wrong gradients in 3D on a CPU"):
        choose_arithmetic("cpu", "bf16", 3)
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match=r"no CUDA device can be used by torch .* use --device cpu"):
            choose_arithmetic("cuda", "auto", 2)


# --- the loop


class Made:
    """Batches made up: the target is the low image, halved."""

    def __init__(self, spoilt=(), once=False):
        self._spoilt, self._once = set(spoilt), once

    def draw(self, step):
        low = np.random.default_rng(step).random((4, 1, 16, 16), np.float32)
        target = low / 2
        if step in self._spoilt:
            target = target * np.float32(np.nan)
            self._spoilt -= {step} if self._once else set()
        return Batch(low, target)


def made_up():
    low = np.random.default_rng(99).random((32, 32), np.float32)
    return HeldOut([HeldOutImage("made", low, low / 2)])


def net_of(options):
    return build_start(options, options.fit.seed)


def test_the_best_weights_on_held_out_images_are_given():
    """A learning rate that is far too high: the last weights are not the best ones."""
    options = tiny(60, fit={"learning_rate": 0.3, "gradient_norm": 0.0, "ema": 0.0, "validation_share": 0.5})
    fitted = fit(net_of(options), Made(), made_up(), options.fit, Terms(arithmetic=CPU))
    losses = [entry.held_out_loss for entry in fitted.history]
    net = net_of(options)
    net.load_state_dict(fitted.weights)
    assert made_up().look(net, choose_loss("mae", False), CPU).loss == pytest.approx(min(losses), rel=1e-5)
    assert min(losses) < losses[-1]
    assert fitted.history[-1].step == fitted.steps == 60


def test_it_stops_early_when_it_gets_no_better():
    options, heard = (
        tiny(400, fit={"learning_rate": 0.5, "patience": 3, "gradient_norm": 0.0, "validation_share": 0.5}),
        Heard(),
    )
    fitted = fit(net_of(options), Made(), made_up(), options.fit, Terms(arithmetic=CPU, listener=heard))
    assert fitted.steps < 400
    assert "no better on held-out images for 3 looks" in heard.text()


def test_minutes_end_it_too():
    options = tiny().with_minutes(0.01)
    fitted = fit(net_of(options), Made(), made_up(), options.fit, Terms(arithmetic=CPU, seconds=0.6))
    assert fitted.history[-1].position > 0.9
    assert fitted.history[-1].rate < 0.05 * options.fit.learning_rate
    assert fitted.elapsed_s >= 0.6


def test_a_loss_that_is_no_number_goes_back_and_on():
    options, heard = tiny(20), Heard()
    fitted = fit(net_of(options), Made({9}, once=True), made_up(), options.fit, Terms(arithmetic=CPU, listener=heard))
    assert "the loss became nan at step 9; going on from step" in heard.text()
    assert fitted.steps == 20
    assert fitted.history[-1].rate <= options.fit.learning_rate / 2
    assert np.isfinite([entry.held_out_loss for entry in fitted.history]).all()


def test_a_loss_that_stays_no_number_ends_it():
    options = tiny(20)
    with pytest.raises(TrainingError, match=r"became nan at step 9, after going back 2 times .* live-restore pairs check"):
        fit(net_of(options), Made({9}), made_up(), options.fit, Terms(arithmetic=CPU))


def test_held_out_images_that_become_no_number_at_the_very_end():
    """The weights are spoilt behind the last step: it goes back, and does the steps again."""
    options, heard = tiny(5, fit={"ema": 0.0}), Heard()
    net, calls = net_of(options), []

    class Spoiling(Made):
        def draw(self, step):
            if step == 4 and not calls:
                calls.append(step)
                low = np.full((4, 1, 16, 16), 1e38, np.float32)
                return Batch(low, low)
            return super().draw(step)

    fitted = fit(net, Spoiling(), made_up(), options.fit, Terms(arithmetic=CPU, listener=heard))
    assert fitted.steps == 5
    assert all(torch.isfinite(weights).all() for weights in fitted.weights.values())


def test_no_held_out_images():
    with pytest.raises(ValueError, match="there are no held-out images"):
        HeldOut([])
