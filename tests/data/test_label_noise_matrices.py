"""Label noise by a transition matrix: the matrices, and labels drawn by them."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from testkit.noises import every_noise, images, rng

from lightning_perturb.data.label_noise import (
    Chain,
    CIFAR10AsymmetricOneWay,
    CIFAR10AsymmetricTwoWay,
    CIFAR100Cyclic,
    CIFAR100Hierarchical,
    Flip,
    Flip2,
    InstancePerClass,
    InstanceShared,
    PairFlip,
    Symmetric,
    TransitionMatrix,
    Uniform,
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


def within_binomial(count, number, probability, deviations=4.5):
    return abs(count - number * probability) <= deviations * np.sqrt(number * probability * (1 - probability)) + 1e-9


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
