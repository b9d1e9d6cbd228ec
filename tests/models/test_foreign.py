from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from faceidx.errors import InputError
from faceidx.images.preprocess import load
from faceidx.models.about import describe
from faceidx.models.face_model import FaceModel
from faceidx.models.importing import ImportOptions, import_model
from faceidx.models.open import ModelOptions, model_shape, open_model
from faceidx.models.registry import create_backbone
from tests.conftest import RunCli, draw
from tests.models.onnx_graphs import mean_color_graph
from tests.models.reference_nets import FaceNet, FoamliuNet, InsightFaceNet, IRNet, randomize

_DIM = 16
_SIDE = 32
_HALF = (0.5, 0.5, 0.5)
_GIVEN: dict[str, Any] = {"mean": _HALF, "std": _HALF, "color": "rgb", "image_size": _SIDE}


def _options(path: Path, **changes: Any) -> ModelOptions:
    return ModelOptions(path=path, device="cpu", **{**_GIVEN, **changes})


def _pictures(count: int = 2, side: int = _SIDE) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def _embedded(network: nn.Module, pictures: np.ndarray) -> np.ndarray:
    """What a reference gives for pictures in RGB, scaled to -1..1."""
    batch = torch.from_numpy((pictures / 127.5 - 1).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return network(batch.contiguous()).numpy()


def _insightface(layers: tuple[int, ...] = (2, 2, 2, 2)) -> nn.Module:
    return randomize(InsightFaceNet(list(layers), _DIM, _SIDE // 16))


def _torchvision(depth: int, fc: int) -> nn.Module:
    return randomize(getattr(torchvision.models, f"resnet{depth}")(num_classes=fc))


def _pooled(depth: int, fc: int) -> nn.Module:
    network = _torchvision(depth, fc)
    network.fc = nn.Identity()
    return network


# Family -> (its network, its size, the architecture it is to be recognised as).
_NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, str]] = {
    "insightface r18": (_insightface, _SIDE, "iresnet18"),
    "insightface r34": (lambda: _insightface((3, 4, 6, 3)), _SIDE, "iresnet34"),
    "adaface ir18": (lambda: randomize(IRNet([2, 2, 2, 2], _DIM, 2)), _SIDE, "iresnet18"),
    "adaface ir50": (lambda: randomize(IRNet([3, 4, 14, 3], _DIM, 2)), _SIDE, "iresnet50"),
    "evolve ir18": (
        lambda: randomize(IRNet([2, 2, 2, 2], _DIM, 2, norm=False)),
        _SIDE,
        "iresnet18",
    ),
    "facenet": (lambda: randomize(FaceNet(_DIM, 7)), 96, "inception_resnet_v1"),
    "foamliu": (lambda: randomize(FoamliuNet(_DIM, 2)), _SIDE, "mobilefacenet_relu6"),
    "torchvision fc": (lambda: _torchvision(18, 128), _SIDE, "torchvision_resnet18_fc"),
    "torchvision r50 fc": (lambda: _torchvision(50, 512), _SIDE, "torchvision_resnet50_fc"),
}


def _assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    """To 1e-5 of the embedding's length."""
    lengths = np.linalg.norm(wanted, axis=1, keepdims=True)
    assert lengths.min() > 0.1
    np.testing.assert_allclose(found / lengths, wanted / lengths, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", _NETWORKS)
def test_a_network_embeds_as_its_own_project_runs_it_directly_and_imported(
    family: str, tmp_path: Path
) -> None:
    make, side, arch = _NETWORKS[family]
    network = make()
    path = tmp_path / "theirs.pth"
    torch.save(network.state_dict(), path)
    wanted = _embedded(network, _pictures(side=side))
    direct = open_model(_options(path, image_size=side))
    _assert_close(direct.raw_embed(_pictures(side=side)), wanted)
    assert (direct.arch, direct.embedding_dim) == (arch, wanted.shape[1])
    out = tmp_path / "ours.safetensors"
    result = import_model(ImportOptions(model=_options(path, image_size=side), out=out))
    imported = open_model(ModelOptions(path=out, device="cpu"))
    _assert_close(imported.raw_embed(_pictures(side=side)), wanted)
    assert imported.fingerprint() == direct.fingerprint() == result["fingerprint"]
    assert (result["arch"], imported.preprocessing) == (arch, direct.preprocessing)
    assert arch in result["recognised"]


def test_the_last_layer_for_1000_classes_is_left_out_of_a_torchvision_network(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(_torchvision(18, 1000).state_dict(), tmp_path / "imagenet.pth")
    model = open_model(_options(tmp_path / "imagenet.pth"))
    _assert_close(model.raw_embed(_pictures()), _embedded(_pooled(18, 1000), _pictures()))
    assert (model.arch, model.embedding_dim) == ("torchvision_resnet18", 512)
    assert "left out: fc (taken for a classifier)" in caplog.text


def test_a_last_layer_that_may_be_either_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "people.pth"
    torch.save(_torchvision(18, 632).state_dict(), path)
    with pytest.raises(InputError, match=r"--fc embedding\|classifier"):
        open_model(_options(path))
    whole = open_model(_options(path, fc="embedding"))
    assert whole.embedding_dim == 632
    _assert_close(whole.raw_embed(_pictures()), _embedded(_torchvision(18, 632), _pictures()))
    pooled = open_model(_options(path, fc="classifier"))
    _assert_close(pooled.raw_embed(_pictures()), _embedded(_pooled(18, 632), _pictures()))


def test_the_last_layer_is_told_to_every_command_that_takes_a_model(
    run_cli: RunCli, tmp_path: Path
) -> None:
    path, picture = tmp_path / "people.pth", tmp_path / "one.png"
    torch.save(_torchvision(18, 632).state_dict(), path)
    draw(picture, seed=1)
    facts = ("--preset", "imagenet", "--image-size", 32, "--device", "cpu")
    words = ("embed", picture, "--model", path, *facts, "--out", tmp_path / "one.h5")
    assert "--fc embedding|classifier" in run_cli(*words, code=2)[1]
    assert run_cli.json(*words, "--fc", "embedding")["dim"] == 632


@pytest.mark.parametrize("dim", [128, 632])
def test_a_last_layer_behind_dropout_is_one_like_any_other(tmp_path: Path, dim: int) -> None:
    network = _torchvision(18, dim)
    wanted = _embedded(network, _pictures())
    network.fc = nn.Sequential(nn.Dropout(), network.fc)
    path = tmp_path / "people.pth"
    torch.save(network.state_dict(), path)
    _assert_close(open_model(_options(path, fc="embedding")).raw_embed(_pictures()), wanted)
    if dim == 128:
        assert open_model(_options(path)).embedding_dim == 128
    else:
        with pytest.raises(InputError, match=r"--fc embedding\|classifier"):
            open_model(_options(path))


def test_an_embedding_that_is_asked_for_and_cannot_be_told_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "people.pth"
    network = _torchvision(18, 128)
    layers = nn.Sequential(network.fc, nn.BatchNorm1d(128)), nn.Sequential(nn.PReLU(), network.fc)
    bias_alone = {"fc.1.bias": torch.zeros(128)}
    for last, more in ((layers[0], {}), (layers[1], {}), (nn.Identity(), {}), (None, bias_alone)):
        network.fc = last
        torch.save({**network.state_dict(), **more}, path)
        with pytest.raises(InputError, match="no fc that is one linear layer"):
            open_model(_options(path, fc="embedding"))
        assert open_model(_options(path, fc="classifier")).embedding_dim == 512
        if isinstance(last, nn.Identity):
            assert open_model(_options(path)).embedding_dim == 512
        else:  # an embedding may be normalised behind a linear layer
            with pytest.raises(InputError, match=r"of several layers.*--fc classifier leaves it"):
                open_model(_options(path))


def test_a_last_layer_that_is_told_where_there_is_none_to_tell_is_an_error(
    fake_model_file: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.pth"
    network = create_backbone("iresnet18", embedding_dim=_DIM, image_size=(_SIDE, _SIDE))
    torch.save(network.state_dict(), bare)
    graph = mean_color_graph(tmp_path / "m.onnx", shape=("n", 3, 32, 32))
    for path in (bare, graph):
        with pytest.raises(InputError, match="--fc is for the last layer of a torchvision ResNet"):
            open_model(_options(path, fc="embedding"))
    with pytest.raises(InputError, match="drop --fc"):
        open_model(ModelOptions(path=fake_model_file, fc="embedding"))


@pytest.mark.parametrize(
    ("arch", "size"), [("mobilefacenet", 32), ("resnet10", 32), ("resnet50", 48), ("iresnet18", 32)]
)
def test_a_bare_backbone_of_ours_is_recognised(arch: str, size: int, tmp_path: Path) -> None:
    backbone = randomize(create_backbone(arch, embedding_dim=_DIM, image_size=(size, size)))
    torch.save(backbone.state_dict(), tmp_path / "bare.pth")
    model = open_model(_options(tmp_path / "bare.pth", image_size=size))
    assert model.arch == arch
    found = model.raw_embed(_pictures(side=size))
    _assert_close(found, _embedded(backbone, _pictures(side=size)))


def test_a_trained_mobilefacenet_gives_real_faces_what_its_own_onnx_export_gives(
    shared_data: Path, tmp_path: Path
) -> None:
    """The export has its norms folded into the convolutions; taken apart again, they are weights
    of foamliu's network with norms that do nothing but shift."""
    import onnx

    theirs = shared_data / "weights" / "mobilefacenet_foamliu.onnx"
    graph = onnx.load(theirs).graph
    values = {
        t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in graph.initializer
    }
    folded = [node.input for node in graph.node if node.op_type == "Conv"]
    network = FoamliuNet(128, 7)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    # The order of the modules is that of the graph but for the two norms of the second layer.
    for (_, weight, shift), convolution, norm in zip(folded, convolutions, norms, strict=True):
        nn.init.constant_(norm.running_var, 1 - norm.eps)
        with torch.no_grad():
            convolution.weight.copy_(values[weight])
            norm.bias.copy_(values[shift])
            if convolution.bias is not None:
                convolution.bias.zero_()
    torch.save({"model": network.state_dict()}, tmp_path / "mobilefacenet.pt")
    faces = sorted((shared_data / "lfw-dev").rglob("*.jpg"))[:4]
    pictures = np.stack([load(face, (112, 112)) for face in faces])
    given = {"preset": "imagenet", "image_size": 112, "device": "cpu"}
    ours = open_model(ModelOptions(path=tmp_path / "mobilefacenet.pt", **given))
    wanted = open_model(ModelOptions(path=theirs, engine="onnx", **given)).raw_embed(pictures)
    _assert_close(ours.raw_embed(pictures), wanted)


# --- the wrappings of trainers ------------------------------------------------------------------


def _lightning(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What AdaFace's trainer writes, whose bookkeeping names a class of Lightning."""
    return {
        "epoch": 25,
        "state_dict": {
            **{f"model.{name}": t for name, t in state.items()},
            "head.kernel": torch.zeros(_DIM, 9),
            "head.batch_mean": torch.zeros(1),
        },
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(3)}}}],
        "hyper_parameters": {"arch": "ir_18", "lr": 0.1},
    }


_WRAPPINGS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "lightning": _lightning,
    "module": lambda s: {f"module.{n}": t for n, t in s.items()},
    "backbone": lambda s: {**{f"backbone.{n}": t for n, t in s.items()}, "arcface.weight": s["w"]},
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": OrderedDict(s), "optimizer": {"lr": 0.1}},
    "nested": lambda s: {"net": {"state_dict_backbone": {f"module.{n}": s[n] for n in s}}},
}


@pytest.mark.parametrize("wrapping", _WRAPPINGS)
@pytest.mark.parametrize("legacy", [False, True])
def test_the_wrappings_of_trainers_change_nothing(
    wrapping: str, legacy: bool, tmp_path: Path
) -> None:
    class _State(dict[str, torch.Tensor]):
        def __missing__(self, name: str) -> torch.Tensor:
            return torch.zeros(4, _DIM)

    network = _insightface()
    wrapped = _WRAPPINGS[wrapping](_State(network.state_dict()))
    if wrapping == "state_dict":
        wrapped["state_dict"] = dict(wrapped["state_dict"])
    path = tmp_path / "m.ckpt"
    torch.save(wrapped, path, _use_new_zipfile_serialization=not legacy)
    bare = tmp_path / "bare.pth"
    torch.save(network.state_dict(), bare)
    model = open_model(_options(path))
    _assert_close(model.raw_embed(_pictures()), _embedded(network, _pictures()))
    assert model.fingerprint() == open_model(_options(bare)).fingerprint()


def test_classes_that_lightning_names_stand_for_nothing(tmp_path: Path) -> None:
    """Published AdaFace checkpoints name the callback that wrote them, which is not needed."""
    import sys
    import types

    name = "pytorch_lightning.callbacks.model_checkpoint"
    parts = [".".join(name.split(".")[: i + 1]) for i in range(3)]
    modules = {part: types.ModuleType(part) for part in parts}
    callback = type("ModelCheckpoint", (), {"__module__": name})
    modules[name].ModelCheckpoint = callback  # type: ignore[attr-defined]
    network = randomize(IRNet([2, 2, 2, 2], _DIM, 2))
    checkpoint = _lightning(network.state_dict())
    checkpoint["callbacks"] = {callback: {"best_model_score": torch.ones(())}, "it": callback()}
    with pytest.MonkeyPatch.context() as patch:
        for part, module in modules.items():
            patch.setitem(sys.modules, part, module)
        torch.save(checkpoint, tmp_path / "adaface.ckpt")
    model = open_model(_options(tmp_path / "adaface.ckpt"))
    _assert_close(model.raw_embed(_pictures()), _embedded(network, _pictures()))


def test_half_precision_weights_are_those_of_their_float32(tmp_path: Path) -> None:
    network = _insightface().half()
    torch.save(network.state_dict(), tmp_path / "half.pth")
    network = network.float()
    torch.save(network.state_dict(), tmp_path / "float.pth")
    half, whole = (open_model(_options(tmp_path / f"{n}.pth")) for n in ("half", "float"))
    assert half.fingerprint() == whole.fingerprint()
    _assert_close(half.raw_embed(_pictures()), _embedded(network, _pictures()))


def test_weights_without_counters_or_scale_of_the_last_norm_are_filled_in(tmp_path: Path) -> None:
    network = _insightface()
    with torch.no_grad():
        network.features.weight.fill_(1)
        network.features.bias.zero_()
    state = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked") and name not in ("features.weight",)
    }
    torch.save({n: t for n, t in state.items() if n != "features.bias"}, tmp_path / "old.pth")
    found = open_model(_options(tmp_path / "old.pth")).raw_embed(_pictures())
    _assert_close(found, _embedded(network, _pictures()))


def test_bare_safetensors_are_recognised_too(tmp_path: Path) -> None:
    network = _insightface()
    save_file({f"net.{n}": t for n, t in network.state_dict().items()}, tmp_path / "m.safetensors")
    found = open_model(_options(tmp_path / "m.safetensors")).raw_embed(_pictures())
    _assert_close(found, _embedded(network, _pictures()))


# --- what is refused ----------------------------------------------------------------------------


def _changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    state = dict(_insightface().state_dict())
    change(state)
    return state


def _two_networks(state: dict[str, Any]) -> None:
    state.update({f"ema.{name}": tensor for name, tensor in list(state.items())})


def _two_families(state: dict[str, Any]) -> None:
    student = randomize(FoamliuNet(_DIM, 2)).state_dict()
    teacher = {f"teacher.{name}": state.pop(name) for name in list(state)}
    state.update(teacher | {f"student.{name}": tensor for name, tensor in student.items()})


_WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda s: s.pop("layer2.1.conv1.weight"), "lacks layer2.1.conv1.weight"),
    "no last layer": (lambda s: s.pop("fc.weight"), "lacks fc.weight"),
    "unknown": (lambda s: s.update({"layer1.0.se.fc.weight": torch.ones(2)}), "holds layer1.0.se"),
    "shape": (
        lambda s: s.update({"conv1.weight": torch.ones(64, 3, 5, 5)}),
        "a variant that is not known",
    ),
    "number": (lambda s: s.update({"fc.weight": torch.ones(())}), "lacks fc.weight"),
    "blocks": (lambda s: s.update({"layer4.2.bn1.bias": torch.ones(2)}), r"\[2, 2, 2, 3\] blocks"),
    "whole numbers": (
        lambda s: s.update({"conv1.weight": s["conv1.weight"].to(torch.int8)}),
        "no plain numbers",
    ),
    "beyond float32": (
        lambda s: s.update({"fc.bias": torch.full_like(s["fc.bias"], 1e300, dtype=torch.float64)}),
        "not finite",
    ),
    "not finite": (lambda s: s["fc.bias"].fill_(float("nan")), "not finite"),
    "two": (_two_networks, "several networks"),
    "two of different families": (_two_families, r"several networks \('teacher\.' and that of"),
    "other": (lambda s: (s.clear(), s.update(a=torch.ones(2))), "no network that faceidx knows"),
    "empty": (lambda s: s.clear(), "no named tensors"),
}


@pytest.mark.parametrize("wrong", _WRONG)
def test_weights_that_do_not_fit_are_one_clear_line(wrong: str, tmp_path: Path) -> None:
    change, message = _WRONG[wrong]
    path = tmp_path / "m.pth"
    torch.save(_changed(change), path)
    with pytest.raises(InputError, match=message) as error:
        open_model(_options(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_no_name_in_a_file_starts_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = {f"net.{name}": tensor for name, tensor in _insightface().state_dict().items()}
    torch.save({**state, "x\nerror: all is lost": torch.ones(2)}, tmp_path / "m.pth")
    open_model(_options(tmp_path / "m.pth"))
    assert r"left out: x\nerror: all is lost" in caplog.text


def test_a_squeezed_ir_network_is_refused(tmp_path: Path) -> None:
    state = randomize(IRNet([2, 2, 2, 2], _DIM, 2)).state_dict()
    state["body.0.res_layer.6.fc1.weight"] = torch.ones(4, 64, 1, 1)
    torch.save(state, tmp_path / "se.pth")
    with pytest.raises(InputError, match=r"holds body\.0\.res_layer\.6\.fc1\.weight"):
        open_model(_options(tmp_path / "se.pth"))


def test_a_size_that_the_weights_contradict_is_named(tmp_path: Path) -> None:
    torch.save(_insightface().state_dict(), tmp_path / "m.pth")
    with pytest.raises(InputError, match="is --image-size right"):
        open_model(_options(tmp_path / "m.pth", image_size=112))
    torch.save(randomize(FoamliuNet(_DIM, 2)).state_dict(), tmp_path / "m.pth")
    with pytest.raises(InputError, match="is --image-size right"):
        open_model(_options(tmp_path / "m.pth", image_size=112))
    torch.save(randomize(FaceNet(_DIM, 7)).state_dict(), tmp_path / "f.pth")
    with pytest.raises(InputError, match="give 75 or more"):
        open_model(_options(tmp_path / "f.pth", image_size=64))


def test_even_a_recognised_file_must_be_told_its_preprocessing(tmp_path: Path) -> None:
    path = tmp_path / "backbone.pth"
    torch.save(_insightface().state_dict(), path)
    for given in ({}, {"mean": _HALF}, {"std": _HALF}, {"color": "bgr", "image_size": 32}):
        options = ModelOptions(path=path, device="cpu", **given)
        for command in (open_model, model_shape):
            with pytest.raises(InputError, match=r"--preset imagenet\|insightface\|adaface"):
                command(options)
        with pytest.raises(InputError, match="--preset"):
            import_model(ImportOptions(model=options, out=tmp_path / "out.safetensors"))
    with pytest.raises(InputError, match="give --image-size"):
        open_model(ModelOptions(path=path, device="cpu", preset="imagenet"))
    assert not (tmp_path / "out.safetensors").exists()


def test_the_adaface_preset_feeds_bgr(tmp_path: Path) -> None:
    network = randomize(IRNet([2, 2, 2, 2], _DIM, 2))
    torch.save(_lightning(network.state_dict()), tmp_path / "adaface.ckpt")
    options = ModelOptions(path=tmp_path / "adaface.ckpt", preset="adaface", image_size=_SIDE)
    model: FaceModel = open_model(options)
    flipped = np.ascontiguousarray(_pictures()[..., ::-1])
    _assert_close(model.raw_embed(_pictures()), _embedded(network, flipped))


# --- what is told ---------------------------------------------------------------------------------


def test_info_tells_what_is_known_and_with_a_preset_the_fingerprint(
    tmp_path: Path, run_cli: RunCli
) -> None:
    path = tmp_path / "backbone.pth"
    torch.save(_insightface().state_dict(), path)
    bare = describe(ModelOptions(path=path))
    assert (bare["kind"], bare["arch"], bare["embedding_dim"]) == ("weights", "iresnet18", _DIM)
    assert bare["mean"] is bare["fingerprint"] is bare["image_size"] is None
    words = ("models", "info", path, "--preset", "insightface", "--image-size", _SIDE)
    told = run_cli.json(*words)
    assert told["recognised"] == bare["recognised"]
    some = run_cli.json("models", "info", path, "--preset", "imagenet")  # says no picture size
    assert (some["arch"], some["color"], some["mean"][0]) == ("iresnet18", "rgb", 0.485)
    assert some["fingerprint"] is some["image_size"] is None
    some = run_cli.json("models", "info", path, "--image-size", _SIDE)
    assert some["image_size"] == [_SIDE, _SIDE] and some["fingerprint"] is some["mean"] is None
    assert told["template"] == "arcface"
    assert told["fingerprint"] == open_model(_options(path, template="arcface")).fingerprint()


def test_embed_takes_a_foreign_file_says_what_it_is_and_import_embeds_the_same(
    tmp_path: Path, run_cli: RunCli
) -> None:
    import h5py

    path, out = tmp_path / "backbone.pth", tmp_path / "ours.safetensors"
    torch.save(_insightface().state_dict(), path)
    draw(tmp_path / "people" / "anna" / "1.png", seed=1, size=(_SIDE, _SIDE))
    given = ("--preset", "insightface", "--image-size", _SIDE)
    _, told = run_cli(
        "embed", tmp_path / "people", "--model", path, *given, "--out", tmp_path / "a.h5"
    )
    assert told.count("iresnet18 of InsightFace") == 1
    result = run_cli.json("models", "import", path, *given, "--out", out)
    assert result["source"]["file"] == "backbone.pth"
    assert run_cli.json("models", "info", out)["fingerprint"] == result["fingerprint"]
    run_cli("embed", tmp_path / "people", "--model", out, "--out", tmp_path / "b.h5")
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        assert a.attrs["fingerprint"] == b.attrs["fingerprint"] == result["fingerprint"]
        np.testing.assert_array_equal(a["embeddings"][:], b["embeddings"][:])


def test_import_refuses_what_it_cannot_do(
    tmp_path: Path, run_cli: RunCli, fake_model_file: Path
) -> None:
    path = tmp_path / "backbone.pth"
    torch.save(_insightface().state_dict(), path)
    given = ("--preset", "insightface", "--image-size", _SIDE)
    _, told = run_cli("models", "import", path, *given, "--out", tmp_path / "a.onnx", code=2)
    assert "becomes a .safetensors" in told
    out = tmp_path / "a.safetensors"
    _, told = run_cli("models", "import", fake_model_file, "--out", out, code=2)
    assert "already" in told
    run_cli("models", "import", path, *given, "--out", out)
    before = out.read_bytes()
    _, told = run_cli("models", "import", path, *given, "--out", out, code=2)
    assert "--overwrite" in told
    run_cli("models", "import", path, *given, "--out", out, "--overwrite")
    assert out.read_bytes() == before
