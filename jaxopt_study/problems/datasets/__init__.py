"""Data sets of real images, texts and synthetic tasks, with disjoint training, validation and test examples."""

from jaxopt_study.problems.datasets._archives import FASHION_MNIST, MNIST, IdxArchive, IdxFile
from jaxopt_study.problems.datasets._dataset import Dataset, DatasetError
from jaxopt_study.problems.datasets._heavy_tailed import heavy_tailed_classes, heavy_tailed_tokens
from jaxopt_study.problems.datasets._idx import read_idx
from jaxopt_study.problems.datasets._images import digits, fashion_mnist, load_idx, mnist
from jaxopt_study.problems.datasets._resampling import bootstrap, corrupt_labels, k_folds
from jaxopt_study.problems.datasets._splits import from_arrays
from jaxopt_study.problems.datasets._synthetic import adding, damped_cosine, sparse_features, temporal_order
from jaxopt_study.problems.datasets._text import text
from jaxopt_study.problems.datasets._token_tasks import copy, induction, modular_addition

__all__ = [
    "FASHION_MNIST",
    "MNIST",
    "Dataset",
    "DatasetError",
    "IdxArchive",
    "IdxFile",
    "adding",
    "bootstrap",
    "copy",
    "corrupt_labels",
    "damped_cosine",
    "digits",
    "fashion_mnist",
    "from_arrays",
    "heavy_tailed_classes",
    "heavy_tailed_tokens",
    "induction",
    "k_folds",
    "load_idx",
    "mnist",
    "modular_addition",
    "read_idx",
    "sparse_features",
    "temporal_order",
    "text",
]
