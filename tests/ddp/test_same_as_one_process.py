"""Two gloo ranks with batch B end where one process with batch 2B ends."""

import pytest
from lightning.pytorch import seed_everything
from testkit.cases import case_params
from testkit.training import Recipe, different, fit, module_of, snapshot

TWO = {"strategy": "ddp", "devices": 2}


def run(recipe: Recipe) -> tuple[dict, dict]:
    """What a rank ends with, and what it logged."""
    trainer = fit(recipe)
    return snapshot(trainer), {k: float(v) for k, v in trainer.callback_metrics.items()}


def _without_random(state):
    return {k: v for k, v in state.items() if not k.startswith(("random", "kept"))}


@pytest.mark.parametrize(("method", "options"), case_params())
def test_state_and_weights(method, options, ranks):
    # 4 batches an epoch; in the second, what the first left is used, and at its end the ranks evaluate
    one = Recipe(
        method, options, data={"augment": True, "val_size": 16, "samples": 80},
        trainer={"precision": "64-true", "max_epochs": 2, "check_val_every_n_epoch": 2},
    )  # fmt: skip
    expected, logged = run(one)
    (first, first_logged), (second, second_logged) = ranks(run, one.but(data={"batch_size": 8}, trainer=TWO))
    assert different(_without_random(first), _without_random(second)) == [], "the ranks differ"
    # single precision inside a method (bf16-safe softmax) leaves 1e-7; sums over domains have none inside
    tolerance = 1e-10 if method.needs.domains else 1e-6
    assert different(_without_random(expected), _without_random(first), tolerance=tolerance) == []
    assert logged == pytest.approx(first_logged, rel=1e-6, abs=1e-6)
    assert first_logged == second_logged
    seed_everything(0, verbose=False)
    start = {f"module/net.{name}": value.double() for name, value in module_of(one).net.state_dict().items()}
    assert different(start, {name: expected[name] for name in start}, tolerance=1e-3), "nothing was trained"
