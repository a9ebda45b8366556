"""A run that is cut anywhere and resumed ends as the run that was not cut: bit for bit."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from testkit.cases import case_params
from testkit.training import LeaveAfter, Recipe, Saves, all_moments, different, fit, resume, snapshot

from lightning_perturb.methods import DLB, CrossEntropy, LogPert, MixPert, OnlineLabelSmoothing, PGDTraining, ProSelfLC

BATCHES = 6  # an epoch of 96 samples in batches of 16


class Stop(RuntimeError):
    """Our own kind of power cut."""


class Cut(Callback):
    """Raises in a hook of a given batch."""

    def __init__(self, step: int, hook: str) -> None:
        self.step = step
        setattr(self, hook, self._cut)
        self._seen = 0

    def _cut(self, *args) -> None:
        self._seen += 1
        if self._seen == self.step:
            raise Stop


def _recipe(method, options, **changes) -> Recipe:
    recipe = Recipe(method, options, net="dropout", data={"val_size": 16, "samples": 112, "augment": True})
    return recipe.but(**changes)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ckpt"))


def _assert_all_resume(recipe: Recipe, folder: Path, expected: int | None = None, every: int = 4) -> None:
    whole = snapshot(fit(recipe, callbacks=all_moments(folder, every)))
    last = int(whole["steps"][0])
    paths = _checkpoints(folder)
    assert len(paths) >= 3 if expected is None else len(paths) == expected, [path.name for path in paths]
    wrong = {}
    for path in paths:
        done = int(path.stem.split("=")[-1])
        if done == last:
            continue
        wrong[path.stem] = different(whole, snapshot(resume(recipe, path)))
    assert not any(wrong.values()), wrong


@pytest.mark.parametrize(("method", "options"), case_params())
def test_every_checkpoint_of_a_run(method, options, tmp_path):
    # epochs of 4 batches: steps 3 (in epoch 0), 6 (in epoch 1), the end of epoch 0 before and after validation
    recipe = _recipe(method, options, trainer={"max_epochs": 2}, data={"samples": 80})
    _assert_all_resume(recipe, tmp_path, expected=6, every=3)


STATEFUL = [
    pytest.param(CrossEntropy, {}, id="CrossEntropy"),
    pytest.param(DLB, {}, id="DLB"),
    pytest.param(OnlineLabelSmoothing, {}, id="OnlineLabelSmoothing"),
    pytest.param(ProSelfLC, {}, id="ProSelfLC"),
    pytest.param(LogPert, {"update": "joint", "lam": 0.05}, id="LogPert-joint"),
    pytest.param(MixPert, {"threshold": "epoch_quantile", "eps2": 0.03, "steps": 1}, id="MixPert-quantile"),
]


@pytest.mark.parametrize(("method", "options"), STATEFUL)
def test_without_validation(method, options, tmp_path):
    recipe = _recipe(method, options, data={"val_size": 0, "samples": 96})
    _assert_all_resume(recipe, tmp_path)


@pytest.mark.parametrize("val_size", [0, 16])
@pytest.mark.parametrize(("method", "options"), STATEFUL)
def test_saved_after_fit(method, options, val_size, tmp_path):
    recipe = _recipe(method, options, data={"val_size": val_size})
    whole = snapshot(fit(recipe))
    path = tmp_path / "after.ckpt"
    fit(recipe, callbacks=[LeaveAfter(2)]).save_checkpoint(path)
    assert different(whole, snapshot(resume(recipe, path))) == []


HOOKS = [
    "on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step", "on_train_batch_end", "on_validation_batch_end", "on_train_epoch_start",
]  # fmt: skip


@pytest.mark.parametrize("hook", HOOKS)
def test_cut_in_any_hook_and_resumed_from_the_last_checkpoint(hook, tmp_path):
    method, options = STATEFUL[HOOKS.index(hook) % len(STATEFUL)].values
    recipe = _recipe(method, options)
    whole = snapshot(fit(recipe))
    step = 2 if "validation" in hook or "epoch" in hook else 9
    with pytest.raises(Stop):
        fit(recipe, callbacks=[Saves(tmp_path, "batch", every_n_train_steps=3), Cut(step, hook)])
    last = max(_checkpoints(tmp_path), key=lambda path: int(path.stem.split("=")[-1]))
    assert different(whole, snapshot(resume(recipe, last))) == []


@pytest.mark.parametrize(
    ("hook", "step"),
    [
        ("on_train_batch_start", 8), ("on_train_batch_start", 12), ("on_train_batch_start", 13),
        ("on_train_batch_end", 8), ("on_train_batch_end", 12), ("on_train_epoch_end", 2),
        ("on_validation_start", 2), ("on_validation_batch_end", 2), ("on_validation_end", 2),
    ],
)  # fmt: skip
def test_checkpoint_that_the_exception_itself_writes(hook, step, tmp_path):
    # batch 12 is the last of epoch 1: it was fetched, but where it was not trained, it must come again. Not here: cuts
    # inside a step (dropout masks are drawn already) and in on_train_epoch_start (Lightning then skips that epoch)
    recipe = _recipe(OnlineLabelSmoothing, {})
    whole = snapshot(fit(recipe))
    with pytest.raises(Stop):
        fit(
            recipe, callbacks=[Saves(tmp_path, "cut", every_n_train_steps=100, save_on_exception=True), Cut(step, hook)]
        )
    (path,) = _checkpoints(tmp_path)
    assert different(whole, snapshot(resume(recipe, path))) == []


OPTIONS = {
    "limit-train-batches": {"trainer": {"limit_train_batches": 5}},
    "reload-loaders": {"trainer": {"reload_dataloaders_every_n_epochs": 1}},
    "accumulate": {"trainer": {"accumulate_grad_batches": 2}},
    "validate-inside-epochs": {"trainer": {"val_check_interval": 0.5}},
    "sanity-validation": {"trainer": {"num_sanity_val_steps": 2}},
    "rate-by-step": {"options": {"lr_interval": "step"}},
    "warmup": {"options": {"warmup_epochs": 1}},
    "bf16": {"trainer": {"precision": "bf16-mixed"}},
    "channels-last": {"options": {"channels_last": True}, "net": "conv-norm-dropout"},
    "drop-last": {"data": {"samples": 100, "val_size": 10, "drop_last": True}},
    "ragged-last-batch": {"data": {"samples": 100, "val_size": 10}},
    "clip": {"trainer": {"gradient_clip_val": 0.1}},
    "max-steps": {"trainer": {"max_epochs": -1, "max_steps": 16}},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_trainer_options(name, tmp_path):
    method, options = STATEFUL[list(OPTIONS).index(name) % len(STATEFUL)].values
    _assert_all_resume(_recipe(method, options).but(**OPTIONS[name]), tmp_path)


def test_two_workers(tmp_path):
    recipe = _recipe(PGDTraining, {"steps": 1})
    by_workers = recipe.but(data={"num_workers": 2})
    whole = snapshot(fit(by_workers, callbacks=[Saves(tmp_path, "batch", every_n_train_steps=8)]))
    assert different(whole, snapshot(fit(recipe))) == [], "2 workers are not 0 workers"
    (path,) = [p for p in _checkpoints(tmp_path) if p.stem.endswith("=8")]
    assert different(whole, snapshot(resume(by_workers, path))) == []
    assert different(whole, snapshot(resume(recipe, path))) == [], "resumed with another number of workers"


def test_gradients_that_were_accumulated_are_not_lost_at_the_end_of_an_epoch(tmp_path):
    # 6 batches, 4 to a step: the last step of an epoch has 2
    recipe = _recipe(CrossEntropy, {}, trainer={"accumulate_grad_batches": 4})
    folder = tmp_path
    whole = snapshot(fit(recipe, callbacks=[Saves(folder, "batch", every_n_train_steps=1)]))
    wrong = {}
    for path in _checkpoints(folder)[:-1]:
        wrong[path.stem] = different(whole, snapshot(resume(recipe, path)))
    assert len(wrong) == 5
    assert not any(wrong.values()), wrong


def _killed(folder: str) -> None:
    """Trains slowly in a process that is killed from outside."""

    class Slow(Callback):
        def on_train_batch_end(self, *args) -> None:
            time.sleep(0.02)

    fit(_long(), callbacks=[Saves(folder, "batch", every_n_train_steps=1), Slow()])


def _long() -> Recipe:
    return _recipe(OnlineLabelSmoothing, {}, trainer={"max_epochs": 20})


def test_killed_by_the_system(tmp_path):
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; import importlib.util as u, torch; torch.set_num_threads(1);"
        f"s = u.spec_from_file_location('t', {__file__!r}); m = u.module_from_spec(s); s.loader.exec_module(m);"
        f"m._killed({str(tmp_path)!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while len(_checkpoints(tmp_path)) < 7:
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    last = max(_checkpoints(tmp_path), key=lambda path: int(path.stem.split("=")[-1]))
    assert int(last.stem.split("=")[-1]) < 120, "it was not killed in the middle"
    assert different(snapshot(fit(_long())), snapshot(resume(_long(), last))) == []
