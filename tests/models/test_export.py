from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from faceidx.errors import InputError, JobError
from faceidx.images.preprocess import Preprocessing
from faceidx.models import export as module
from faceidx.models.about import describe
from faceidx.models.export import CLASSES, INPUT, OPSET, OUTPUT, ExportOptions, export
from faceidx.models.file import ModelFile, read_model, write_model
from faceidx.models.open import ModelOptions, model_shape, open_model
from faceidx.models.record import Head, ModelRecord
from faceidx.models.registry import create_backbone
from faceidx.models.torch_model import normalize_pictures
from tests.conftest import FAKE_SIZE, RunCli
from tests.models.onnx_graphs import mean_color_graph
from tests.models.reference_nets import randomize

_HALF = (0.5, 0.5, 0.5)
_NAMES = (b"anna", b"bert", "chloé".encode(), b"chlo\\u00e9")


def _pictures(count: int, size: tuple[int, int] = FAKE_SIZE) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def _open(path: Path, **options: Any) -> Any:
    return open_model(ModelOptions(path=path, **{"device": "cpu", **options}))


def _written(path: Path, arch: str, size: tuple[int, int]) -> Path:
    backbone = randomize(create_backbone(arch, embedding_dim=24, image_size=size))
    record = ModelRecord(
        arch=arch,
        embedding_dim=24,
        preprocessing=Preprocessing(image_size=size, color="bgr", mean=_HALF, std=_HALF),
        template="arcface",
    )
    write_model(path, ModelFile(record=record, backbone=dict(backbone.state_dict()), head={}))
    return path


@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("mobilefacenet", (48, 32)),
        ("iresnet18", (32, 32)),
        ("resnet10", (32, 32)),
        ("hybrid", (112, 112)),
        ("hybrid_wide", (112, 112)),
        ("inception_resnet_v1", (80, 80)),
        ("mobilefacenet_relu6", (32, 32)),
        ("torchvision_resnet18_fc", (40, 40)),
    ],
)
def test_the_graph_embeds_batches_of_any_size_as_torch_does_and_needs_no_preset(
    arch: str, size: tuple[int, int], tmp_path: Path
) -> None:
    ours = _written(tmp_path / "m.safetensors", arch, size)
    result = export(ExportOptions(model=ModelOptions(path=ours), out=tmp_path / "m.onnx"))
    assert result["least_cosine"] > 0.99999
    assert result["largest_difference"] < 1e-3
    theirs, model = _open(tmp_path / "m.onnx"), _open(ours)
    assert theirs.engine == "onnx" and theirs.batched
    assert theirs.preprocessing == model.preprocessing
    assert (theirs.template, theirs.arch) == ("arcface", arch)
    assert theirs.fingerprint() == model.fingerprint() == result["fingerprint"]
    assert model_shape(ModelOptions(path=tmp_path / "m.onnx")) == (model.preprocessing, "arcface")
    for count in (1, 3):
        wanted = model.raw_embed(_pictures(count, size))
        scale = np.linalg.norm(wanted, axis=1).max()
        found = theirs.raw_embed(_pictures(count, size))
        np.testing.assert_allclose(found / scale, wanted / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        ("softmax", (3, 24)),
        ("arcface", (3, 24)),
        ("sphereface", (3, 24)),
        ("subcenter-arcface", (3, 3, 24)),
    ],
)
def test_the_classifier_goes_along_as_a_second_output(
    loss: str, shape: tuple[int, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = read_model(_written(tmp_path / "m.safetensors", "mobilefacenet", FAKE_SIZE))
    content.head = {"weight": torch.randn(shape, generator=torch.Generator().manual_seed(0))}
    content.record.head, content.record.class_names = Head(loss=loss, scale=8.0), ["a", "b", "c"]
    write_model(tmp_path / "m.safetensors", content)
    out = tmp_path / "m.onnx"
    result = export(ExportOptions(model=ModelOptions(path=tmp_path / "m.safetensors"), out=out))
    assert (result["classes"], result["opset"]) == (3, OPSET)
    graph = onnx.load(out)
    onnx.checker.check_model(graph, full_check=True)
    assert [o.version for o in graph.opset_import] == [OPSET]
    assert [o.name for o in graph.graph.output] == [OUTPUT, CLASSES]
    model = _open(tmp_path / "m.safetensors")
    batch = normalize_pictures(torch.from_numpy(_pictures(2)), model.preprocessing)
    session = onnxruntime.InferenceSession(out)
    embeddings, probabilities = session.run([OUTPUT, CLASSES], {INPUT: batch.contiguous().numpy()})
    np.testing.assert_allclose(probabilities, model.classify(embeddings), rtol=1e-4, atol=1e-6)
    caplog.clear()
    exported = _open(out)
    assert exported.class_names == ["a", "b", "c"]
    np.testing.assert_array_equal(exported.classify(embeddings), model.classify(embeddings))
    assert not caplog.text
    ours, theirs = (describe(ModelOptions(path=p)) for p in (tmp_path / "m.safetensors", out))
    same = ("arch", "embedding_dim", "fingerprint", "fingerprint_flip", "classes", "head")
    assert {name: theirs[name] for name in same} == {name: ours[name] for name in same}
    assert theirs["head"] == {"loss": loss, "scale": 8.0}


def test_a_classifier_that_a_tool_has_changed_counts_as_none(
    fake_model_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.onnx"
    export(ExportOptions(model=ModelOptions(path=fake_model_file), out=out))
    graph = onnx.load(out)
    weight = next(t for t in graph.graph.initializer if t.name == "head_weight")
    weight.name = "head_weight_quantized"
    for node in graph.graph.node:
        node.input[:] = [n if n != "head_weight" else weight.name for n in node.input]
    onnx.save(graph, out)
    with pytest.raises(InputError, match="holds no classifier"):
        _open(out).classify(np.zeros((1, 24), np.float32))


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_without_class_names_no_name_is_in_any_byte_and_the_embedding_is_the_same(
    suffix: str, fake_model_file: Path, tmp_path: Path
) -> None:
    whole, bare = tmp_path / f"whole{suffix}", tmp_path / f"bare{suffix}"
    options = ModelOptions(path=fake_model_file)
    export(ExportOptions(model=options, out=whole))
    result = export(ExportOptions(model=options, out=bare, class_names=False))
    assert result["classes"] == 0
    assert any(name in whole.read_bytes() for name in _NAMES)
    assert not [name for name in _NAMES if name in bare.read_bytes()]
    assert _open(bare).fingerprint() == _open(whole).fingerprint()
    np.testing.assert_allclose(
        _open(bare).raw_embed(_pictures(2)), _open(whole).raw_embed(_pictures(2)), rtol=1e-5
    )
    if suffix == ".safetensors":
        assert read_model(bare).head == {}
    else:
        assert [o.name for o in onnx.load(bare).graph.output] == [OUTPUT]


def test_a_graph_changed_after_its_record_counts_as_another_model(
    fake_model_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "m.onnx"
    export(ExportOptions(model=ModelOptions(path=fake_model_file), out=out))
    before = _open(out).fingerprint()
    graph = onnx.load(out)
    weights = next(t for t in graph.graph.initializer if t.dims == [4] or len(t.dims) == 4)
    values = onnx.numpy_helper.to_array(weights) * np.float32(1.01)
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    onnx.save(graph, tmp_path / "changed.onnx")
    changed = _open(tmp_path / "changed.onnx")
    assert changed.fingerprint() != before
    assert changed.preprocessing == _open(out).preprocessing
    assert "was changed after faceidx wrote its record" in caplog.text


def test_the_graph_says_which_faceidx_made_it_and_its_record_still_holds(
    fake_model_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "m.onnx"
    result = export(ExportOptions(model=ModelOptions(path=fake_model_file), out=out))
    found = describe(ModelOptions(path=out))
    assert found["training"]["producer"] == f"faceidx {version('faceidx')}"
    assert found["fingerprint"] == result["fingerprint"]
    assert "was changed after" not in caplog.text


def test_facts_that_an_exported_graph_records_may_not_be_given(
    fake_model_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.onnx"
    export(ExportOptions(model=ModelOptions(path=fake_model_file), out=out))
    with pytest.raises(InputError, match="drop --preset"):
        _open(out, preset="imagenet")


def test_a_graph_that_gives_other_embeddings_is_never_written(
    fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = module.onnx_graph

    def wrong(backbone: torch.nn.Module, *args: Any, **kwargs: Any) -> onnx.ModelProto:
        other = create_backbone("mobilefacenet", embedding_dim=24, image_size=FAKE_SIZE)
        return right(randomize(other, seed=9), *args, **kwargs)

    model = _written(tmp_path / "m.safetensors", "mobilefacenet", FAKE_SIZE)
    monkeypatch.setattr(module, "onnx_graph", wrong)
    with pytest.raises(JobError, match="other embeddings than torch"):
        export(ExportOptions(model=ModelOptions(path=model), out=tmp_path / "m.onnx"))
    assert not (tmp_path / "m.onnx").exists()


def test_a_foreign_graph_is_imported_with_its_record_and_keeps_its_fingerprint(
    tmp_path: Path, run_cli: RunCli
) -> None:
    path, out = mean_color_graph(tmp_path / "theirs.onnx"), tmp_path / "ours.onnx"
    given = ("--preset", "adaface", "--image-size", "16")
    result = run_cli.json("models", "import", path, *given, "--out", out)
    assert (result["color"], result["image_size"]) == ("bgr", [16, 16])
    direct, ours = _open(path, preset="adaface", image_size=16), _open(out)
    assert ours.fingerprint() == direct.fingerprint() == result["fingerprint"]
    info = run_cli.json("models", "info", path, *given)
    assert info["fingerprint"] == result["fingerprint"]
    np.testing.assert_array_equal(ours.raw_embed(_pictures(2)), direct.raw_embed(_pictures(2)))
    _, told = run_cli("models", "import", path, "--out", tmp_path / "x.onnx", code=2)
    assert "--preset imagenet|insightface|adaface|facenet" in told
    _, told = run_cli("models", "import", path, *given, "--out", tmp_path / "x.safetensors", code=2)
    assert "becomes an .onnx" in told


def test_export_refuses_what_it_cannot_do(
    fake_model_file: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    words = ("models", "export", fake_model_file, "--out")
    assert "ends in .onnx or .safetensors" in run_cli(*words, tmp_path / "m.pth", code=2)[1]
    run_cli(*words, tmp_path / "m.onnx")
    assert "--overwrite" in run_cli(*words, tmp_path / "m.onnx", code=2)[1]
    run_cli(*words, tmp_path / "m.onnx", "--overwrite")
    _, told = run_cli("models", "export", tmp_path / "m.onnx", "--out", tmp_path / "n.onnx", code=2)
    assert "ONNX file already" in told
    assert "no such model file" in run_cli("models", "export", "none", "--out", "n.onnx", code=2)[1]


def test_a_full_disk_leaves_no_graph(
    fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(JobError):
        export(ExportOptions(model=ModelOptions(path=fake_model_file), out=tmp_path / "m.onnx"))
    assert list(tmp_path.iterdir()) == []
