"""Data augmentation: random transformations of a batch, as pure functions of a key and the batch.

An augmentation is a function `augment(key, batch) -> batch` of a batch `{"x": inputs, "y": targets}`. Images have the
shape (examples, height, width, channels); load data sets with `flatten=False`. Strengths may be traced, so that a
search over them is one compiled program. `augmented` puts an augmentation into the training step of a problem, and
`weight_noise` noise on its parameters.
"""

from jaxopt_study.problems.augmentations._augmented import Augmentation, augmented, compose
from jaxopt_study.problems.augmentations._mixing import cutmix, mixup
from jaxopt_study.problems.augmentations._per_example import cutout, flip, input_noise, rotation, shift
from jaxopt_study.problems.augmentations._weight_noise import weight_noise

__all__ = [
    "Augmentation",
    "augmented",
    "compose",
    "cutmix",
    "cutout",
    "flip",
    "input_noise",
    "mixup",
    "rotation",
    "shift",
    "weight_noise",
]
