"""Lists as people write them: their names of columns, their words for labels, and their shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from faceidx.errors import InputError
from faceidx.evaluation.lists import PairList, ScoreList, read_list

_PAIRS = [("Ann/1.jpg", "Ann/2.jpg", True), ("Ann/1.jpg", "Bo B/2.jpg", False)]


def _read(path: Path, text: str) -> list[tuple[str, str, bool]]:
    path.write_text(text)
    found = read_list(path)
    assert isinstance(found, PairList)
    return [
        (found.keys[left], found.keys[right], bool(genuine))
        for left, right, genuine in zip(found.left, found.right, found.genuine, strict=True)
    ]


def _table(header: str, separator: str = ",", values: tuple[str, str] = ("0", "1")) -> str:
    rows = [separator.join((left, right, values[same])) for left, right, same in _PAIRS]
    return "\n".join([*([header] if header else []), *rows]) + "\n"


@pytest.mark.parametrize(
    "names",
    [
        *("p1,p2", "x1,x2", "id1,id2", "name1,name2", "img0,img1", "first,second", "l,r"),
        *("img_a,img_b", "imageA,imageB", "Image 1,Image 2", "image-1,image-2", "file_x,file_y"),
        *("image1_path,image2_path", "img_path_1,img_path_2", "filename1,filename2"),
        *("left_image,right_image", "path_left,path_right", "photo_1,photo_2", "face1,face2"),
        *("probe,reference", "probe,gallery", "enroll_path,test_path", "person1_img,person2_img"),
    ],
)
def test_two_columns_that_differ_in_the_mark_of_a_side_are_the_pictures(
    tmp_path: Path, names: str
) -> None:
    found = _read(tmp_path / "p.csv", _table(f"{names},label"))
    assert [{*pair[:2]} for pair in found] == [{*pair[:2]} for pair in _PAIRS]
    assert [pair[2] for pair in found] == [True, False]


@pytest.mark.parametrize(
    "label",
    [
        *("label", "same", "isSame", "is_same_person", "Same Person", "same_id", "is_match"),
        *("pair_label", "target", "gt", "ground_truth", "y", "mated"),
    ],
)
def test_the_column_of_labels_goes_by_many_names(tmp_path: Path, label: str) -> None:
    assert _read(tmp_path / "p.csv", _table(f"img1,img2,{label}")) == _PAIRS


@pytest.mark.parametrize(
    ("no", "yes"),
    [
        *(("-1", "1"), ("0.0", "1.0"), ("False", "True"), ("n", "Y"), ("F", "t"), ("diff", "same")),
        *(("imposter", "genuine"), ("non-match", "match"), ("no match", "match")),
        *(("not_same", "same"), ("non-mated", "mated"), ("negative", "positive")),
        *(("neg", "pos"), ("nontarget", "target"), ("Different Person", "Same Person")),
    ],
)
@pytest.mark.parametrize("shape", ["header", "no header", "label first", "tabs"])
def test_labels_are_words_or_numbers_in_tables_and_lines(
    tmp_path: Path, no: str, yes: str, shape: str
) -> None:
    separator = "\t" if shape == "tabs" else ","
    text = _table("left,right,label" if shape == "header" else "", separator, (no, yes))
    if shape == "label first":
        text = "".join(f"{(no, yes)[same]},{left},{right}\n" for left, right, same in _PAIRS)
    assert _read(tmp_path / "p.txt", text) == _PAIRS


def test_words_may_not_say_impostor_in_two_ways_of_which_one_may_mean_unknown(
    tmp_path: Path,
) -> None:
    path = tmp_path / "p.csv"
    path.write_text("left,right,label\na,b,1\na,c,-1\na,d,0\n")
    with pytest.raises(InputError, match=r"p.csv:4: labels are 0 here and -1 elsewhere"):
        read_list(path)
    path.write_text("a b 1\na c -1\na d 0\n")
    with pytest.raises(InputError, match=r"p.csv:3: 'a d 0' is no pair"):
        read_list(path)


@pytest.mark.parametrize("header", ["", "left;right;label"])
def test_semicolons_set_cells_apart_where_the_first_line_has_no_comma(
    tmp_path: Path, header: str
) -> None:
    assert _read(tmp_path / "p.csv", _table(header, ";")) == _PAIRS


def test_commas_followed_by_blanks_are_a_table_and_no_part_of_names(tmp_path: Path) -> None:
    assert _read(tmp_path / "p.txt", _table("", ", ")) == _PAIRS


def test_a_table_without_header_whose_label_may_be_first_or_last_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "p.csv"
    path.write_text("1,a,0\n")
    with pytest.raises(InputError, match=r"p.csv:1: "):
        read_list(path)


def test_a_line_that_names_the_columns_may_stand_before_lines_of_blanks(tmp_path: Path) -> None:
    text = "# trials\nimg1 img2 label\na.jpg b.jpg 1\na.jpg c.jpg 0\n"
    assert _read(tmp_path / "p.txt", text)[0] == ("a.jpg", "b.jpg", True)
    assert _read(tmp_path / "q.txt", "label p1 p2\n1 a.jpg b.jpg\n") == [("a.jpg", "b.jpg", True)]
    (tmp_path / "r.txt").write_text("img1 img2 label\nimg1 img2 label\na b 1\n")
    with pytest.raises(InputError, match=r"r.txt:2: "):
        read_list(tmp_path / "r.txt")


def test_blanks_in_names_are_read_where_endings_tell_the_names_apart(tmp_path: Path) -> None:
    text = "Ann Lee/a 1.jpg Bo B/2.PNG 1\nAnn Lee/a 1.jpg Cy/3.jpg 0\n"
    pairs = [("Ann Lee/a 1.jpg", "Bo B/2.PNG", True), ("Ann Lee/a 1.jpg", "Cy/3.jpg", False)]
    assert _read(tmp_path / "p.txt", text) == pairs
    first = "".join(f"{line[-1]} {line[:-2]}\n" for line in text.splitlines())
    assert _read(tmp_path / "q.txt", first) == pairs
    two = "Ann Lee 1.jpg 3\nAnn Lee 2.jpg 3\nAnn Lee 1.jpg 0\nBo.jpg 0\n"
    assert _read(tmp_path / "r.txt", two)[1] == ("Ann Lee 1.jpg", "Bo.jpg", False)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_read_where_its_mark_says_so(tmp_path: Path, encoding: str) -> None:
    text = "\ufeff" + _table("left,right,label").replace("\n", "\r\n").replace("Bo B", "Bo é")
    (tmp_path / "p.csv").write_bytes(text.encode(encoding))
    found = read_list(tmp_path / "p.csv")
    assert isinstance(found, PairList) and found.keys == ["Ann/1.jpg", "Ann/2.jpg", "Bo é/2.jpg"]
    (tmp_path / "p.csv").write_bytes(text.encode(encoding)[:-1])
    with pytest.raises(InputError, match="damaged UTF-16"):
        read_list(tmp_path / "p.csv")


def test_lfw_may_have_blanks_in_names_and_commas(tmp_path: Path) -> None:
    meant = [
        ("Ann Lee/Ann Lee_0001", "Ann Lee/Ann Lee_0002", True),
        ("Ann Lee/Ann Lee_0001", "Bo/Bo_0003", False),
    ]
    assert _read(tmp_path / "p.txt", "Ann Lee 1 2\nAnn Lee 1 Bo 3\n") == meant
    table = "name,imagenum1,imagenum2,\nAnn Lee,1,2,\nAnn Lee,1,Bo,3\n"
    assert _read(tmp_path / "pairs.csv", table) == meant
    (tmp_path / "q.txt").write_text("Ann 5 Lee 1 2\nAnn 1 Bo 3\n")
    with pytest.raises(InputError, match=r"q.txt:1: "):
        read_list(tmp_path / "q.txt", format="lfw")


def test_similarities_stand_for_scores_where_there_are_no_names(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    for header in ("label;similarity", "y_true;y_score"):
        path.write_text(f"{header}\nsame;0.9\ndiff;0.1\n")
        found = read_list(path)
        assert isinstance(found, ScoreList) and found.scores.tolist() == [0.9, 0.1]
    path.write_text("label,distance\n1,0.1\n0,0.9\n")
    with pytest.raises(InputError, match="more means more alike"):
        read_list(path)


def test_labels_in_the_place_of_bobs_probes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    path.write_text("a.jpg a.jpg 1 0.9\na.jpg b.jpg 0 0.2\n")
    with pytest.raises(InputError, match=r"s.txt:1: the third column holds 0 and 1 alone"):
        read_list(path)


@pytest.mark.parametrize("text", ["a.jpg b.jpg\n", "a.jpg,b.jpg\n"])
def test_trials_without_labels_are_told_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trials.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"trials.txt:1: .* its label is lacking"):
        read_list(path)
    path.write_text("img1,img2\na.jpg,b.jpg\n")
    with pytest.raises(InputError, match=r"trials.txt:1: no column of the header is a label"):
        read_list(path)


def test_a_blank_in_one_name_of_each_pair_makes_no_scores_of_bob(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("Ann Lee/1.jpg Bo/2.jpg 1\nAnn Lee/1.jpg Cy/3.jpg 0\n")
    found = read_list(path)
    assert isinstance(found, PairList) and found.format == "pairs01"
    assert found.keys == ["Ann Lee/1.jpg", "Bo/2.jpg", "Cy/3.jpg"]
    with pytest.raises(InputError, match=r"pairs\.txt:1: the second column holds names of pictu"):
        read_list(path, format="bob")
