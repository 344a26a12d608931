"""Finding, verifying and downloading the IDX files of MNIST and Fashion-MNIST."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxopt_study import files
from jaxopt_study._checks import check_mapping, check_text, describe_argument
from jaxopt_study.problems.datasets._dataset import DatasetError
from jaxopt_study.problems.datasets._idx import IdxKind, content_md5, parse_idx, read_content

DATA_VARIABLE = "JAXOPT_STUDY_DATA"


class IdxFile(NamedTuple):
    """One file of an archive, with its known hashes."""

    kind: IdxKind
    md5: str  # of the uncompressed bytes, whatever the compression
    gzip_sha256: str  # of the gzip file as published


@dataclass(frozen=True)
class IdxArchive:
    """The four IDX files of one data set.

    Attributes:
        name: Name of the data set, and of its folder.
        title: Name of the data set in messages.
        mirrors: Base addresses of the gzip files, tried in turn.
        files: The files by name, without ".gz": training images and labels, test images and labels.
        folders: Folder names that other programs use.

    Raises:
        DatasetError: If a name would lead outside the data folder.
    """

    name: str
    title: str
    mirrors: tuple[str, ...]
    files: Mapping[str, IdxFile]
    folders: tuple[str, ...] = ()

    def __post_init__(self):
        check_text("IdxArchive", "title", self.title)
        check_mapping("IdxArchive", "files", self.files)
        for what, texts in (("mirrors", self.mirrors), ("folders", self.folders)):
            if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
                raise TypeError(f"IdxArchive needs {what} to be a tuple of texts; received {describe_argument(texts)}.")
        for name, file in self.files.items():
            if not isinstance(file, IdxFile):
                raise TypeError(
                    f"IdxArchive needs files[{name!r}] to be an IdxFile; received {describe_argument(file)}."
                )
        try:
            for part in (self.name, *self.files, *(part for folder in self.folders for part in folder.split("/"))):
                files.check_name(f"Every name in the archive {self.title!r}", part)
        except ValueError as error:
            raise DatasetError(str(error)) from None


MNIST = IdxArchive(
    name="mnist",
    title="MNIST",
    mirrors=(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    files={
        "train-images-idx3-ubyte": IdxFile(
            "images",
            "6bbc9ace898e44ae57da46a324031adb",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        "train-labels-idx1-ubyte": IdxFile(
            "labels",
            "a25bea736e30d166cdddb491f175f624",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        "t10k-images-idx3-ubyte": IdxFile(
            "images",
            "2646ac647ad5339dbf082846283269ea",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        "t10k-labels-idx1-ubyte": IdxFile(
            "labels",
            "27ae3e4e09519cfbb04c329615203637",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    },
    folders=("mnist", "MNIST/raw", "MNIST"),
)

FASHION_MNIST = IdxArchive(
    name="fashion_mnist",
    title="Fashion-MNIST",
    mirrors=(
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    files={
        "train-images-idx3-ubyte": IdxFile(
            "images",
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        "train-labels-idx1-ubyte": IdxFile(
            "labels",
            "9018921c3c673c538a1fc5bad174d6f9",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        "t10k-images-idx3-ubyte": IdxFile(
            "images",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        "t10k-labels-idx1-ubyte": IdxFile(
            "labels",
            "15d484375f8d13e6eb1aabb0c3f46965",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    },
    folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "fashion"),
)

_KNOWN = {file.md5: (archive.title, name) for archive in (MNIST, FASHION_MNIST) for name, file in archive.files.items()}


def read_archive(
    archive: IdxArchive, *, data_dir: str | Path | None, download: bool, verify: bool
) -> dict[str, UInt8[np.ndarray, "items ..."]]:
    """Find, read and check the four files of an archive.

    The files are searched for in `data_dir`, otherwise in the folder named by the environment variable
    JAXOPT_STUDY_DATA, otherwise in the user's cache folder; first in the archive's subfolder, then in the folder
    itself; with or without ".gz". Only `download=True` uses the network, and only for missing files.

    Args:
        archive: The archive to read.
        data_dir: A folder, or None.
        download: Whether to download missing files.
        verify: Whether the uncompressed files must equal the originals byte for byte. If False, only their structure is
            checked.

    Returns:
        The arrays by file name.

    Raises:
        DatasetError: If a file is missing, damaged, mislabelled or could not be downloaded.
    """
    roots = _roots(archive, data_dir)
    paths = _find(archive, roots)
    missing = [name for name in archive.files if name not in paths]
    if missing and not download:
        raise DatasetError(
            f"{archive.title} is missing or incomplete: found no {', '.join(missing)} (with or without .gz) in "
            f"{' or '.join(str(root) for root in roots)}. Give data_dir, or set {DATA_VARIABLE}, to a folder with the "
            "four IDX files, or pass download=True."
        )
    folder = next(iter(paths.values())).parent if paths else roots[0]  # beside the files already present
    for name in missing:
        paths[name] = _download(archive, name, folder)
    arrays = {}
    for name, file in archive.files.items():
        content = read_content(paths[name], file.kind)
        _check_identity(archive, name, content, paths[name], verify=verify)
        arrays[name] = parse_idx(content, file.kind, str(paths[name]))
    return arrays


# Folders to look in, the most specific first.
def _roots(archive: IdxArchive, data_dir: str | Path | None) -> list[Path]:
    named = os.environ.get(DATA_VARIABLE) or None if data_dir is None else data_dir
    if named is None:
        import pooch  # a local import: pooch imports tqdm, which warns in a notebook without widgets

        return [Path(pooch.os_cache("jaxopt_study")) / archive.name]
    origin = "data_dir" if data_dir is not None else f"the environment variable {DATA_VARIABLE}"
    try:
        base = files.as_path(named)
        missing = not base.is_dir() and (base.exists() or data_dir is None)
    except (OSError, ValueError) as error:  # for example, a name that is too long
        raise DatasetError(f"{named}, given by {origin}, is not a folder: {error}.") from None
    if missing:
        raise DatasetError(
            f"{base}, given by {origin}, is not a folder. Name a folder that holds {archive.title}'s files."
        )
    return [base / folder for folder in archive.folders] + [base]


# Existing files by name, all from the first folder that has any of them.
def _find(archive: IdxArchive, roots: list[Path]) -> dict[str, Path]:
    for root in roots:
        files = {}
        for name in archive.files:
            dotted = name.replace("-idx", ".idx")  # the spelling of some archives
            candidates = [root / f"{spelling}{suffix}" for spelling in (name, dotted) for suffix in ("", ".gz")]
            path = next((path for path in candidates if path.is_file()), None)
            if path is not None:
                files[name] = path
        if files:
            return files
    return {}


# Raise if the bytes are those of another known file or, when verifying, not the original.
def _check_identity(archive: IdxArchive, name: str, content: bytes, path: Path, *, verify: bool) -> None:
    md5 = content_md5(content)
    if md5 == archive.files[name].md5:
        return
    if md5 in _KNOWN:
        title, original = _KNOWN[md5]
        raise DatasetError(
            f"{path} is mislabelled: it should be {name} of {archive.title}, but it is {original} of {title}. "
            "Give the folder of the right data set, or rename the file."
        )
    if verify:
        parse_idx(content, archive.files[name].kind, str(path))  # a structural error says more than a hash
        raise DatasetError(
            f"{path} is not {archive.title}'s {name}: the MD5 of its uncompressed bytes should be "
            f"{archive.files[name].md5}, but is {md5}. Download it again, or pass verify=False to accept another data "
            "set in this format."
        )


# Download one file from the first mirror that has the original.
def _download(archive: IdxArchive, name: str, folder: Path) -> Path:
    import pooch

    failures = []
    for mirror in archive.mirrors:
        try:
            return Path(
                pooch.retrieve(
                    f"{mirror}{name}.gz",
                    known_hash=f"sha256:{archive.files[name].gzip_sha256}",
                    fname=f"{name}.gz",
                    path=folder,
                    downloader=pooch.HTTPDownloader(timeout=30),  # pyright: ignore[reportArgumentType]
                )
            )
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
            failures.append(f"{mirror}{name}.gz: {error}")
    raise DatasetError(
        f"{archive.title}'s {name}.gz could not be downloaded into {folder}. Check the network connection, or put the "
        f"four IDX files into a folder and give it as data_dir or {DATA_VARIABLE}. Tried: {'; '.join(failures)}"
    )
