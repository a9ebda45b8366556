"""What all label noises have in common, noise of the first samples, and what is measured."""

import inspect
import re

import jsonargparse
import numpy as np
import pytest
from testkit.noises import every_noise, images, rng

from lightning_perturb.data import label_noise
from lightning_perturb.data.label_noise import (
    Chain,
    CIFAR10AsymmetricOneWay,
    CIFAR100Cyclic,
    FirstPercent,
    Flip,
    Flip2,
    InstancePerClass,
    InstanceShared,
    LabelNoise,
    LabelsFromFile,
    PairFlip,
    Symmetric,
    TransitionMatrix,
    Uniform,
    noise_rate,
    realized_transition_matrix,
)

# --- what all have in common ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("noise", "classes"), every_noise())
def test_is_a_function_of_its_arguments_and_leaves_them_alone(noise, classes):
    labels = rng(1).integers(0, classes, size=3000)
    before, x = labels.copy(), images(3000)
    first = noise(labels, classes, rng(7), x)
    assert first.dtype == np.int64
    assert first.shape == labels.shape
    assert not np.shares_memory(first, labels)
    np.testing.assert_array_equal(labels, before)
    np.testing.assert_array_equal(x, images(3000))
    np.testing.assert_array_equal(first, noise(labels, classes, rng(7), x))
    assert first.min() >= 0
    assert first.max() < classes
    assert 0 < noise_rate(labels, first) < 1
    if not isinstance(noise, FirstPercent):
        assert (first != noise(labels, classes, rng(8), x)).any()


@pytest.mark.parametrize(("noise", "classes"), every_noise(rate=0.0)[:11] + every_noise(rate=0.0)[12:])
def test_rate_zero_changes_nothing(noise, classes):
    labels = rng(1).integers(0, classes, size=400)
    np.testing.assert_array_equal(noise(labels, classes, rng(), images(400)), labels)


@pytest.mark.parametrize(
    "noise",
    [Symmetric(1.0), PairFlip(1.0), Flip(1.0), Flip2(1), InstanceShared(1.0), InstancePerClass(1), FirstPercent(1)],
)
def test_rate_one_changes_everything(noise):
    labels = rng(1).integers(0, 5, size=800)
    assert (noise(labels, 5, rng(), images(800)) != labels).all()


@pytest.mark.parametrize(
    "noise", [Symmetric(1.0), PairFlip(1.0), Flip(1.0), InstanceShared(1.0), InstancePerClass(1.0)]
)
def test_two_classes_have_one_way_to_be_wrong(noise):
    labels = rng(1).integers(0, 2, size=50)
    np.testing.assert_array_equal(noise(labels, 2, rng(), images(50)), 1 - labels)


@pytest.mark.parametrize(("noise", "classes"), every_noise())
@pytest.mark.parametrize("number", [0, 1])
def test_no_sample_and_one_sample(noise, classes, number):
    labels = np.full(number, 3)
    assert noise(labels, classes, rng(), images(number)).shape == (number,)


@pytest.mark.parametrize(("noise", "classes"), every_noise())
def test_wrong_labels_are_named(noise, classes):
    with pytest.raises(ValueError, match=rf"labels\[2\]={classes} is outside 0..{classes - 1}"):
        noise(np.array([0, 1, classes]), classes, rng(), images(3))
    with pytest.raises(ValueError, match=r"labels\[1\]=-1"):
        noise(np.array([0, -1, 2]), classes, rng(), images(3))


def test_what_does_not_fit_is_named():
    labels = np.array([0, 1, 0])
    with pytest.raises(ValueError, match="index has 2 entries for 3 labels"):
        Symmetric(0.1)(labels, 2, rng(), index=np.arange(2))
    with pytest.raises(ValueError, match=r"InstanceShared depends on the inputs, but inputs=None"):
        InstanceShared(0.1)(labels, 2, rng())
    with pytest.raises(ValueError, match="inputs has 4 entries for 3 labels"):
        InstancePerClass(0.1)(labels, 2, rng(), images(4))
    with pytest.raises(ValueError, match="num_classes=1 leaves no other class"):
        Symmetric(0.1)(np.zeros(3, dtype=int), 1, rng())
    with pytest.raises(ValueError, match="dtype float64"):
        Symmetric(0.1)(labels.astype(float), 2, rng())
    with pytest.raises(ValueError, match=r"shape \(3, 1\)"):
        Symmetric(0.1)(labels[:, None], 2, rng())


@pytest.mark.parametrize("rate", [-0.1, 1.1, 40, float("nan")])
@pytest.mark.parametrize(
    "cls",
    [Symmetric, Uniform, PairFlip, Flip, Flip2, CIFAR10AsymmetricOneWay, CIFAR100Cyclic, InstanceShared, FirstPercent],
)
def test_a_rate_is_a_share(cls, rate):
    with pytest.raises(ValueError, match=rf"rate={rate!r}"):
        cls(rate)


# --- first x percent -----------------------------------------------------------------------------------------------


def test_first_percent_follows_the_corpus_index():
    labels = np.array([0, 1, 0, 1, 1, 0, 1, 0, 1, 0])
    np.testing.assert_array_equal(FirstPercent(0.2)(labels, 2, rng()), [1, 0, 0, 1, 1, 0, 1, 0, 1, 0])
    index = np.arange(10)[::-1] * 3
    np.testing.assert_array_equal(FirstPercent(0.2)(labels, 2, rng(), index=index), [0, 1, 0, 1, 1, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(FirstPercent(1.0)(np.array([0, 1, 2]), 3, rng()), [1, 2, 0])


def test_first_percent_of_one_class():
    labels = np.array([0, 1, 0, 1, 1, 0, 1, 0, 1, 0])
    # two of the five positives, to the only other class and to a named one
    np.testing.assert_array_equal(FirstPercent(0.4, 1)(labels, 2, rng()), [0, 0, 0, 0, 1, 0, 1, 0, 1, 0])
    np.testing.assert_array_equal(FirstPercent(0.4, 1, 2)(labels, 3, rng()), [0, 2, 0, 2, 1, 0, 1, 0, 1, 0])
    assert noise_rate(np.zeros(20_000, dtype=int), FirstPercent(0.05)(np.zeros(20_000, dtype=int), 2, rng())) == 0.05


def test_first_percent_faults_are_named():
    with pytest.raises(ValueError, match="to_class=1 needs from_class"):
        FirstPercent(0.1, to_class=1)
    with pytest.raises(ValueError, match="to_class=1 equals from_class"):
        FirstPercent(0.1, from_class=1, to_class=1)
    with pytest.raises(ValueError, match=r"from_class=5 is outside 0..1"):
        FirstPercent(0.1, from_class=5)(np.array([0, 1]), 2, rng())


# --- measures ------------------------------------------------------------------------------------------------------


def test_realized_matrix_and_rate():
    true, drawn = np.array([0, 0, 0, 0, 2]), np.array([0, 0, 1, 2, 2])
    expected = [[0.5, 0.25, 0.25], [0, 0, 0], [0, 0, 1]]
    np.testing.assert_allclose(realized_transition_matrix(true, drawn, 3), expected)
    assert noise_rate(true, drawn) == 0.4
    assert noise_rate(true[:0], drawn[:0]) == 0.0
    with pytest.raises(ValueError, match="true has 5 labels and given has 4"):
        noise_rate(true, drawn[:4])
    with pytest.raises(ValueError, match="true has 5 labels and given has 4"):
        realized_transition_matrix(true, drawn[:4], 3)
    with pytest.raises(ValueError, match=r"given\[0\]=3"):
        realized_transition_matrix(true, drawn + 3, 3)


# --- configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"class_path": "Symmetric", "init_args": {"rate": 0.4}}, Symmetric),
        ({"class_path": "CIFAR100Cyclic", "init_args": {"rate": 0.4, "superclass": "true"}}, CIFAR100Cyclic),
        ({"class_path": "InstanceShared", "init_args": {"rate": 0.4, "normalize": True}}, InstanceShared),
        ({"class_path": "FirstPercent", "init_args": {"rate": 0.1, "from_class": 1, "to_class": 0}}, FirstPercent),
        ({"class_path": "TransitionMatrix", "init_args": {"matrix": [[0.5, 0.5], [0, 1]]}}, TransitionMatrix),
        ({"class_path": "TransitionMatrix", "init_args": {"matrix": "t.npy"}}, TransitionMatrix),
        ({"class_path": "LabelsFromFile", "init_args": {"path": "a.pt", "key": "worse_label"}}, LabelsFromFile),
        ({"class_path": "Chain", "init_args": {"noises": [
            {"class_path": "Symmetric", "init_args": {"rate": 0.4}},
            {"class_path": "InstanceShared", "init_args": {"rate": 0.1}},
        ]}}, Chain),
    ],
)  # fmt: skip
def test_a_config_builds_the_noise(config, expected):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--label_noise", type=LabelNoise)
    # renamed in jsonargparse 4.49
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    noise = instantiate(parser.parse_object({"label_noise": config})).label_noise
    assert type(noise) is expected
    assert noise.needs_inputs == (expected in (InstanceShared, Chain))


def public_noises():
    found = [getattr(label_noise, name) for name in label_noise.__all__]
    return [c for c in found if inspect.isclass(c) and issubclass(c, LabelNoise) and not inspect.isabstract(c)]


@pytest.mark.parametrize("cls", public_noises())
def test_every_argument_is_documented(cls):
    arguments = list(inspect.signature(cls).parameters)
    documented = re.findall(r"^    (\w+): ", inspect.cleandoc(cls.__doc__).partition("Args:")[2], flags=re.MULTILINE)
    assert documented[: len(arguments)] == arguments
