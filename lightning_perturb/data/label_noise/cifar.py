"""Noise between similar classes of CIFAR-10 and CIFAR-100."""

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from lightning_perturb.checks import check_choice
from lightning_perturb.data.label_noise.base import Rated

# the order in which the data set numbers them
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# CIFAR-100's twenty superclasses, in the order of their coarse ids
CIFAR100_SUPERCLASSES: dict[str, tuple[str, str, str, str, str]] = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}

# the data set numbers its fine classes alphabetically
CIFAR100_CLASSES = tuple(sorted(name for names in CIFAR100_SUPERCLASSES.values() for name in names))


def cifar100_superclass_members() -> npt.NDArray[np.int64]:
    """Returns the fine ids of each superclass in ascending order, shape [20, 5]; row: coarse id."""
    number = {name: c for c, name in enumerate(CIFAR100_CLASSES)}
    return np.array([sorted(number[name] for name in names) for names in CIFAR100_SUPERCLASSES.values()])


class CIFAR10AsymmetricOneWay(Rated):
    """Asymmetric noise of CIFAR-10, one-way [narl]: truck to automobile, bird to airplane, deer to horse, cat to dog.

    The other six classes stay clean, so that the realized rate of the balanced set is 0.4 · rate.

    Args:
        rate: share of wrong labels within each of these classes, from 0 to 1.
    """

    turns: ClassVar[dict[str, str]] = {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog"}

    def transition_matrix(self, num_classes: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """Returns the rate at the pairs of similar classes, shape [10, 10].

        Raises:
            ValueError: if there are not 10 classes.
        """
        _check_classes(self, num_classes, len(CIFAR10_CLASSES))
        targets = [CIFAR10_CLASSES.index(self.turns.get(name, name)) for name in CIFAR10_CLASSES]
        return self.spread(np.array(targets)[:, None])


class CIFAR10AsymmetricTwoWay(CIFAR10AsymmetricOneWay):
    """Asymmetric noise of CIFAR-10, two-way: as one-way, and dog to cat too (DivideMix, UNICON, SCE, GJS).

    The realized rate of the balanced set is 0.5 · rate.

    Args:
        rate: share of wrong labels within each of these classes, from 0 to 1.
    """

    turns: ClassVar[dict[str, str]] = {**CIFAR10AsymmetricOneWay.turns, "dog": "cat"}


class CIFAR100Hierarchical(Rated):
    """Hierarchical noise of CIFAR-100: a class turns into each of the four others of its superclass [narl].

    Args:
        rate: share of labels that are wrong, from 0 to 1; a quarter of it for each sibling.
    """

    def transition_matrix(self, num_classes: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """Returns rate/4 at the siblings of each class, shape [100, 100].

        Raises:
            ValueError: if there are not 100 classes.
        """
        _check_classes(self, num_classes, len(CIFAR100_CLASSES))
        members = cifar100_superclass_members()
        siblings = np.empty((num_classes, 4), dtype=np.int64)
        for place in range(5):
            siblings[members[:, place]] = np.delete(members, place, axis=1)
        return self.spread(siblings)


class CIFAR100Cyclic(Rated):
    """Asymmetric noise of CIFAR-100: a class turns into the next one of its group of five, the last into the first.

    Args:
        rate: share of labels that are wrong, from 0 to 1.
        superclass: what the groups are. ``fine_blocks``: five consecutive class ids, as published (UNICON, SCE); as
            the ids are alphabetical, these are not the superclasses. ``true``: the superclasses, by ascending id.

    Raises:
        ValueError: if ``rate`` is not a share or ``superclass`` is unknown.
    """

    def __init__(self, rate: float, superclass: Literal["fine_blocks", "true"] = "fine_blocks") -> None:
        super().__init__(rate)
        check_choice("superclass", superclass, ("fine_blocks", "true"))
        self.superclass = superclass

    def transition_matrix(self, num_classes: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """Returns the rate at the next class of each group, shape [100, 100].

        Raises:
            ValueError: if there are not 100 classes.
        """
        _check_classes(self, num_classes, len(CIFAR100_CLASSES))
        true = self.superclass == "true"
        groups = cifar100_superclass_members() if true else np.arange(num_classes).reshape(-1, 5)
        following = np.empty(num_classes, dtype=np.int64)
        following[groups] = np.roll(groups, -1, axis=1)
        return self.spread(following[:, None])


def _check_classes(noise: Rated, num_classes: int, expected: int) -> None:
    if num_classes != expected:
        raise ValueError(
            f"num_classes={num_classes}: {type(noise).__name__} is defined by the {expected} classes of "
            f"CIFAR-{expected}. Use Symmetric, PairFlip or TransitionMatrix with other data."
        )
