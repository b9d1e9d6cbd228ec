"""Recipes: ours, and files of the user's own."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from faceidx.errors import InputError
from faceidx.training.options import Recipe, TrainOptions
from faceidx.training.recipes import recipe_names, settle_recipe


def _settled(recipe: str, pictures: int = 5000, on_gpu: bool = False, **more: object) -> Recipe:
    options = TrainOptions(data=Path("d"), out=Path("o"), recipe=recipe, **more)  # type: ignore[arg-type]
    return settle_recipe(options, pictures=pictures, on_gpu=on_gpu)[1]


def test_auto_goes_by_the_size_of_the_data_and_the_device() -> None:
    assert _settled("auto") == _settled("few")
    assert _settled("auto", pictures=900) == _settled("laptop", pictures=900)
    assert _settled("auto", pictures=50_000) == _settled("laptop", pictures=50_000)
    assert _settled("auto", arch="resnet18") == _settled("laptop", arch="resnet18")
    assert _settled("auto", on_gpu=True) == _settled("few_gpu", on_gpu=True)
    assert _settled("auto", pictures=50_000, on_gpu=True) == _settled("gpu", pictures=50_000)
    assert _settled("auto", arch="iresnet50", on_gpu=True) == _settled("gpu", arch="iresnet50")
    assert _settled("auto", pictures=300_000, on_gpu=True) == _settled("large", pictures=300_000)
    assert {"few", "few_gpu", "laptop", "gpu", "large", "demo"} <= set(recipe_names())


def test_a_recipe_of_the_users_own_says_what_it_likes_and_auto_the_rest(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text(
        'arch = "mobilefacenet"\nlr = 1\nbatch-size = 32\naux = ["center"]\nscale = 8.5\n'
    )
    mine, auto = _settled(str(own)), _settled("auto", arch="mobilefacenet")
    assert (mine.arch, mine.lr, mine.batch_size) == ("mobilefacenet", 1, 32)
    assert (mine.aux, mine.scale) == (("center",), 8.5)
    assert mine.weight_decay == auto.weight_decay
    assert _settled(str(own), arch="resnet18").arch == "resnet18"  # a flag beats the recipe


def test_a_batch_is_made_smaller_for_few_pictures_unless_the_user_chose_it(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text("batch_size = 40")
    assert _settled("laptop", pictures=550).batch_size == 34
    assert _settled(str(own), pictures=550).batch_size == 40
    assert _settled("laptop", pictures=550, batch_size=40).batch_size == 40
    own.write_text("lr = 0.1")
    assert _settled(str(own), pictures=550).batch_size == 34


def test_scale_and_margin_are_those_of_the_recipes_own_loss(tmp_path: Path) -> None:
    few = _settled("few")
    assert (few.loss, few.scale, few.margin) == ("cosface", 16.0, 0.1)
    assert _settled("few", loss="cosface").scale == 16.0
    other = _settled("few", loss="arcface", margin=0.3)
    assert (other.scale, other.margin) == (None, 0.3)
    options = TrainOptions(data=Path("d"), out=Path("o"), recipe="few", margin=0.3)
    fixed = {"loss": "arcface", "scale": 30.0}  # by the model that the run starts from
    kept = settle_recipe(options, pictures=5000, on_gpu=False, fixed=fixed)[1]
    assert (kept.loss, kept.scale, kept.margin) == ("arcface", 30.0, 0.3)
    own = tmp_path / "mine.toml"
    own.write_text('loss = "softmax"')
    assert (_settled(str(own)).scale, _settled(str(own)).margin) == (None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate = 0.1", r"mine\.toml: no recipe has a setting 'learning_rate'; .*\blr\b"),
        ('lr = "high"', r"mine\.toml: lr = 'high' is no number"),
        ("epochs = 2.5", r"mine\.toml: epochs = 2\.5 is no whole number"),
        ("epochs = true", r"mine\.toml: epochs = True is no whole number"),
        ('aux = "center"', r"mine\.toml: aux = 'center' is no list of texts"),
        ("arch = 50", r"mine\.toml: arch = 50 is no text"),
        ("arch = ", r"mine\.toml: no readable TOML file"),
    ],
)
def test_a_recipe_with_mistakes_is_refused_by_file_and_key(
    text: str, message: str, tmp_path: Path
) -> None:
    own = tmp_path / "mine.toml"
    own.write_text(text)
    with pytest.raises(InputError, match=message):
        _settled(str(own))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("warmup_epochs = inf", "--warmup-epochs inf: give a number from 0"),
        ("warmup_epochs = -1", "--warmup-epochs -1: give a number from 0"),
        ("lr = nan", "--lr nan: give a number above 0"),
        ("label_smoothing = 5", "--label-smoothing 5: give a share from 0 to 1"),
        ("accumulate = 0", "--accumulate 0: give 1 or more"),
        ("image_size = 4", "--image-size 4: give 16 or more"),
        ('loss = "arcface"\nmargin = inf', "--margin inf: give a number from 0"),
        ("scale = -3.0", "--scale -3.0: give a number above 0"),
        ("ema = nan", "--ema nan: give a decay from 0"),
    ],
)
def test_a_setting_that_is_out_of_its_range_is_refused_wherever_it_comes_from(
    text: str, message: str, tmp_path: Path
) -> None:
    own = tmp_path / "mine.toml"
    own.write_text(text)
    with pytest.raises(InputError, match=message):
        _settled(str(own))
    with pytest.raises(InputError, match=message):
        _settled("laptop", **tomllib.loads(text))


def test_a_recipe_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml: no readable TOML file"):
        _settled("nowhere.toml")
    with pytest.raises(InputError, match="no recipe named 'secret'; there are auto, demo"):
        _settled("secret")
