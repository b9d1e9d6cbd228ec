"""Each format by a sample as its publisher writes it, and its broken lines by file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.evaluation.lists import PairList, ScoreList, read_list, resolve

_LFW = "2\t2\nAnn\t1\t2\nAnn\t1\t3\nBo\t1\tCy\t2\nBo\t1\tDi\t1\n" + (
    "Ed\t1\t2\nEd\t2\t3\nFay\t1\tGus\t12\nHal\t3\tIvy\t1\n"
)
_CALFW = "Ann_0001.jpg 1\nAnn_0002.jpg 1\nBo_0001.jpg 2\nBo_0003.jpg 2\n" + (
    "Cy_0001.jpg 0\nDi_0001.jpg 0\nEd_0001.jpg 0\nFay_0001.jpg 0\n"
)


def _write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def _pairs(path: Path, name: str = "auto") -> PairList:
    found = read_list(path, format=name)
    assert isinstance(found, PairList)
    return found


def _named(found: PairList) -> list[tuple[str, str, bool]]:
    return [
        (found.keys[a], found.keys[b], bool(same))
        for a, b, same in zip(found.left, found.right, found.genuine, strict=True)
    ]


def _folds(found: PairList | ScoreList) -> list[int] | None:
    return None if found.folds is None else found.folds.tolist()


def test_lfw_gives_stems_and_the_folds_of_its_header(tmp_path: Path) -> None:
    found = _pairs(_write(tmp_path / "pairs.txt", _LFW))
    assert found.format == "lfw" and found.stems
    assert _named(found)[0] == ("Ann/Ann_0001", "Ann/Ann_0002", True)
    assert _named(found)[6] == ("Fay/Fay_0001", "Gus/Gus_0012", False)
    assert _folds(found) == [0] * 4 + [1] * 4
    assert found.left.dtype == found.lines.dtype == np.int32 and found.genuine.dtype == bool
    assert found.folds is not None and found.folds.dtype == np.int16


def test_a_header_of_one_number_is_one_block_without_folds(tmp_path: Path) -> None:
    found = _pairs(_write(tmp_path / "pairsDevTest.txt", "1\r\nAnn 1 2\r\nAnn 1 Bo 2\r\n"))
    assert found.genuine.tolist() == [True, False] and _folds(found) is None


def test_ten_equal_blocks_without_header_are_ten_folds(tmp_path: Path) -> None:
    block = "m.01\t1\t2\nm.02\t1\t3\nm.01\t1\tm.02\t1\nm.03\t1\tm.02\t2\n"
    found = _pairs(_write(tmp_path / "African_pairs.txt", block * 10))
    assert found.format == "lfw" and _folds(found) == [k // 4 for k in range(40)]
    shorter = _pairs(_write(tmp_path / "nine.txt", block * 9))
    assert len(shorter.left) == 36 and _folds(shorter) is None


def test_names_with_blanks_are_read_where_tabs_set_fields_apart(tmp_path: Path) -> None:
    found = _pairs(_write(tmp_path / "p.txt", "1\nAnn Lee\t1\t2\nAnn Lee\t1\tBo\u00a0B\t2\n"))
    assert found.keys[0] == "Ann Lee/Ann Lee_0001" and found.keys[2] == "Bo\u00a0B/Bo\u00a0B_0002"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("1\t2\nAnn\t1\t2\nAnn\t1\tBo\t1\nAnn\t1\t3\nAnn\t1\tBo\t2\n", 3, "pair 2 is genuine"),
        ("1\t1\nAnn\t1\t2\nAnn\t1\tBo\t1\nAnn\t1\tBo\t2\n", 4, "but there are more"),
        ("1\t2\nAnn\t1\t2\nAnn\t1\t3\nAnn\t1\tBo\t1\n", 4, "ends after 3 pairs"),
        ("300\n", 1, "ends after 0 pairs"),
        ("1\t1\nAnn\t1\tx\nAnn\t1\tBo\t1\n", 2, "is no pair"),
        ("1\t1\nAnn\t1\t2\n1\t1\nAnn\t1\tBo\t1\n", 3, "only the first line may be a header"),
        ("1\t1\nAnn\t1\t2\nAnn\t1\tAnn\t3\n", 3, "names one person twice"),
        ("0\t1\nAnn\t1\t2\n", 1, "at least one genuine pair"),
        ("40000\t1\nAnn\t1\t2\n", 1, "folds"),
    ],
)
def test_lfw_lists_that_contradict_themselves_are_refused(
    tmp_path: Path, text: str, line: int, what: str
) -> None:
    path = _write(tmp_path / "pairs.txt", text)
    with pytest.raises(InputError) as caught:
        read_list(path, format="lfw")
    assert f"{path}:{line}: " in str(caught.value) and what in str(caught.value)


def test_pairs01_and_01pairs_are_told_apart(tmp_path: Path) -> None:
    first = _pairs(_write(tmp_path / "a.txt", "d/a.jpg  d/b.jpg\t1\n\nd/a.jpg d/c.jpg 0"))
    assert first.format == "pairs01" and first.lines.tolist() == [1, 3]
    assert _named(first) == [("d/a.jpg", "d/b.jpg", True), ("d/a.jpg", "d/c.jpg", False)]
    second = _pairs(_write(tmp_path / "b.txt", "1 d/a.wav d/b.wav\r0 d/a.wav d/c.wav\r"))
    assert second.format == "01pairs" and second.lines.tolist() == [1, 2]
    assert _named(second) == [("d/a.wav", "d/b.wav", True), ("d/a.wav", "d/c.wav", False)]


@pytest.mark.parametrize("line", ["a.jpg b.jpg 2", "a.jpg b.jpg", "a.jpg b.jpg c.jpg 1", "x"])
@pytest.mark.parametrize("name", ["auto", "pairs01"])
def test_a_broken_line_of_pairs01_is_refused(tmp_path: Path, line: str, name: str) -> None:
    path = _write(tmp_path / "p.txt", f"a.jpg b.jpg 1\n\n{line}\na.jpg b.jpg 0\n")
    with pytest.raises(InputError, match=f"p.txt:3: '{line}' is no pair `left right 0|1`"):
        read_list(path, format=name)


def test_a_broken_line_of_01pairs_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "p.txt", "1 a.jpg b.jpg\nmaybe a.jpg b.jpg\n")
    with pytest.raises(InputError, match=r"p.txt:2: 'maybe a.jpg b.jpg' is no pair"):
        read_list(path)


def test_calfw_numbers_the_folds_of_both_kinds_of_pairs(tmp_path: Path) -> None:
    found = _pairs(_write(tmp_path / "pairs_CALFW.txt", _CALFW))
    assert found.format == "calfw" and not found.stems
    assert _named(found)[1:3] == [
        ("Bo_0001.jpg", "Bo_0003.jpg", True),
        ("Cy_0001.jpg", "Di_0001.jpg", False),
    ]
    assert _folds(found) == [0, 1, 0, 1] and found.lines.tolist() == [1, 3, 5, 7]


def test_two_line_lists_without_fold_numbers_have_no_folds(tmp_path: Path) -> None:
    text = _CALFW.replace("jpg 2", "jpg 1")
    found = _pairs(_write(tmp_path / "pairs_CPLFW.txt", text))
    assert found.format == "cplfw" and _folds(found) is None
    uneven = _pairs(_write(tmp_path / "p.txt", "".join(_CALFW.splitlines(keepends=True)[:6])))
    assert uneven.format == "calfw" and _folds(uneven) is None


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a.jpg 1\nb.jpg 1\nc.jpg 1\nd.jpg 0\n", 4, "both lines of a pair carry the same"),
        ("a.jpg 1\nb.jpg 1\nc.jpg 0\n", 3, "second line is missing"),
        ("a.jpg 1\nb.jpg 1\nc.jpg x\nd.jpg 0\n", 3, "is no line `picture token`"),
        # a list of pictures with a person's number each is no list of pairs
        ("a.jpg 1\nb.jpg 1\nc.jpg 11\nd.jpg 11\n", 3, "token from 0 to 10"),
    ],
)
def test_broken_two_line_lists_are_refused(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = _write(tmp_path / "p.txt", text)
    with pytest.raises(InputError) as caught:
        read_list(path)
    assert f"{path}:{line}: " in str(caught.value) and what in str(caught.value)


def test_deepface_table_with_mixed_line_ends_is_read(tmp_path: Path) -> None:
    text = "\ufefffile_x,file_y,Decision\r\nimg1.jpg,img2.jpg,Yes\nimg1.jpg,img3.jpg,No\r\n\r\n"
    found = _pairs(_write(tmp_path / "master.csv", text))
    assert found.format == "csv" and found.lines.tolist() == [2, 3]
    assert _named(found) == [("img1.jpg", "img2.jpg", True), ("img1.jpg", "img3.jpg", False)]


@pytest.mark.parametrize(
    "header",
    ["left,right,label", "Path1,PATH2,genuine", "a,b,same", "img1,img2,issame", "left,right,match"],
)
@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("TRUE", "false"), ("Same", "different")])
def test_tables_find_their_columns_by_name(tmp_path: Path, header: str, yes: str, no: str) -> None:
    found = _pairs(_write(tmp_path / "p.csv", f"{header}\nx,y,{yes}\nx,z,{no}\n"))
    assert _named(found) == [("x", "y", True), ("x", "z", False)]


def test_tables_keep_folds_quotes_and_further_columns(tmp_path: Path) -> None:
    text = 'note,fold,left,right,label\nhi,7,"a, b.jpg",c.jpg,1\n'
    text += '"two\nlines",3,c.jpg,d.jpg,0\n,7,c,d,1\n'
    found = _pairs(_write(tmp_path / "p.csv", text))
    assert found.keys[0] == "a, b.jpg" and found.lines.tolist() == [2, 3, 5]
    assert _folds(found) == [1, 0, 1]
    tabs = _pairs(_write(tmp_path / "p.tsv", "left\tright\tlabel\na, b.jpg\tc.jpg\t1\n"))
    assert tabs.format == "tsv" and tabs.keys == ["a, b.jpg", "c.jpg"]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("left,right,label\na,b,1\na,b,maybe\n", 3, "the label 'maybe' is none of"),
        ("left,right,label\na,b,1\na,b\n", 3, "has 2 cells, but the header has 3"),
        ("left,right,label\na,b,1\na,,0\n", 3, "name is empty"),
        ('left,right,label\na,b,1\n"a,b,0\nc,d,1\n', 3, "is no row of a table"),
        ("left,right,label\n", 1, "no pairs follow"),
        ("left,right,label,match\na,b,1,1\n", 1, "both label and match"),
        ("left,right,a,b,label\na,b,c,d,1\n", 1, "both left/right and a/b"),
        ("left,left,right,label\na,b,c,1\n", 1, "names 'left' twice"),
        ("uno,dos,label\na,b,1\n", 1, "names no two columns of pictures"),
        ("left,right,label,fold\na,b,1,x\n", 2, "the fold 'x' is no whole number"),
    ],
)
@pytest.mark.parametrize("name", ["auto", "csv"])
def test_broken_tables_are_refused(
    tmp_path: Path, text: str, line: int, what: str, name: str
) -> None:
    path = _write(tmp_path / "p.csv", text)
    with pytest.raises(InputError) as caught:
        read_list(path, format=name)
    assert f"{path}:{line}: " in str(caught.value) and what in str(caught.value)


def _cfp(root: Path) -> Path:
    protocol = root / "Protocol"
    for kind, side in (("F", "frontal"), ("P", "profile")):
        lines = [f"{n} ../Data/Images/{n:03d}/{side}/01.jpg\r\n" for n in range(1, 5)]
        _write(protocol / f"Pair_list_{kind}.txt", "".join(lines))
    for kind in ("FF", "FP"):
        for fold in (1, 2, 10):
            _write(protocol / f"Split/{kind}/{fold:02d}/same.txt", "1,1\n2,2\n")
            _write(protocol / f"Split/{kind}/{fold:02d}/diff.txt", f"1,2\n{fold % 3 + 1},4\n")
    return root


def test_cfp_is_read_in_both_protocols_with_the_folds_of_its_splits(tmp_path: Path) -> None:
    root = _cfp(tmp_path)
    with pytest.raises(InputError, match="--format cfp-ff or cfp-fp"):
        read_list(root)
    profile = _pairs(root, "cfp-fp")
    assert _folds(profile) == [0] * 4 + [1] * 4 + [2] * 4
    assert _named(profile)[:3] == [
        ("Data/Images/001/frontal/01.jpg", "Data/Images/001/profile/01.jpg", True),
        ("Data/Images/002/frontal/01.jpg", "Data/Images/002/profile/01.jpg", True),
        ("Data/Images/001/frontal/01.jpg", "Data/Images/002/profile/01.jpg", False),
    ]
    frontal = _pairs(root / "Protocol", "cfp-ff")
    assert all("/frontal/" in key for key in frontal.keys)
    known = ["002/frontal/01.jpg", "Data/Images/001/frontal/01.jpg"]
    rows = dict(zip(frontal.keys, resolve(frontal, known), strict=True))
    assert rows["Data/Images/001/frontal/01.jpg"] == 1
    assert rows["Data/Images/002/frontal/01.jpg"] == 0
    assert rows["Data/Images/004/frontal/01.jpg"] == -1


@pytest.mark.parametrize(
    ("file", "text", "where", "what"),
    [
        ("Split/FP/02/diff.txt", "1,2\n1;3\n", ":2:", "is no pair of numbers"),
        ("Split/FP/02/diff.txt", "1,2\n1,9\n", ":2:", "no picture has the number 9"),
        ("Split/FP/02/diff.txt", "", ":", "holds no pairs"),
        ("Split/FP/extra/same.txt", "1,1\n", ":", "has a number as its name"),
        ("Pair_list_P.txt", "1 ../Data/Images/a.jpg\n1 ../b.jpg\n", ":2:", "given twice"),
        ("Pair_list_P.txt", "1 ../../elsewhere/a.jpg\n", ":1:", "outside the data set"),
        ("Pair_list_P.txt", "one ../Data/a.jpg\n", ":1:", "no line `number path`"),
    ],
)
def test_broken_copies_of_cfp_are_refused(
    tmp_path: Path, file: str, text: str, where: str, what: str
) -> None:
    path = _write(_cfp(tmp_path) / "Protocol" / file, text)
    named = path.parent if "extra" in file else path
    with pytest.raises(InputError) as caught:
        read_list(tmp_path, format="cfp-fp")
    assert f"{named}{where}" in str(caught.value) and what in str(caught.value)


def test_a_fold_of_cfp_without_its_file_is_refused(tmp_path: Path) -> None:
    (_cfp(tmp_path) / "Protocol/Split/FP/02/same.txt").unlink()
    with pytest.raises(InputError, match=r"02/same.txt: no such file"):
        read_list(tmp_path, format="cfp-fp")


_FACES = "1.jpg 30 7\n2.jpg 10 8\n3.jpg 30 7\n4.jpg 30 9\n5.jpg 10 7\n"


def _ijb(root: Path, pairs: str = "30 10 0\n10 10 1\n10 30 1\n", faces: str = _FACES) -> Path:
    _write(root / "meta/ijbc_face_tid_mid.txt", faces)
    _write(root / "meta/ijbc_template_pair_label.txt", pairs)
    return root


def test_ijb_gives_templates_of_faces_and_pairs_of_templates(tmp_path: Path) -> None:
    found = _pairs(_ijb(tmp_path))
    assert found.format == "ijb" and found.keys == ["30", "10"]
    assert _named(found) == [("30", "10", False), ("10", "10", True), ("10", "30", True)]
    templates = found.templates
    assert templates is not None and templates.pictures == [f"{n}.jpg" for n in range(1, 6)]
    assert templates.picture.tolist() == [0, 1, 2, 3, 4]
    assert templates.template.tolist() == [0, 1, 0, 0, 1]
    assert templates.media.tolist() == [7, 8, 7, 9, 7]
    assert resolve(found, ["4.jpg", "1.jpg"]).tolist() == [1, -1, -1, 0, -1]
    assert _named(_pairs(tmp_path / "meta")) == _named(found)


def test_ijb_pairs_are_the_same_whether_read_by_blocks_or_line_by_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.choice([10, 30], (3000, 2)).tolist()
    text = "".join(f"{a} {b} {int(a == b)}\n" for a, b in rows)
    fast = _pairs(_ijb(tmp_path / "fast", text))
    slow = _pairs(_ijb(tmp_path / "slow", text + "\n"))  # a blank line: one by one
    assert [(int(a), int(b)) for a, b, _ in _named(fast)] == [tuple(row) for row in rows]
    for name in ("left", "right", "genuine", "lines"):
        assert np.array_equal(getattr(fast, name), getattr(slow, name))


@pytest.mark.parametrize(
    ("pairs", "line", "what"),
    [
        ("30 10 0\n30 11 1\n", 2, "the template 11 has no faces"),
        ("30 10 0\n\n30 99 1\n", 3, "the template 99 has no faces"),
        ("30 10 0\n30 10 2\n", 2, "is no pair of templates"),
        ("30 10 0\n30 10\n", 2, "is no pair of templates"),
        ("30 10 0\n30 10.0 1\n", 2, "is no pair of templates"),
        ("30 10\n30 10\n", 1, "is no pair of templates"),
        ("30 10 0\n-30 10 1\n", 2, "is no pair of templates"),
    ],
)
def test_broken_pairs_of_ijb_are_refused(tmp_path: Path, pairs: str, line: int, what: str) -> None:
    _ijb(tmp_path, pairs)
    with pytest.raises(InputError) as caught:
        read_list(tmp_path)
    assert f"pair_label.txt:{line}: " in str(caught.value) and what in str(caught.value)


def test_incomplete_or_doubled_ijb_folders_are_refused(tmp_path: Path) -> None:
    _ijb(tmp_path, faces="1.jpg 30 7\n2.jpg ten 8\n")
    with pytest.raises(InputError, match=r"face_tid_mid.txt:2: .* is no face"):
        read_list(tmp_path)
    _ijb(tmp_path, pairs="\n")
    with pytest.raises(InputError, match="holds no pairs"):
        read_list(tmp_path)
    (tmp_path / "meta/ijbc_template_pair_label.txt").unlink()
    with pytest.raises(InputError, match=r"pair_label.txt: no such file"):
        read_list(tmp_path)
    _write(tmp_path / "meta/ijbb_face_tid_mid.txt", "1.jpg 1 1\n")
    with pytest.raises(InputError, match=r"ijbb_face_tid_mid.txt' and 'ijbc"):
        read_list(tmp_path)


def _scores(path: Path, name: str = "auto") -> ScoreList:
    found = read_list(path, format=name)
    assert isinstance(found, ScoreList)
    return found


def test_score_tables_need_no_names(tmp_path: Path) -> None:
    found = _scores(_write(tmp_path / "s.tsv", "Label\tScore\tfold\nyes\t1e-3\t2\nno\t-2\t1\n"))
    assert found.scores.tolist() == [0.001, -2.0] and found.genuine.tolist() == [True, False]
    assert _folds(found) == [1, 0] and found.left is None and found.lines.tolist() == [2, 3]


def test_names_of_scores_are_those_of_pairs(tmp_path: Path) -> None:
    found = _scores(_write(tmp_path / "s.csv", "a,b,label,score\nx/1, x/2 ,1,0.5\n"))
    assert found.left is not None and list(found.left) == ["x/1"]
    assert found.right is not None and list(found.right) == ["x/2"]
    empty = _scores(_write(tmp_path / "s.csv", "a,b,label,score\n,,1,0.5\n, ,0,0.4\n"))
    assert empty.left is None and empty.right is None


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("label,score\n1,0.5\n1,nan\n", 3, "the score 'nan' is not finite"),
        ("label,score\n1,0.5\n0,-inf\n", 3, "the score '-inf' is not finite"),
        ("label,score\n1,1e999\n", 2, "is not finite"),
        ("label,score\n1,0.5\n1,-1.7976931348623157e308\n", 3, "so large that it stands for none"),
        ("label,score\n1,1_0\n", 2, "is no score"),
        ("label,score\n1,\n", 2, "'' is no score"),
        ("label,score\n2,0.5\n", 2, "the label '2'"),
        ("left,right,score\na,b,0.5\n", 1, "no column of the header is a label"),
        ("label,score\n", 1, "no pairs follow"),
        ("left,right,label,score\na,b,1,1\na, ,0,1\n", 3, "a picture's name is empty"),
    ],
)
def test_broken_score_tables_are_refused(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = _write(tmp_path / "s.csv", text)
    with pytest.raises(InputError) as caught:
        read_list(path)
    assert f"{path}:{line}: " in str(caught.value) and what in str(caught.value)


def test_bob_score_files_are_genuine_where_claimed_is_real(tmp_path: Path) -> None:
    path = _write(tmp_path / "scores-dev", "1 1 c1/s1 0.9\n1 2 c2/s1 -3.5\n2 2 c2/s2 7\n")
    found = _scores(path)
    assert found.format == "bob" and found.genuine.tolist() == [True, False, True]
    assert found.scores.tolist() == [0.9, -3.5, 7.0]
    assert found.right is not None and list(found.right) == ["c1/s1", "c2/s1", "c2/s2"]
    assert found.people is not None
    assert [side.tolist() for side in found.people] == [[0, 0, 1], [0, 1, 1]]
    for broken, what in (("1 2 c nan", "is not finite"), ("1 2 c", "is no line `claimed_id")):
        _write(path, f"1 1 c1/s1 0.9\n{broken}\n")
        with pytest.raises(InputError, match=rf"scores-dev:2: .*{what}"):
            read_list(path)


def test_pyeer_files_give_genuine_then_impostor_scores(tmp_path: Path) -> None:
    _write(tmp_path / "exp_genuine.txt", "a b 0.9\nc\td\t0.8\n")
    _write(tmp_path / "exp_Imposter.txt", "0.1\n")
    assert _scores(tmp_path).format == "pyeer"
    (tmp_path / "exp_Imposter.txt").unlink()
    _write(tmp_path / "exp_impostor.txt", "0.1\n\n0.2\n0.95\n")
    found = _scores(tmp_path)
    assert found.format == "pyeer" and found.scores.tolist() == [0.9, 0.8, 0.1, 0.2, 0.95]
    assert found.genuine.tolist() == [True, True, False, False, False]
    assert found.lines.tolist() == [1, 2, 1, 3, 4]
    _write(tmp_path / "exp_impostor.txt", "0.1\ninf\n")
    with pytest.raises(InputError, match=r"exp_impostor.txt:2: the score 'inf' is not finite"):
        read_list(tmp_path)
    _write(tmp_path / "exp_impostor.txt", "123\n12\n0\n")
    with pytest.raises(InputError, match="histogram"):
        read_list(tmp_path)
    _write(tmp_path / "exp_impostor.txt", "")
    with pytest.raises(InputError, match=r"exp_impostor.txt: holds no scores"):
        read_list(tmp_path)
    _write(tmp_path / "other_genuine.txt", "0.5\n")
    with pytest.raises(InputError, match=r"exp_genuine.txt' and 'other_genuine.txt'"):
        read_list(tmp_path)
