from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from faceidx.errors import InputError
from faceidx.images.preprocess import load
from faceidx.models.about import describe
from faceidx.models.importing import ImportOptions, import_model
from faceidx.models.onnx_model import OnnxModel
from faceidx.models.open import ModelOptions, open_model
from tests.models.onnx_graphs import NHWC, mean_color_graph, projection, reshape_graph, save


def _open(path: Path, **options: Any) -> OnnxModel:
    given = {"device": "cpu", "preset": "insightface", **options}
    model = open_model(ModelOptions(path=path, **given))
    assert isinstance(model, OnnxModel)
    return model


def _pictures(count: int, height: int = 4, width: int = 4) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def _expected(pictures: np.ndarray) -> np.ndarray:
    batch = ((pictures / 255.0 - 0.5) / 0.5).transpose(0, 3, 1, 2).reshape(len(pictures), -1)
    return batch @ projection(batch.shape[1])


def test_a_batch_of_a_real_model_is_what_single_pictures_are(shared_data: Path) -> None:
    model = _open(shared_data / "weights" / "mobilefacenet_foamliu.onnx", preset="imagenet")
    assert (model.embedding_dim, model.preprocessing.image_size) == (128, (112, 112))
    files = sorted((shared_data / "lfw-dev").glob("*/*.jpg"))[:5]
    pictures = np.stack([load(file, (112, 112)) for file in files])
    together = model.raw_embed(pictures)
    alone = np.concatenate([model.raw_embed(pictures[i : i + 1]) for i in range(5)])
    assert together.shape == (5, 128)
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4 * np.abs(alone).max())
    assert model.batched


@pytest.mark.parametrize("as_node", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_a_fixed_batch_size_is_freed(batch: int, as_node: bool, tmp_path: Path) -> None:
    model = _open(reshape_graph(tmp_path / "m.onnx", batch=batch, as_node=as_node))
    assert model.batched
    for count in (1, 2, 5):
        pictures = _pictures(count)
        np.testing.assert_allclose(
            model.raw_embed(pictures), _expected(pictures), rtol=1e-4, atol=1e-4
        )


def test_a_free_batch_size_is_used_as_it_is(tmp_path: Path) -> None:
    path = reshape_graph(tmp_path / "m.onnx", batch="n", target=[-1, 48])
    model = _open(path)
    assert model.batched
    np.testing.assert_allclose(
        model.raw_embed(_pictures(4)), _expected(_pictures(4)), rtol=1e-4, atol=1e-4
    )


def _batch_mixer(path: Path, batch: int | str) -> Path:
    """A graph that takes the mean over the whole batch: right for the fixed size alone."""
    nodes = [
        helper.make_node("Reshape", ["x", "flat_shape"], ["flat"]),
        helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Add", ["flat", "mean"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "w"], ["y"]),
    ]
    constants = {"flat_shape": np.array([-1, 48], dtype=np.int64), "w": projection(48)}
    return save(path, nodes, constants, shape=(batch, 3, 4, 4), output=(batch, 5))


def test_a_graph_whose_rows_depend_on_the_batch_runs_picture_by_picture(tmp_path: Path) -> None:
    model = _open(_batch_mixer(tmp_path / "m.onnx", 1))
    assert not model.batched
    pictures = _pictures(3)
    # Alone, the mean of a batch is the picture itself: twice the picture.
    np.testing.assert_allclose(
        model.raw_embed(pictures), 2 * _expected(pictures), rtol=1e-4, atol=1e-4
    )


def test_a_batch_that_is_free_by_name_alone_is_run_picture_by_picture(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    graphs = [
        reshape_graph(tmp_path / "fails.onnx", batch="n", target=[1, 48]),
        _batch_mixer(tmp_path / "mixes.onnx", "n"),
    ]
    for path, times in zip(graphs, (1, 2), strict=True):
        out = path.with_name(f"imported-{path.name}")
        model = ModelOptions(path=path, preset="insightface")
        import_model(ImportOptions(model=model, out=out))
        for model in (_open(path), _open(out, preset=None)):
            assert not model.batched
            found = model.raw_embed(_pictures(3))
            np.testing.assert_allclose(found, times * _expected(_pictures(3)), rtol=1e-4, atol=1e-4)
    assert "onnxruntime" not in capfd.readouterr().err  # a trial that failed is no error


def test_a_batch_size_above_one_that_cannot_be_freed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batches of 4 and nothing else"):
        _open(_batch_mixer(tmp_path / "m.onnx", 4))


def test_channels_may_come_last(tmp_path: Path) -> None:
    path = mean_color_graph(tmp_path / "m.onnx", shape=("n", 6, 4, 3), layout=NHWC)
    pictures = _pictures(2, 6, 4)
    model = _open(path)
    assert model.channels_last
    expected = (pictures.mean((1, 2)) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(model.raw_embed(pictures), expected, rtol=1e-4, atol=1e-5)


def test_an_output_of_n_d_1_1_counts_as_n_d(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=1)]
    path = save(tmp_path / "m.onnx", nodes, {}, shape=("n", 3, 4, 4), output=("n", 3, 1, 1))
    assert _open(path).raw_embed(_pictures(2)).shape == (2, 3)


def test_of_several_outputs_the_first_is_taken_which_one_line_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "m.onnx"
    graph = onnx.load(mean_color_graph(path, shape=("n", 3, 4, 4)))
    graph.graph.node.append(helper.make_node("Relu", ["y"], ["nor\nm"]))
    graph.graph.output.append(helper.make_tensor_value_info("nor\nm", TensorProto.FLOAT, ("n", 3)))
    onnx.save(graph, path)
    assert _open(path).embedding_dim == 3
    assert (
        "m.onnx: its first output, y, is taken for the embedding; left out: nor\\nm" in caplog.text
    )


def test_graphs_that_are_no_face_models_are_errors(tmp_path: Path) -> None:
    def graph(name: str, op: str, shape: Any, output: Any, **attributes: Any) -> Path:
        nodes = [helper.make_node(op, ["x"], ["y"], **attributes)]
        return save(tmp_path / name, nodes, {}, shape=shape, output=output)

    text = tmp_path / "text.onnx"
    text.write_text("this is no model")
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    two = tmp_path / "two.onnx"
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 3, 4, 4)) for n in "ab"]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3, 4, 4))]
    onnx.save(
        helper.make_model(
            helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", inputs, out)
        ),
        two,
    )
    for path, message in (
        (text, "no readable ONNX|no ONNX model"),
        (empty, "no ONNX model"),
        (two, "takes 2 inputs"),
        (graph("flat.onnx", "Relu", ("n", 48), ("n", 48)), "three-channel pictures"),
        (graph("grey.onnx", "Relu", ("n", 1, 4, 4), ("n", 1, 4, 4)), "three-channel pictures"),
        (graph("op.onnx", "NoSuchOp", ("n", 3, 4, 4), ("n", 3)), "cannot be run"),
        (graph("one.onnx", "ReduceMean", ("n", 3, 4, 4), (1,), keepdims=0), "is one number"),
        (graph("map.onnx", "Relu", ("n", 3, 4, 4), ("n", 3, 4, 4)), r"a map of \(3, 4, 4\)"),
    ):
        with pytest.raises(InputError, match=message) as error:
            _open(path)
        assert "\n" not in str(error.value)


# --- data beside the model ---------------------------------------------------------------------


def _external(path: Path, location: str) -> Path:
    """A linear map whose weights lie in another file, as exporters do with large models."""
    model = onnx.load(reshape_graph(path, batch="n", target=[-1, 48]))
    weights = next(t for t in model.graph.initializer if t.name == "w")
    data = numpy_helper.to_array(weights).tobytes()
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    target = path.parent / location
    if not target.exists():
        target.write_bytes(data)
    return path


def test_data_in_the_folder_of_the_model_are_read_and_fingerprinted(tmp_path: Path) -> None:
    model = _open(_external(tmp_path / "m.onnx", "m.data"))
    np.testing.assert_allclose(
        model.raw_embed(_pictures(2)), _expected(_pictures(2)), rtol=1e-4, atol=1e-4
    )
    data = bytearray((tmp_path / "m.data").read_bytes())
    data[3] ^= 1
    (tmp_path / "m.data").write_bytes(data)
    assert _open(tmp_path / "m.onnx").weights != model.weights


@pytest.mark.parametrize("how", ["parent", "absolute", "link", "missing"])
def test_data_outside_the_folder_of_the_model_are_refused(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.data"
    secret.write_bytes(projection(48).tobytes())
    location = {"parent": "../secret.data", "absolute": str(secret)}.get(how, "m.data")
    if how == "link":
        (folder / "m.data").symlink_to(secret)
    path = _external(folder / "m.onnx", location)
    if how == "missing":
        (folder / "m.data").unlink()
    with pytest.raises(InputError, match="not in its folder"):
        _open(path)


def test_data_that_a_node_refers_to_are_held_to_the_same_rule(tmp_path: Path) -> None:
    secret = tmp_path / "secret.data"
    secret.write_bytes(projection(48).tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(48, 5))
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.data")
    nodes = [
        helper.make_node("Constant", [], ["w"], value=tensor),
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    path = save(folder / "m.onnx", nodes, {}, shape=("n", 3, 4, 4), output=("n", 5))
    with pytest.raises(InputError, match="not in its folder"):
        _open(path)
    assert secret.read_bytes() == projection(48).tobytes()


def test_data_cut_short_are_an_error(tmp_path: Path) -> None:
    path = _external(tmp_path / "m.onnx", "m.data")
    (tmp_path / "m.data").write_bytes(b"short")
    with pytest.raises(InputError) as error:
        _open(path)
    assert "m.onnx" in str(error.value)


# --- what it says of itself --------------------------------------------------------------------


def test_a_description_holds_what_the_graph_says_and_no_more(tmp_path: Path) -> None:
    facts = describe(ModelOptions(path=reshape_graph(tmp_path / "m.onnx", batch=1)))
    assert (facts["kind"], facts["embedding_dim"], facts["image_size"]) == ("onnx", 5, [4, 4])
    assert facts["parameters"] == 48 * 5 + 2
    assert facts["mean"] is facts["fingerprint"] is None
    free = mean_color_graph(tmp_path / "free.onnx")
    facts = describe(ModelOptions(path=free, preset="imagenet"))  # neither says a picture size
    assert (facts["color"], facts["std"]) == ("rgb", [0.229, 0.224, 0.225])
    assert facts["fingerprint"] is facts["image_size"] is None


def test_an_output_of_n_d_1_1_is_described_as_n_d_and_a_free_one_as_unknown(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=1)]
    for output, dim in ((("n", 3, 1, 1), 3), (("n", "d", 1, 1), None), ((), None)):
        path = save(tmp_path / "m.onnx", nodes, {}, shape=("n", 3, 4, 4), output=output)
        assert describe(ModelOptions(path=path, preset="imagenet"))["embedding_dim"] == dim


def test_a_graph_of_ours_or_of_nan_is_not_imported(tmp_path: Path) -> None:
    path, out = mean_color_graph(tmp_path / "m.onnx", shape=("n", 3, 4, 4)), tmp_path / "out.onnx"
    import_model(ImportOptions(model=ModelOptions(path=path, preset="insightface"), out=out))
    with pytest.raises(InputError, match="has its own record of preprocessing; drop --preset"):
        describe(ModelOptions(path=out, preset="insightface"))
    again = ImportOptions(model=ModelOptions(path=out), out=tmp_path / "again.onnx")
    with pytest.raises(InputError, match="is a model of faceidx already"):
        import_model(again)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["m", "w"], ["y"]),
    ]
    constants = {"w": np.array([1, np.nan, 1], np.float32)}
    save(path, nodes, constants, shape=("n", 3, 4, 4), output=("n", 3))
    with pytest.raises(InputError, match="its embeddings are not finite"):
        import_model(replace(again, model=ModelOptions(path=path, preset="insightface")))
    assert not again.out.exists()


def test_a_graph_is_known_by_its_content_too(tmp_path: Path) -> None:
    path = reshape_graph(tmp_path / "m.onnx", batch="n", target=[-1, 48])
    wanted = _open(path).raw_embed(_pictures(2))
    path = path.rename(tmp_path / "m.bin")
    np.testing.assert_array_equal(_open(path).raw_embed(_pictures(2)), wanted)
    assert describe(ModelOptions(path=path))["kind"] == "onnx"


def test_our_file_is_described_without_running_it(fake_model_file: Path, tmp_path: Path) -> None:
    facts = describe(ModelOptions(path=fake_model_file))
    model = open_model(ModelOptions(path=fake_model_file, device="cpu"))
    assert facts["fingerprint"] == model.fingerprint()
    assert facts["fingerprint_flip"] == model.fingerprint(flip=True)
    assert (facts["classes"], facts["head"]) == (3, {"loss": "softmax", "scale": 1.0})
    copy = tmp_path / "copy.safetensors"
    shutil.copy(fake_model_file, copy)
    assert describe(ModelOptions(path=copy)) == {**facts, "model": str(copy)}


_ONE_OF_CHANNELS = {name: np.ones(3, np.float32) for name in ("scale", "bias", "mean", "var")}


@pytest.mark.parametrize(
    ("nodes", "opset"),
    [
        ([helper.make_node("Dropout", ["x", "half", "yes"], ["kept"])], 13),
        (
            [
                helper.make_node(
                    "BatchNormalization",
                    ["x", *_ONE_OF_CHANNELS],
                    ["kept", "m", "v"],
                    training_mode=1,
                )
            ],
            14,
        ),
        (
            [
                helper.make_node(
                    "BatchNormalization", ["x", *_ONE_OF_CHANNELS], ["kept", "m", "v", "s", "t"]
                )
            ],
            13,
        ),
    ],
    ids=["dropout", "norm", "old norm"],
)
@pytest.mark.parametrize("batch", [1, "n"])
def test_a_graph_exported_in_training_mode_is_refused(
    batch: int | str, nodes: list[onnx.NodeProto], opset: int, tmp_path: Path
) -> None:
    constants = {
        **_ONE_OF_CHANNELS,
        "half": np.array(0.5, np.float32),
        "yes": np.array(True),
        "flat": np.array([0, 48]),
        "w": projection(48),
    }
    rest = [
        helper.make_node("Reshape", ["kept", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["y"]),
    ]
    used = {name for node in [*nodes, *rest] for name in node.input}
    path = save(
        tmp_path / "m.onnx",
        [*nodes, *rest],
        {name: value for name, value in constants.items() if name in used},
        shape=(batch, 3, 4, 4),
        output=(batch, 5),
    )
    model = onnx.load(path)
    model.opset_import[0].version = opset
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"m.onnx gives a picture another embedding each time"):
        _open(path)
    with pytest.raises(InputError, match="export it in evaluation mode"):
        import_model(
            ImportOptions(
                model=ModelOptions(path=path, preset="insightface"), out=tmp_path / "out.onnx"
            )
        )
    assert not (tmp_path / "out.onnx").exists()


def _normalising(path: Path, *, as_nodes: bool = False) -> Path:
    """A graph that makes (x - 127.5) / 128 of its pictures itself."""
    constants = {"m": np.array([127.5], np.float32), "s": np.array([128], np.float32)}
    nodes = [
        helper.make_node("Sub", ["x", "m"], ["less"]),
        helper.make_node("Div", ["less", "s"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["y"], axes=[2, 3], keepdims=0),
    ]
    if as_nodes:
        made = [
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
            for name, value in constants.items()
        ]
        nodes, constants = [*made, *nodes], {}
    return save(path, nodes, constants, shape=("n", 3, 4, 4), output=("n", 3))


@pytest.mark.parametrize("as_nodes", [False, True])
def test_pictures_that_would_be_normalised_twice_draw_a_warning(
    as_nodes: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _normalising(tmp_path / "m.onnx", as_nodes=as_nodes)
    _open(path)
    assert "m.onnx takes a mean from its pictures itself, beside the one given" in caplog.text
    caplog.clear()
    pictures = _pictures(2)
    model = _open(path, preset=None, mean=(0, 0, 0), std=(0.0039216,) * 3, color="rgb")
    wanted = (pictures.mean((1, 2)) - 127.5) / 128
    np.testing.assert_allclose(model.raw_embed(pictures), wanted, rtol=1e-4, atol=1e-4)
    _open(reshape_graph(tmp_path / "plain.onnx", batch="n", target=[-1, 48]))
    assert caplog.text == ""


def test_a_graph_that_leads_back_to_itself_is_an_error_and_no_loop(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["x"])]
    path = save(tmp_path / "m.onnx", nodes, {}, shape=("n", 3, 4, 4), output=("n", 3))
    with pytest.raises(InputError, match="cannot be run by onnxruntime"):
        _open(path)
