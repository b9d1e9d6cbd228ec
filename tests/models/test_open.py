from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from faceidx.errors import InputError
from faceidx.images.preprocess import PRESETS
from faceidx.models.about import describe
from faceidx.models.device import resolve_device
from faceidx.models.face_model import normalize
from faceidx.models.file import read_model, write_model
from faceidx.models.open import ModelOptions, open_model
from faceidx.models.torch_model import TorchModel, normalize_pictures
from tests.conftest import FAKE_DIM, FAKE_SIZE, FakeModel
from tests.models.onnx_graphs import NHWC, mean_color_graph


def _open(path: Path, **options: Any) -> Any:
    return open_model(ModelOptions(path=path, **{"device": "cpu", **options}))


def _pictures(count: int, size: tuple[int, int] = FAKE_SIZE) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, *size, 3), dtype=np.uint8)


_went_off: list[str] = []


def _go_off() -> None:
    _went_off.append("bang")


class _Bomb:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_go_off, ())


def test_the_bomb_of_these_tests_goes_off() -> None:
    pickle.loads(pickle.dumps(_Bomb()))
    assert _went_off.pop() == "bang"


@pytest.mark.parametrize("name", ["m.pth", "m.ckpt", "m.safetensors", "m.onnx", "m.pkl"])
@pytest.mark.parametrize("kind", ["torch", "legacy torch", 0, 2, 4, 5])
def test_a_pickle_is_refused_and_never_loaded(kind: str | int, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(kind, int):
        path.write_bytes(pickle.dumps({"state_dict": _Bomb()}, protocol=kind))
    else:
        new = kind == "torch"
        torch.save({"state_dict": _Bomb()}, path, _use_new_zipfile_serialization=new)
    with pytest.raises(InputError) as error:
        _open(path, preset="insightface")
    if kind != 0:  # protocol 0 is text; it is no model either way
        assert "pickle" in str(error.value)
    assert "\n" not in str(error.value)
    assert _went_off == []


@pytest.mark.parametrize("length", [0x10280, 0x10380, 0x10480, 0x10580])
def test_our_file_whose_header_is_as_long_as_a_pickle_begins_is_no_pickle(
    length: int, fake_model_file: Path, tmp_path: Path
) -> None:
    data = fake_model_file.read_bytes()
    old = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + old].ljust(length)
    path = tmp_path / "m.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + header + data[8 + old :])
    assert path.read_bytes()[:2] in {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"}
    assert _open(path).fingerprint() == _open(fake_model_file).fingerprint()


def test_our_model_embeds_what_its_backbone_gives(fake_model_file: Path) -> None:
    model = _open(fake_model_file)
    assert isinstance(model, TorchModel)
    assert (model.name, model.arch, model.template) == (
        "tiny.safetensors",
        "mobilefacenet",
        "arcface",
    )
    pictures = _pictures(3)
    found = model.raw_embed(pictures)
    assert (found.shape, found.dtype) == ((3, FAKE_DIM), np.float32)
    batch = torch.from_numpy((pictures / 255.0 - 0.5) / 0.5).float().permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = model.backbone(batch.contiguous()).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    one_by_one = np.concatenate([model.raw_embed(pictures[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(found, one_by_one, rtol=1e-4, atol=1e-5)


def test_half_precision_comes_close_and_is_said(fake_model_file: Path) -> None:
    exact, _ = normalize(_open(fake_model_file).embed(_pictures(3)))
    model = _open(fake_model_file, precision="bf16")
    assert model.precision == "bf16"
    rounded, _ = normalize(model.embed(_pictures(3)))
    assert rounded.dtype == np.float32
    assert not np.array_equal(rounded, exact)
    assert (rounded * exact).sum(1).min() > 0.99


def test_a_flip_adds_the_embedding_of_the_mirror_image(fake_model: FakeModel) -> None:
    pictures = _pictures(2)
    expected = fake_model.raw_embed(pictures) + fake_model.raw_embed(pictures[:, :, ::-1].copy())
    np.testing.assert_array_equal(fake_model.embed(pictures, flip=True), expected)
    assert not np.array_equal(fake_model.embed(pictures), expected)


def test_pictures_reach_the_model_in_its_colour_order_and_scale() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    picture = _pictures(1)
    for color in ("rgb", "bgr"):
        preprocessing = FakeModel().preprocessing
        preprocessing = type(preprocessing)(image_size=FAKE_SIZE, color=color, mean=mean, std=std)
        found = normalize_pictures(torch.from_numpy(picture), preprocessing).numpy()
        for channel in range(3):
            seen = picture[0, :, :, channel if color == "rgb" else 2 - channel]
            expected = (seen / 255 - mean[channel]) / std[channel]
            np.testing.assert_allclose(found[0, channel], expected, rtol=1e-5, atol=1e-6)


def test_the_classifier_answers_with_probabilities(fake_model_file: Path, tmp_path: Path) -> None:
    model = _open(fake_model_file)
    embeddings = model.raw_embed(_pictures(2))
    content = read_model(fake_model_file)
    logits = embeddings @ content.head["weight"].numpy().T + content.head["bias"].numpy()
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(model.classify(embeddings), expected, rtol=1e-4)
    content.head, content.record.head, content.record.class_names = {}, None, None
    write_model(tmp_path / "bare.safetensors", content)
    with pytest.raises(InputError, match="holds no classifier"):
        _open(tmp_path / "bare.safetensors").classify(embeddings)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("image_size", 112),
        ("mean", (0.0, 0.0, 0.0)),
        ("std", (1.0, 1.0, 1.0)),
        ("color", "rgb"),
        ("preset", "imagenet"),
    ],
)
def test_a_fact_that_our_file_records_itself_may_not_be_given(
    fake_model_file: Path, option: str, value: Any
) -> None:
    with pytest.raises(InputError, match=f"drop --{option.replace('_', '-')}"):
        _open(fake_model_file, **{option: value})
    with pytest.raises(InputError, match=f"drop --{option.replace('_', '-')}"):
        describe(ModelOptions(path=fake_model_file, **{option: value}))


# --- what a foreign file does not say ----------------------------------------------------------


def test_mean_and_std_that_nobody_gives_are_an_error_that_names_the_presets(
    tmp_path: Path,
) -> None:
    path = mean_color_graph(tmp_path / "m.onnx")
    for options in ({}, {"mean": (0.5,) * 3}, {"std": (0.5,) * 3}, {"color": "rgb"}):
        with pytest.raises(InputError, match=r"--preset imagenet\|insightface\|adaface\|facenet"):
            _open(path, image_size=16, **options)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_gives_mean_std_colour_and_alignment(name: str, tmp_path: Path) -> None:
    model = _open(mean_color_graph(tmp_path / "m.onnx"), preset=name, image_size=16)
    preset = PRESETS[name]
    found = model.preprocessing
    assert (found.mean, found.std, found.color) == (preset.mean, preset.std, preset.color)
    assert model.template == preset.template
    # The graph gives the mean of each channel as it got it.
    picture = np.zeros((1, 16, 16, 3), np.uint8) + np.array([255, 51, 0], np.uint8)
    seen = np.array([1, 0.2, 0])[:: -1 if preset.color == "bgr" else 1]
    expected = (seen - preset.mean) / preset.std
    np.testing.assert_allclose(model.raw_embed(picture)[0], expected, rtol=1e-4, atol=1e-5)


def test_what_is_given_beats_the_preset(tmp_path: Path) -> None:
    path = mean_color_graph(tmp_path / "m.onnx")
    given = {"mean": (0.0, 0.0, 0.0), "color": "rgb", "image_size": 20, "template": "facenet"}
    model = _open(path, preset="adaface", **given)
    found = model.preprocessing
    assert (found.mean, found.std, found.color) == ((0, 0, 0), (0.5, 0.5, 0.5), "rgb")
    assert (found.image_size, model.template) == ((20, 20), "facenet")
    assert _open(path, preset="adaface").preprocessing.image_size == (112, 112)


def test_a_size_that_nobody_gives_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give --image-size"):
        _open(mean_color_graph(tmp_path / "m.onnx"), preset="imagenet")


def test_a_size_that_contradicts_the_graph_is_an_error(tmp_path: Path) -> None:
    path = mean_color_graph(tmp_path / "m.onnx", shape=("n", 24, 16, 3), layout=NHWC)
    assert _open(path, preset="insightface").preprocessing.image_size == (24, 16)
    with pytest.raises(InputError, match="drop --image-size"):
        _open(path, preset="insightface", image_size=16)


def test_a_colour_that_nobody_gives_is_said_to_be_taken_for_rgb(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = mean_color_graph(tmp_path / "m.onnx")
    half = (0.5, 0.5, 0.5)
    with caplog.at_level(logging.WARNING):
        assert _open(path, mean=half, std=half, image_size=16).preprocessing.color == "rgb"
    assert "--color" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16"}, "drop --precision"),
        ({"preset": "none"}, "no preset named 'none'"),
        ({"std": (0.0, 1.0, 1.0)}, "above 0"),
        ({"mean": (float("nan"), 1.0, 1.0)}, "three numbers"),
        ({"mean": (127.5, 127.5, 127.5)}, "divide those of 0..255 by 255"),
    ],
)
def test_options_that_do_not_go_with_an_onnx_model_are_errors(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = mean_color_graph(tmp_path / "m.onnx")
    with pytest.raises(InputError, match=message):
        _open(path, **{"preset": "insightface", **options})


# --- devices and lengths -----------------------------------------------------------------------


def test_a_gpu_that_is_not_there_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(InputError, match="no GPU"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == "cuda"
    assert resolve_device("cuda:1") == "cuda:1"
    with pytest.raises(InputError, match="2 GPUs"):
        resolve_device("cuda:2")


def test_an_onnxruntime_without_gpu_says_so_and_runs_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import onnxruntime

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    path = mean_color_graph(tmp_path / "m.onnx")
    assert _open(path, preset="insightface", device="auto").device == "cpu"
    with pytest.raises(InputError, match="onnxruntime-gpu"):
        _open(path, preset="insightface", device="cuda", engine="onnx")


def test_rows_become_of_unit_length_and_zeros_stay() -> None:
    rows = np.array([[3.0, 4.0], [0.0, 0.0]])
    units, norms = normalize(rows)
    assert units.dtype == norms.dtype == np.float32
    np.testing.assert_allclose(units[0], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(units[1], [0, 0])
    np.testing.assert_allclose(norms, [5, 0], rtol=1e-6)
