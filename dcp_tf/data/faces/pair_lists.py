"""Pair lists of face verification benchmarks, and the paths of their images."""

import dataclasses
import pathlib
from typing import NamedTuple, NoReturn

from dcp_tf.data.image_files import IMAGE_SUFFIXES
from dcp_tf.errors import UsageError

FOLDS = 10


@dataclasses.dataclass(frozen=True)
class _Protocol:
    """The name of a benchmark, the form of its list, and its source."""

    title: str
    list_form: str
    images: str
    source: str


PROTOCOLS = {
    "lfw": _Protocol(
        "Labeled Faces in the Wild",
        "pairs.txt: a line '10 300', then per fold 300 lines 'NAME n1 n2' and 300 lines 'NAME1 n1 NAME2 n2'",
        "ROOT/NAME/NAME_0001.jpg",
        "http://vis-www.cs.umass.edu/lfw (lfw-deepfunneled.tgz and pairs.txt), or "
        "sklearn.datasets.fetch_lfw_pairs, which downloads it",
    ),
    "cfp_fp": _Protocol(
        "Celebrities in Frontal-Profile",
        "the folder Protocol of cfp-dataset with Pair_list_F.txt, Pair_list_P.txt and Split/FP/01..10/same.txt and "
        "diff.txt, or a list of lines 'IMAGE1 IMAGE2 1|0' in ten equal folds",
        "ROOT/001/frontal/01.jpg",
        "http://www.cfpw.io (cfp-dataset.zip); ROOT is its folder Data/Images, or a folder of the same files aligned",
    ),
    "agedb_30": _Protocol(
        "AgeDB, 30 years apart",
        "a list of lines 'IMAGE1 IMAGE2 1|0' in ten equal folds (6,000 pairs)",
        "ROOT/IMAGE1",
        "https://ibug.doc.ic.ac.uk/resources/agedb (images on request, aligned crops and pairs with face libraries)",
    ),
}


class ListedPair(NamedTuple):
    """One line of a list: two images by their path below the root (perhaps without a suffix), and their fold from 1."""

    left: str
    right: str
    same: bool
    fold: int


def list_pairs(path: str, protocol: str) -> tuple[list[ListedPair], bool]:
    """Reads a list of pairs.

    Returns:
        The pairs in their order, and whether the first folder of an image is the name of who it shows.

    Raises:
        UsageError: there is no such list, or it has another form.
    """
    list_path = pathlib.Path(path)
    if protocol == "lfw":
        return _read_lfw(list_path), True
    if protocol == "cfp_fp" and list_path.is_dir():
        return _read_cfp(list_path), True
    return _read_lines(list_path, protocol), False


def find_images(root: str, images: list[str], protocol: str) -> tuple[str, ...]:
    """The image files below `root`: as listed, or with another suffix.

    Raises:
        UsageError: some are missing; the error says how many, and how to get them.
    """
    folder, benchmark = pathlib.Path(root), PROTOCOLS[protocol]
    if not folder.is_dir():
        raise UsageError(
            f"{benchmark.title}: there is no folder {folder} of its images; expected {benchmark.images}; get them from "
            f"{benchmark.source}"
        )
    files = [_with_any_suffix(folder / image) for image in images]
    missing = [image for image, file in zip(images, files, strict=True) if file is None]
    if missing:
        raise UsageError(
            f"{benchmark.title}: {folder} lacks {len(missing)} of {len(images)} images, the first is {missing[0]}; "
            f"expected {benchmark.images}; get them from {benchmark.source}"
        )
    return tuple(files)


def _with_any_suffix(path: pathlib.Path) -> str | None:
    if path.is_file():
        return str(path)
    stem = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
    candidates = (stem.with_name(stem.name + suffix) for suffix in sorted(IMAGE_SUFFIXES))
    return next((str(candidate) for candidate in candidates if candidate.is_file()), None)


def _lines(path: pathlib.Path, protocol: str) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # editors on Windows write a BOM
    except (OSError, UnicodeDecodeError) as error:
        benchmark = PROTOCOLS[protocol]
        raise UsageError(
            f"{benchmark.title}: {path} cannot be read ({getattr(error, 'strerror', None) or error}); expected "
            f"{benchmark.list_form}; get it from {benchmark.source}"
        ) from error
    return [line for line in lines if line.strip()]


def _words(line: str, count: int) -> list[str]:
    """The fields of a line; if tabs separate them, as in LFW's list, names may hold spaces."""
    words = [word.strip() for word in line.split("\t")]
    return words if len(words) == count else line.split()


def _refuse(path: pathlib.Path, what: str, protocol: str) -> NoReturn:
    benchmark = PROTOCOLS[protocol]
    raise UsageError(f"{benchmark.title}: {path} {what}; expected {benchmark.list_form}")


def _read_lfw(path: pathlib.Path) -> list[ListedPair]:
    header, *lines = _lines(path, "lfw") or [""]
    sizes = header.split()
    if not 1 <= len(sizes) <= 2 or not all(size.isdecimal() for size in sizes):
        _refuse(path, f"begins with {header!r}", "lfw")
    # View 1's lists have one fold and say only how many pairs of each kind there are.
    folds, of_each = (int(sizes[0]), int(sizes[1])) if len(sizes) == 2 else (1, int(sizes[0]))
    if not folds or not of_each:
        _refuse(path, f"begins with {header!r}, which promises no pairs", "lfw")
    if len(lines) != 2 * folds * of_each:
        _refuse(path, f"holds {len(lines)} pairs, but its first line promises {2 * folds * of_each}", "lfw")
    pairs = []
    for position, line in enumerate(lines):
        same = position // of_each % 2 == 0
        words = _words(line, 3 if same else 4)
        names, numbers = ((words[0], words[0]), words[1:]) if same else (words[::2], words[1::2])
        if len(words) != (3 if same else 4) or not all(number.isdecimal() for number in numbers):
            _refuse(path, f"has {line!r} as pair {position + 1}", "lfw")
        left, right = (f"{name}/{name}_{int(n):04d}" for name, n in zip(names, numbers, strict=True))
        pairs.append(ListedPair(left, right, same, position // (2 * of_each) + 1))
    return pairs


def _read_cfp(folder: pathlib.Path) -> list[ListedPair]:
    frontal, profile = (_numbered_images(folder / f"Pair_list_{view}.txt") for view in "FP")
    pairs = []
    for fold in range(1, FOLDS + 1):
        for same in (True, False):
            path = folder / "Split" / "FP" / f"{fold:02d}" / ("same.txt" if same else "diff.txt")
            for line in _lines(path, "cfp_fp"):
                numbers = [number.strip() for number in line.split(",")]
                if len(numbers) != 2 or numbers[0] not in frontal or numbers[1] not in profile:
                    _refuse(path, f"has the line {line!r}, no 'FRONTAL,PROFILE' of images in the two lists", "cfp_fp")
                pairs.append(ListedPair(frontal[numbers[0]], profile[numbers[1]], same, fold))
    return pairs


def _numbered_images(path: pathlib.Path) -> dict[str, str]:
    """Lines such as `1 ../Data/Images/001/frontal/01.jpg`: by number, the path below the folder of the images."""
    images = {}
    for line in _lines(path, "cfp_fp"):
        words = line.split()
        parts = pathlib.PurePosixPath(words[-1]).parts
        if len(words) != 2 or len(parts) < 3:
            _refuse(path, f"has the line {line!r}, no 'NUMBER PATH'", "cfp_fp")
        images[words[0]] = "/".join(parts[-3:])
    return images


def _read_lines(path: pathlib.Path, protocol: str) -> list[ListedPair]:
    lines = _lines(path, protocol)
    if not lines or len(lines) % FOLDS:
        _refuse(path, f"holds {len(lines)} pairs, which make no {FOLDS} equal folds", protocol)
    pairs = []
    for position, line in enumerate(lines):
        words = _words(line, 3)
        if len(words) != 3 or words[2] not in ("1", "0", "-1"):
            _refuse(path, f"has {line!r} as pair {position + 1}", protocol)
        pairs.append(ListedPair(words[0], words[1], words[2] == "1", position * FOLDS // len(lines) + 1))
    return pairs
