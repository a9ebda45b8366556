import collections
import inspect
import re

import jsonargparse
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_perturb.data import label_noise
from lightning_perturb.data.label_noise import (
    Chain,
    CIFAR10AsymmetricOneWay,
    CIFAR10AsymmetricTwoWay,
    CIFAR100Cyclic,
    CIFAR100Hierarchical,
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
from lightning_perturb.data.label_noise.base import cumulate
from lightning_perturb.data.label_noise.cifar import CIFAR100_CLASSES, cifar100_superclass_members

# coarse id of each fine id, as the data set's own files have it
CIFAR100_COARSE = [
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11,
    6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5,
    5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17,
    10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13,
    16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
]  # fmt: skip

SEEDED = pytest.mark.parametrize("seed", [0, 1, 2])


def rng(seed=0):
    return np.random.default_rng(seed)


def images(number, seed=5):
    return rng(seed).integers(0, 256, size=(number, 4, 4, 3), dtype=np.uint8)


def every_noise(rate=0.4):
    """One of each noise that fits ten classes, and one that fits a hundred."""
    identity = (np.eye(10) * (1 - rate) + np.roll(np.eye(10), 3, axis=1) * rate).tolist()
    ten = [
        Symmetric(rate),
        Uniform(rate),
        PairFlip(rate),
        Flip(rate),
        Flip2(rate),
        CIFAR10AsymmetricOneWay(rate),
        CIFAR10AsymmetricTwoWay(rate),
        InstanceShared(rate),
        InstancePerClass(rate, normalize=True),
        FirstPercent(rate),
        TransitionMatrix(identity),
        Chain([Symmetric(rate), PairFlip(rate)]),
    ]
    hundred = [CIFAR100Hierarchical(rate), CIFAR100Cyclic(rate), CIFAR100Cyclic(rate, "true")]
    return [pytest.param(noise, c, id=f"{type(noise).__name__}-{i}") for group, c in ((ten, 10), (hundred, 100))
            for i, noise in enumerate(group)]  # fmt: skip


def within_binomial(count, number, probability, deviations=4.5):
    return abs(count - number * probability) <= deviations * np.sqrt(number * probability * (1 - probability)) + 1e-9


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


# --- transition matrices -------------------------------------------------------------------------------------------


def reference_matrix(noise, classes):
    """Entry by entry, from the words of the definition."""
    r, t = noise.rate, np.zeros((classes, classes))
    blocks = {c: [b for b in range(classes) if CIFAR100_COARSE[b] == CIFAR100_COARSE[c]] for c in range(100)}
    one_way = {9: 1, 2: 0, 4: 7, 3: 5}
    for y in range(classes):
        for j in range(classes):
            same = y == j
            match noise:
                case Symmetric():
                    t[y, j] = 1 - r if same else r / (classes - 1)
                case Uniform():
                    t[y, j] = (1 - r if same else 0) + r / classes
                case PairFlip():
                    t[y, j] = 1 - r if same else r if j == (y + 1) % classes else 0
                case CIFAR10AsymmetricOneWay():
                    turn = (one_way | {5: 3} if isinstance(noise, CIFAR10AsymmetricTwoWay) else one_way).get(y, y)
                    t[y, j] = (1 - r) * same + r * (j == turn)
                case CIFAR100Hierarchical():
                    t[y, j] = 1 - r if same else r / 4 if j in blocks[y] else 0
                case CIFAR100Cyclic():
                    block = blocks[y] if noise.superclass == "true" else list(range(y - y % 5, y - y % 5 + 5))
                    t[y, j] = 1 - r if same else r if j == block[(block.index(y) + 1) % 5] else 0
    return t


@pytest.mark.parametrize(
    ("noise", "classes"),
    [
        (Symmetric(0.3), 2),
        (Symmetric(0.3), 7),
        (Uniform(0.3), 7),
        (PairFlip(0.45), 2),
        (PairFlip(0.45), 7),
        (CIFAR10AsymmetricOneWay(0.4), 10),
        (CIFAR10AsymmetricTwoWay(0.4), 10),
        (CIFAR100Hierarchical(0.4), 100),
        (CIFAR100Cyclic(0.4), 100),
        (CIFAR100Cyclic(0.4, superclass="true"), 100),
    ],
)
def test_matrix_is_the_defined_one(noise, classes):
    np.testing.assert_allclose(noise.transition_matrix(classes, rng()), reference_matrix(noise, classes), atol=1e-15)


@SEEDED
@pytest.mark.parametrize(("cls", "others"), [(Flip, 1), (Flip2, 2)])
@pytest.mark.parametrize("classes", [3, 10])
def test_random_flips_go_to_other_classes(cls, others, classes, seed):
    matrix = cls(0.4).transition_matrix(classes, rng(seed))
    np.testing.assert_allclose(np.diag(matrix), 0.6)
    off = matrix - np.diag(np.diag(matrix))
    assert ((off > 0).sum(axis=1) == others).all()
    np.testing.assert_allclose(off[off > 0], 0.4 / others)


def test_random_flips_reach_every_pair_alike():
    # four other classes give six pairs; each must come up for a sixth of the draws
    pairs = collections.Counter(
        tuple(np.flatnonzero(Flip2(0.5).transition_matrix(5, generator)[0, 1:]))
        for generator in [rng(3)] for _ in range(3000)
    )  # fmt: skip
    assert len(pairs) == 6
    assert all(within_binomial(count, 3000, 1 / 6) for count in pairs.values())


@SEEDED
@pytest.mark.parametrize(("noise", "classes"), [p for p in every_noise() if hasattr(p.values[0], "transition_matrix")])
def test_drawn_labels_follow_the_matrix(noise, classes, seed):
    # the matrix comes first from the generator, so the same seed gives the matrix that the labels were drawn from
    matrix = noise.transition_matrix(classes, rng(seed))
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0)
    labels = rng(100 + seed).permutation(np.repeat(np.arange(classes), 2000))
    drawn = noise(labels, classes, rng(seed))
    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels, drawn), 1)
    bound = 5.5 * np.sqrt(2000 * matrix * (1 - matrix)) + 1e-9
    assert (np.abs(counts - 2000 * matrix) <= bound).all()


@SEEDED
def test_realized_rates(seed):
    labels = rng(seed).integers(0, 10, size=40_000)
    for noise, rate in ((Symmetric(0.4), 0.4), (Uniform(0.4), 0.4 * 0.9), (PairFlip(0.4), 0.4), (Flip2(0.4), 0.4)):
        wrong = int((noise(labels, 10, rng(seed)) != labels).sum())
        assert within_binomial(wrong, 40_000, rate), type(noise)


@settings(deadline=None, max_examples=40)
@given(
    classes=st.integers(3, 12),
    number=st.integers(0, 60),
    seed=st.integers(0, 2**32),
    cls=st.sampled_from([Symmetric, PairFlip, Flip, Flip2, InstanceShared, InstancePerClass]),
)
def test_at_rate_one_never_the_true_class(classes, number, seed, cls):
    labels = rng(seed).integers(0, classes, size=number)
    drawn = cls(1.0)(labels, classes, rng(seed + 1), images(number))
    assert (drawn != labels).all()
    assert ((drawn >= 0) & (drawn < classes)).all()


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any), min_size=1, max_size=6),
    scale=st.floats(1e-9, 1e9),
)
def test_cumulated_probabilities_give_possible_classes_at_the_edges(rows, scale):
    weights = np.array(rows) * scale
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    cumulated = cumulate(probabilities)
    for uniform in (0.0, np.nextafter(1.0, 0.0)):
        first_above = np.argmax(cumulated > uniform, axis=1)
        assert (cumulated > uniform).any(axis=1).all()
        possible = [np.flatnonzero(row) for row in probabilities]
        expected = [p[0] if uniform == 0.0 else p[-1] for p in possible]
        np.testing.assert_array_equal(first_above, expected)


class _Edge(np.random.Generator):
    """Draws nothing but the smallest or the largest uniform number there is."""

    def __init__(self, value):
        super().__init__(np.random.PCG64(0))
        self.value = value

    def random(self, size):
        return np.full(size, self.value)


@pytest.mark.parametrize("value", [0.0, np.nextafter(1.0, 0.0)])
@pytest.mark.parametrize("cls", [InstanceShared, InstancePerClass, PairFlip, Symmetric])
def test_uniform_numbers_at_their_edges_draw_possible_classes(cls, value):
    labels = np.arange(10)
    drawn = cls(1.0)(labels, 10, _Edge(value), images(10))
    assert (drawn != labels).all()
    if cls is PairFlip:
        np.testing.assert_array_equal(drawn, (labels + 1) % 10)


def test_cifar100_superclasses_are_the_published_ones():
    assert len(CIFAR100_CLASSES) == len(set(CIFAR100_CLASSES)) == 100
    assert (CIFAR100_CLASSES[0], CIFAR100_CLASSES[52], CIFAR100_CLASSES[99]) == ("apple", "oak_tree", "worm")
    members = cifar100_superclass_members()
    assert members.shape == (20, 5)
    coarse = np.empty(100, dtype=int)
    coarse[members] = np.arange(20)[:, None]
    assert coarse.tolist() == CIFAR100_COARSE
    assert collections.Counter(CIFAR100_COARSE) == dict.fromkeys(range(20), 5)


@pytest.mark.parametrize(
    ("noise", "classes"),
    [(CIFAR10AsymmetricTwoWay(0.2), 100), (CIFAR100Hierarchical(0.2), 10), (CIFAR100Cyclic(0.2), 20)],
)
def test_cifar_noise_refuses_other_data(noise, classes):
    with pytest.raises(ValueError, match=rf"num_classes={classes}: {type(noise).__name__}"):
        noise(np.zeros(4, dtype=int), classes, rng())


def test_options_are_checked():
    with pytest.raises(ValueError, match="superclass='coarse'"):
        CIFAR100Cyclic(0.2, superclass="coarse")
    with pytest.raises(ValueError, match="Flip2 needs two other classes"):
        Flip2(0.2)(np.zeros(4, dtype=int), 2, rng())
    with pytest.raises(ValueError, match=r"noises=\[\]"):
        Chain([])
    with pytest.raises(ValueError, match=r"std=-0.1"):
        InstanceShared(0.2, std=-0.1)


# --- a matrix of one's own -----------------------------------------------------------------------------------------

OWN = [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5]]


@pytest.mark.parametrize("ending", [None, "npy", "csv"])
def test_own_matrix_from_list_and_files(tmp_path, ending):
    given = OWN
    if ending is not None:
        given = str(tmp_path / f"t.{ending}")
        (np.save if ending == "npy" else lambda f, m: np.savetxt(f, m, delimiter=","))(given, np.array(OWN))
    noise = TransitionMatrix(given)
    np.testing.assert_allclose(noise.transition_matrix(3, rng()), OWN, atol=1e-15)
    labels = np.repeat(np.arange(3), 4000)
    realized = realized_transition_matrix(labels, noise(labels, 3, rng()), 3)
    np.testing.assert_allclose(realized, OWN, atol=0.04)
    assert ((realized > 0) == (np.array(OWN) > 0)).all()


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0.5, 0.5]], r"shape \(1, 2\) for num_classes=2"),
        (np.eye(3).tolist(), r"shape \(3, 3\) for num_classes=2"),
        ([[0.5, 0.5], [0.5, 0.6]], "row 1 sums to 1.1"),
        ([[1.5, -0.5], [0.0, 1.0]], "row 0 sums to 1 with smallest entry -0.5"),
        ([[float("nan"), 1.0], [0.0, 1.0]], "row 0"),
        ([[0.5, 0.5], [1.0]], "not a table"),
        ("t.txt", r"ends in '.txt'. Known endings: .npy, .csv"),
    ],
)
def test_matrix_faults_are_named(matrix, message):
    with pytest.raises(ValueError, match=message):
        TransitionMatrix(matrix)(np.array([0, 1]), 2, rng())


def test_matrix_file_faults_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="C rows of C probabilities"):
        TransitionMatrix(str(tmp_path / "none.npy"))(np.array([0, 1]), 2, rng())
    (tmp_path / "words.csv").write_text("a,b\nc,d\n")
    with pytest.raises(ValueError, match="holds no table of numbers"):
        TransitionMatrix(str(tmp_path / "words.csv"))(np.array([0, 1]), 2, rng())


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
