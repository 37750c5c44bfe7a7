"""The pair lists of LFW, CFP-FP and AgeDB-30."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from dcp_tf import data
from dcp_tf.errors import UsageError


def write_image(path, value=0, size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def write_lfw(root, suffix=".png", folds=3, of_each=2):
    """People p00.. with three images each; different folds show different people. Returns the path of the list."""
    lines = [f"{folds}\t{of_each}"]
    for fold in range(folds):
        people = [f"p{fold}{number}" for number in range(of_each + 1)]
        for person in people:
            for number in (1, 2, 3):
                write_image(root / person / f"{person}_{number:04}{suffix}", value=10 * fold + number)
        lines += [f"{person}\t1\t3" for person in people[:of_each]]
        lines += [f"{people[i]}\t2\t{people[i + 1]}\t1" for i in range(of_each)]
    (root.parent / "pairs.txt").write_text("\n".join(lines) + "\n")
    return str(root.parent / "pairs.txt")


def names(pairs, side):
    return ["/".join(pairs.files[i].split("/")[-2:]) for i in getattr(pairs, side)]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_lfw(tmp_path, suffix):
    pairs = data.read_pairs(write_lfw(tmp_path / "faces", suffix), str(tmp_path / "faces"), "lfw")
    assert pairs.same.tolist() == [True, True, False, False] * 3
    assert pairs.fold.tolist() == [1] * 4 + [2] * 4 + [3] * 4
    assert names(pairs, "left")[1:3] == [f"p01/p01_0001{suffix}", f"p00/p00_0002{suffix}"]
    assert names(pairs, "right")[1:3] == [f"p01/p01_0003{suffix}", f"p01/p01_0001{suffix}"]
    assert pairs.files == tuple(sorted(set(pairs.files)))
    assert pairs.people([1, 3]) == {"p00", "p01", "p02", "p20", "p21", "p22"}


def test_a_byte_order_mark_is_no_part_of_a_list(tmp_path):
    path = pathlib.Path(write_lfw(tmp_path / "faces"))
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert data.read_pairs(str(path), str(tmp_path / "faces"), "lfw").size == 12


def test_names_may_hold_spaces_between_tabs(tmp_path):
    people = ("Ann Lee", "Bo van Dam", "cid", "dan")
    for person in people:
        for number in (1, 2):
            write_image(tmp_path / "faces" / person / f"{person}_{number:04}.png")
    fold = "{0}\t1\t2\n{0}\t1\t{1}\t2\n".format
    (tmp_path / "pairs.txt").write_text("2\t1\n" + fold(*people[:2]) + "cid  1\t2\ncid 1 dan\t2\n")
    pairs = data.read_pairs(str(tmp_path / "pairs.txt"), str(tmp_path / "faces"))
    assert names(pairs, "right")[:2] == ["Ann Lee/Ann Lee_0002.png", "Bo van Dam/Bo van Dam_0002.png"]
    assert pairs.people([1, 2]) == set(people)
    listed = "Ann Lee/Ann Lee_0001.png\tBo van Dam/Bo van Dam_0001\t0\n" * 10
    (tmp_path / "lines.txt").write_text(listed)
    pairs = data.read_pairs(str(tmp_path / "lines.txt"), str(tmp_path / "faces"), "agedb_30")
    assert (pairs.size, names(pairs, "right")[0]) == (10, "Bo van Dam/Bo van Dam_0001.png")


def test_folds_can_be_taken_alone(tmp_path):
    pairs = data.read_pairs(write_lfw(tmp_path / "faces"), str(tmp_path / "faces"))
    part = pairs.take_folds([2])
    assert (part.size, set(part.fold), part.people([2])) == (4, {2}, pairs.people([2]))
    chosen = pairs.fold == 2
    for side in ("left", "right"):
        assert names(part, side) == [name for name, there in zip(names(pairs, side), chosen, strict=True) if there]
    assert set(part.files) == {file for file in pairs.files if "/p1" in file}
    for folds in ([], [4], [0, 1]):
        with pytest.raises(UsageError, match="has the folds 1 to 3"):
            pairs.take_folds(folds)


def test_the_images_of_pairs_come_in_the_order_of_the_files(tmp_path):
    pairs = data.read_pairs(write_lfw(tmp_path / "faces"), str(tmp_path / "faces"))
    split = data.pairs_split(pairs, normalization="raw")
    assert (split.labels, split.shape, split.size) == (None, (6, 5, 3), len(pairs.files))
    values = np.concatenate([batch[:, 0, 0, 0] for batch in split.batches(4).as_numpy_iterator()])
    assert values.tolist() == [10 * int(file.split("/p")[-1][0]) + int(file[-5]) for file in pairs.files]
    face = next(data.pairs_split(pairs, input_shape=(3, 3, 1)).batches(2).as_numpy_iterator())
    np.testing.assert_allclose(face[0], (values[0] - 127.5) / 128, rtol=1e-3)


def test_images_of_pairs_are_aligned_where_there_are_landmarks(tmp_path):
    pairs = data.read_pairs(write_lfw(tmp_path / "faces"), str(tmp_path / "faces"))
    points = "1 1 3 1 2 2 1 4 3 4"
    lines = [f"{file} {points}" for file in pairs.files]
    (tmp_path / "landmarks.txt").write_text("\n".join(lines))
    assert data.pairs_split(pairs, landmarks=str(tmp_path / "landmarks.txt")).shape == (112, 112, 3)
    (tmp_path / "landmarks.txt").write_text("\n".join(lines[2:]))
    with pytest.raises(UsageError, match=r"names no landmarks of .*png and 1 more"):
        data.pairs_split(pairs, landmarks=str(tmp_path / "landmarks.txt"))


def write_cfp(root):
    protocol = root / "Protocol"
    for view, listed in (("frontal", "Pair_list_F.txt"), ("profile", "Pair_list_P.txt")):
        lines = []
        for number in range(1, 21):
            path = f"Data/Images/{number:03}/{view}/01.jpg"
            write_image(root / path)
            lines.append(f"{number} ../{path}")
        protocol.mkdir(exist_ok=True)
        (protocol / listed).write_text("\n".join(lines))
    for fold in range(1, 11):
        folder = protocol / "Split" / "FP" / f"{fold:02}"
        folder.mkdir(parents=True)
        (folder / "same.txt").write_text(f"{fold},{fold}\n{fold + 10},{fold + 10}\n")
        (folder / "diff.txt").write_text(f"{fold},{fold + 10}\n{fold + 10},{fold}\n")
    return str(protocol)


def test_cfp_fp(tmp_path):
    pairs = data.read_pairs(write_cfp(tmp_path), str(tmp_path / "Data" / "Images"), "cfp_fp")
    assert (pairs.size, len(pairs.files)) == (40, 40)
    assert all("/frontal/" in pairs.files[i] for i in pairs.left)
    assert all("/profile/" in pairs.files[i] for i in pairs.right)
    for left, right, same in zip(pairs.left, pairs.right, pairs.same, strict=True):
        assert (pairs.identities[left] == pairs.identities[right]) == same
    assert np.bincount(pairs.fold).tolist() == [0] + [4] * 10
    assert pairs.people([2]) == {"002", "012"}


@pytest.mark.parametrize(("protocol", "different"), [("agedb_30", "0"), ("agedb_30", "-1"), ("cfp_fp", "-1")])
def test_lists_of_lines(tmp_path, protocol, different):
    for number in range(40):
        write_image(tmp_path / "faces" / f"{number}.jpg")
    lines = [f"{2 * i}.jpg {2 * i + 1}.jpg {'1' if i % 2 else different}" for i in range(20)]
    (tmp_path / "pair.txt").write_text("\n".join(lines))
    pairs = data.read_pairs(str(tmp_path / "pair.txt"), str(tmp_path / "faces"), protocol)
    assert pairs.same.tolist() == [False, True] * 10
    assert pairs.fold.tolist() == [1 + i // 2 for i in range(20)]
    with pytest.raises(UsageError, match="does not say whom"):
        pairs.people([1])


LFW, AGEDB = "Labeled Faces in the Wild", "AgeDB, 30 years apart"
BAD_LISTS = {
    "another header": ("lfw", "NAME 1 2", f"{LFW}: .* begins with 'NAME 1 2'; expected pairs.txt"),
    "empty": ("lfw", "", "begins with ''"),
    "cut short": ("lfw", "2 2\na 1 2\n", "holds 1 pairs, but its first line promises 8"),
    "different in place of same": ("lfw", "1 1\na 1 b 2\na 1 2", "has 'a 1 b 2' as pair 1"),
    "no number": ("lfw", "1 1\na 1 x\na 1 b 2", "has 'a 1 x' as pair 1"),
    "a header of no pairs": ("lfw", "4 0\n", "begins with '4 0', which promises no pairs"),
    "a header of no folds": ("lfw", "0 3\n", "begins with '0 3', which promises no pairs"),
    "a digit that is no number": ("lfw", "1 ²\n", "begins with '1 ²'"),
    "another one": ("lfw", "1 1\na 1 ²\na 1 b 2", "has 'a 1 ²' as pair 1"),
    "no folds": ("agedb_30", "a b 1\n" * 12, f"{AGEDB}: .* holds 12 pairs"),
    "no flag": ("agedb_30", "a b\n" * 10, "has 'a b' as pair 1"),
    "empty list": ("agedb_30", "\n", "holds 0 pairs"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_lists_of_another_form_are_refused(tmp_path, case):
    protocol, text, message = BAD_LISTS[case]
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        data.read_pairs(str(tmp_path / "list.txt"), str(tmp_path), protocol)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named_with_where_to_get_it(tmp_path):
    listed = write_lfw(tmp_path / "faces")
    with pytest.raises(UsageError, match=r"none\.txt cannot be read .*; expected pairs.txt.*; get it from http"):
        data.read_pairs(str(tmp_path / "none.txt"), str(tmp_path / "faces"))
    with pytest.raises(UsageError, match=r"there is no folder .*none of its images; expected ROOT/NAME/NAME_0001.jpg"):
        data.read_pairs(listed, str(tmp_path / "none"))
    (tmp_path / "faces" / "p00" / "p00_0001.png").unlink()
    with pytest.raises(UsageError, match=r"lacks 1 of .* images, the first is p00/p00_0001;.* get them from http"):
        data.read_pairs(listed, str(tmp_path / "faces"))
    with pytest.raises(UsageError, match="unknown protocol of pairs 'ytf'; choose one of lfw, cfp_fp, agedb_30"):
        data.read_pairs(listed, str(tmp_path / "faces"), "ytf")
    protocol = write_cfp(tmp_path)
    (tmp_path / "Protocol" / "Split" / "FP" / "03" / "diff.txt").write_text("1,99\n")
    with pytest.raises(UsageError, match=r"Celebrities in Frontal-Profile: .*03/diff.txt has the line '1,99'"):
        data.read_pairs(protocol, str(tmp_path / "Data" / "Images"), "cfp_fp")
    (tmp_path / "Protocol" / "Pair_list_P.txt").unlink()
    with pytest.raises(UsageError, match=r"Pair_list_P\.txt cannot be read"):
        data.read_pairs(protocol, str(tmp_path / "Data" / "Images"), "cfp_fp")
