import jsonargparse
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_perturb.data.imbalance import Balanced, Exponential, Imbalance, Step
from lightning_perturb.data.split import balanced_meta_split


def rng(seed=0):
    return np.random.default_rng(seed)


def published(head, classes, ratio):
    """Counts as the published scripts compute them: a power of the inverse ratio, cut to a whole number."""
    return [int(head * (1.0 / ratio) ** (k / (classes - 1.0))) for k in range(classes)]


def test_ldam_counts():
    ten = Exponential(100).class_counts(np.full(10, 5000))
    # the counts that papers print for CIFAR-10 at 100:1
    assert ten.tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    hundred = Exponential(100).class_counts(np.full(100, 500))
    assert (hundred[0], hundred[-1], hundred.sum()) == (500, 5, 10847)


@pytest.mark.parametrize("ratio", [1, 2, 5, 10, 20, 50, 100, 200, 256])
@pytest.mark.parametrize(("head", "classes"), [(5000, 10), (500, 100), (4990, 10), (490, 100)])
def test_counts_equal_the_published_scripts(head, classes, ratio):
    assert Exponential(ratio).class_counts(np.full(classes, head)).tolist() == published(head, classes, ratio)


@pytest.mark.parametrize(("size", "classes", "head"), [(5000, 10, 4990), (500, 100, 490)])
def test_both_profiles_after_a_meta_split(size, classes, head):
    labels = np.repeat(np.arange(classes), size)
    rest, _ = balanced_meta_split(labels, classes, 10 * classes, rng())
    before = np.full(classes, size)

    def counts(profile):
        kept = Exponential(100, profile=profile)(labels[rest], classes, rng(), before_split=before)
        return np.bincount(labels[rest][kept])

    assert counts("metasaug").tolist() == published(head, classes, 100)
    # the head has lost the meta images, the others have as many as without a meta set
    assert counts("ldam").tolist() == [head, *published(size, classes, 100)[1:]]


def test_step_counts():
    assert Step(100).class_counts(np.full(10, 5000)).tolist() == [5000] * 5 + [50] * 5
    assert Step(10, fraction=0.3).class_counts(np.full(10, 500)).tolist() == [500] * 7 + [50] * 3
    assert Step(10).class_counts(np.full(5, 500)).tolist() == [500] * 3 + [50] * 2
    assert Step(10, fraction=0).class_counts(np.full(4, 7)).tolist() == [7] * 4


def test_frequency_ranks_the_classes():
    available = np.array([100, 400, 100, 200])
    # the mean is 200; head first, classes of equal size by id
    assert Exponential(8, by="frequency").class_counts(available).tolist() == [50, 200, 25, 100]
    assert Exponential(8, by="id").class_counts(available).tolist() == [100, 100, 50, 25]
    assert Step(8, by="frequency").class_counts(available).tolist() == [25, 200, 25, 200]


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(20, 60), min_size=1, max_size=6),
    ratio=st.floats(1, 10),
    by=st.sampled_from(["id", "frequency"]),
    cls=st.sampled_from([Exponential, Step]),
    seed=st.integers(0, 2**32),
)
def test_keeps_as_many_as_it_says(sizes, ratio, by, cls, seed):
    classes, imbalance = len(sizes), cls(ratio, by=by)
    labels = rng(seed).permutation(np.repeat(np.arange(classes), sizes))
    before = labels.copy()
    kept = imbalance(labels, classes, rng(seed))
    np.testing.assert_array_equal(labels, before)
    assert kept.dtype == np.int64
    assert (np.diff(kept) > 0).all()
    counts = imbalance.class_counts(np.array(sizes))
    assert np.bincount(labels[kept], minlength=classes).tolist() == counts.tolist()
    assert (counts <= sizes).all()
    np.testing.assert_array_equal(kept, imbalance(labels, classes, rng(seed)))
    stronger = cls(ratio + 0.5, by=by)(labels, classes, rng(seed))
    assert set(stronger) <= set(kept)


def test_other_seeds_keep_other_samples():
    labels = np.repeat([0, 1], 200)
    assert (Exponential(2)(labels, 2, rng(0)) != Exponential(2)(labels, 2, rng(1))).any()


def test_ratio_one_keeps_a_balanced_set():
    labels = np.arange(40) % 4
    for imbalance in (Exponential(1), Step(1)):
        np.testing.assert_array_equal(imbalance(labels, 4, rng()), np.arange(40))
    np.testing.assert_array_equal(Exponential(1)(np.zeros(1, dtype=int), 1, rng()), [0])


def test_faults_are_named():
    for ratio in (0.5, 0.01, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"ratio={ratio!r} must be at least 1"):
            Exponential(ratio)
        with pytest.raises(ValueError, match=rf"ratio={ratio!r} must be at least 1"):
            Step(ratio)
    with pytest.raises(ValueError, match="fraction=2"):
        Step(10, fraction=2)
    with pytest.raises(ValueError, match="by='size'"):
        Exponential(10, by="size")
    with pytest.raises(ValueError, match="profile='mean'"):
        Exponential(10, profile="mean")
    labels = np.arange(40) % 4
    # ten per class at 100:1 leave 10, 2.15, 0.46, 0.1
    with pytest.raises(
        ValueError, match=r"Exponential leaves class 2 empty: 0 of its 10 .*\(2 such classes\). Lower ratio"
    ):
        Exponential(100)(labels, 4, rng())
    with pytest.raises(ValueError, match=r"class 4 has no sample before .* Set num_classes=5"):
        Exponential(2)(labels, 5, rng())
    with pytest.raises(ValueError, match=r"labels\[3\]=3"):
        Step(2)(labels, 3, rng())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"class_path": "Exponential", "init_args": {"ratio": 100, "profile": "ldam"}}, Exponential),
        ({"class_path": "Step", "init_args": {"ratio": 10, "by": "frequency"}}, Step),
    ],
)
def test_a_config_builds_the_imbalance(config, expected):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--imbalance", type=Imbalance)
    # renamed in jsonargparse 4.49
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    assert type(instantiate(parser.parse_object({"imbalance": config})).imbalance) is expected


def test_a_balanced_part():
    labels = np.repeat([0, 1, 2], [9, 4, 6])
    kept = Balanced()(labels, 3, np.random.default_rng(0))
    assert np.bincount(labels[kept]).tolist() == [4, 4, 4]
    kept = Balanced(5)(labels, 3, np.random.default_rng(0))
    assert np.bincount(labels[kept]).tolist() == [5, 4, 5]
    with pytest.raises(ValueError, match="per_class=0 must be"):
        Balanced(0)
