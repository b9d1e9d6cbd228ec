from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.models import choose
from faceidx.models.choose import choose_model
from faceidx.models.engines import Way
from faceidx.models.face_model import FaceModel
from faceidx.models.measure import Trial
from faceidx.models.open import ModelOptions, model_shape, open_model
from faceidx.models.remembered import CLOSED
from tests.conftest import FAKE_SIZE, FakeModel
from tests.models.onnx_graphs import mean_color_graph


def _pictures(count: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, *FAKE_SIZE, 3), dtype=np.uint8)


_GRAPH = "torch bf16 as oneDNN's graph"


class _Machine:
    """Engines of known speed in place of real ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rates = {
            "torch bf16": 200.0,
            "torch fp32": 100.0,
            "torch bf16 compiled": 280.0,
            _GRAPH: 210.0,
        }
        self.noise: dict[str, float] = {}
        self.broken: set[str] = set()
        self.measured: list[str] = []
        self.enough: list[float] = []
        self._way: dict[int, str] = {}
        monkeypatch.setattr(choose, "_WORTH_MEASURING", 500)
        monkeypatch.setattr(choose, "open_exact", lambda _: FakeModel())
        monkeypatch.setattr(choose, "build", self._build)
        monkeypatch.setattr(choose, "fast_precisions", lambda _: ["bf16"])
        monkeypatch.setattr(choose, "is_installed", lambda: False)
        monkeypatch.setattr(choose, "rate_of", self._rate)
        monkeypatch.setattr(choose, "measure_apart", self._apart)

    def _build(self, _: FaceModel, way: Way, **__: Any) -> FaceModel:
        if str(way) in self.broken:
            raise InputError(f"{way} is closed here")
        model = _Noisy(self.noise.get(str(way), 0.001))
        model.engine, model.precision, model.compiled = way.engine, way.precision, way.compiled
        return model

    def _rate(self, model: FaceModel, sample: np.ndarray, enough: float, **_: Any) -> float:
        assert len(sample)
        way = str(Way(engine=model.engine, precision=model.precision, compiled=model.compiled))
        self.measured.append(way)
        self.enough.append(enough)
        return self.rates[way]

    def _apart(self, trial: Trial) -> choose.Measured:
        way = str(trial.way)
        self.measured.append(way)
        return CLOSED if way in self.broken else choose.Measured(rate=self.rates[way], seconds=1)

    def choice(self, images: int, **options: Any) -> str:
        model = choose_model(
            ModelOptions(path=Path("fake"), device="cpu", **options),
            _pictures(16),
            images=images,
            batch_size=8,
        )
        assert model.fidelity is None or model.fidelity.pictures <= 16
        return str(Way(engine=model.engine, precision=model.precision, compiled=model.compiled))


class _Noisy(FakeModel):
    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise

    def raw_embed(self, pictures: np.ndarray) -> np.ndarray:
        rows = super().raw_embed(pictures)
        error = np.random.default_rng(3).normal(size=rows.shape).astype(np.float32)
        return rows + self.noise * np.linalg.norm(rows, axis=1, keepdims=True) * error


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> _Machine:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return _Machine(monkeypatch)


def test_few_pictures_are_not_worth_a_measurement(machine: _Machine) -> None:
    assert machine.choice(50) == "torch bf16"
    assert machine.measured == []


def test_the_fastest_is_taken_and_remembered(machine: _Machine) -> None:
    machine.rates["torch fp32"] = 300.0
    assert machine.choice(2000) == "torch fp32"
    assert machine.measured == ["torch bf16", "torch fp32"]
    assert machine.choice(2000) == "torch fp32"
    assert machine.choice(50) == "torch fp32"  # few pictures gain from what is known
    assert machine.measured == ["torch bf16", "torch fp32"]


def test_compiling_is_tried_where_it_can_pay_alone(machine: _Machine) -> None:
    assert machine.choice(2000) == "torch bf16"
    assert "torch bf16 compiled" not in machine.measured
    assert machine.choice(1_000_000) == "torch bf16 compiled"
    assert machine.measured[-1] == "torch bf16 compiled"


def test_a_graph_of_onednn_is_tried_in_a_process_apart_and_taken_where_it_is_faster(
    machine: _Machine,
) -> None:
    assert machine.choice(2000) == "torch bf16"
    assert _GRAPH not in machine.measured  # it would take longer than it may save
    machine.rates[_GRAPH] = 240.0
    assert machine.choice(20_000) == _GRAPH
    assert machine.choice(1000) == "torch bf16"  # a second to set it up
    # What compiling by torch usually gains is no more than is gained already.
    assert machine.choice(1_000_000) == _GRAPH
    assert machine.measured == ["torch bf16", "torch fp32", _GRAPH]


def test_a_graph_that_crashes_is_never_tried_again_nor_taken(machine: _Machine) -> None:
    machine.broken = {_GRAPH}
    for _ in range(2):
        assert machine.choice(20_000) == "torch bf16"
        assert machine.measured == ["torch bf16", "torch fp32", _GRAPH]
    machine.broken = {*machine.rates}
    with pytest.raises(InputError, match="closed here"):
        machine.choice(20_000)


def test_the_time_to_compile_counts_in_the_choice(
    machine: _Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 280 against 200 images/s: 100 s of compiling are back after 70,000 pictures.
    key = choose.machine_key("0" * 64, FakeModel().preprocessing, device="cpu")
    known = {name: choose.Measured(rate=r, seconds=0.0) for name, r in machine.rates.items()}
    known |= {"torch bf16 compiled": choose.Measured(rate=280.0, seconds=100.0), _GRAPH: CLOSED}
    choose.keep(key, known)
    assert machine.choice(60_000) == "torch bf16"
    assert machine.choice(80_000) == "torch bf16 compiled"
    assert machine.measured == []


def test_what_torch_has_compiled_counts_as_it_does_the_next_time(
    machine: _Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = iter([50.0, 4.0])  # anew, and of what is kept
    clock = 0.0

    def build(_: FaceModel, way: Way, **__: Any) -> FaceModel:
        nonlocal clock
        clock += next(took) if way.compiled is True else 0.0
        return machine._build(_, way)

    monkeypatch.setattr(choose, "build", build)
    monkeypatch.setattr(choose.time, "perf_counter", lambda: clock)
    machine.broken = {_GRAPH}
    # 50 s are spent when it is chosen, whatever comes of it.
    assert machine.choice(500_000) == "torch bf16 compiled"
    key = choose.machine_key("0" * 64, FakeModel().preprocessing, device="cpu")
    assert choose.recall(key)["torch bf16 compiled"].seconds == 4.0 + choose._IMPORTING
    took = iter([4.0])
    assert machine.choice(6000) == "torch bf16 compiled"  # gains 8.6 s
    assert machine.choice(4000) == "torch bf16"


def test_a_precision_that_is_not_true_is_never_chosen_but_obeyed(machine: _Machine) -> None:
    machine.noise["torch bf16"] = 0.05
    assert machine.choice(2000) == "torch fp32"
    assert machine.choice(50) == "torch fp32"
    assert machine.choice(2000, precision="bf16", compiled=False) == "torch bf16"


def test_what_is_fast_but_not_true_keeps_nothing_else_from_being_tried(
    machine: _Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "is_installed", lambda: True)
    machine.rates |= {"openvino bf16": 1000.0, "openvino fp32": 90.0, _GRAPH: 300.0}
    machine.noise["openvino bf16"] = 0.05
    assert machine.choice(20_000) == _GRAPH
    assert all(enough <= 100 for enough in machine.enough)  # half of the best that can be taken


def test_a_model_that_gives_nan_in_float32_is_not_run_by_what_hides_it(
    machine: _Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = FakeModel()
    monkeypatch.setattr(
        broken, "embed", lambda p, flip: np.full((len(p), broken.embedding_dim), np.nan, np.float32)
    )
    monkeypatch.setattr(choose, "open_exact", lambda _: broken)
    assert machine.choice(50) == "torch fp32"
    assert machine.choice(50, precision="bf16") == "torch bf16"  # as told


def test_what_was_not_true_once_is_not_tried_again(
    machine: _Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.noise["torch bf16"] = 0.05
    machine.broken = {_GRAPH}
    assert machine.choice(50) == "torch fp32"
    built: list[str] = []
    build = machine._build
    monkeypatch.setattr(
        choose, "build", lambda exact, way, **k: built.append(str(way)) or build(exact, way, **k)
    )
    assert machine.choice(50) == "torch fp32"
    assert "torch bf16" not in built
    assert machine.choice(2000) == "torch fp32"
    assert machine.measured == ["torch fp32"]
    # What is asked for is measured and taken all the same, and stays what it is.
    assert machine.choice(2000, precision="bf16") == "torch bf16"
    assert machine.choice(2000) == "torch fp32"
    assert machine.choice(1_000_000, precision="bf16") == "torch bf16 compiled"


def test_a_way_that_is_closed_is_passed_over_unless_it_is_the_only_one(machine: _Machine) -> None:
    machine.broken = {"torch bf16", "torch bf16 compiled"}
    assert machine.choice(50) == "torch fp32"
    assert machine.choice(2000) == "torch fp32"
    for images in (50, 2000):
        with pytest.raises(InputError, match="closed here"):
            machine.choice(images, precision="bf16")


def test_interrupted_work_goes_on_as_it_began(machine: _Machine) -> None:
    for options, way in (
        ({"engine": "torch", "precision": "fp32", "compiled": False}, "torch fp32"),
        ({"engine": "torch", "precision": "bf16", "compiled": True}, "torch bf16 compiled"),
        ({"engine": "torch", "precision": "bf16", "compiled": "onednn"}, _GRAPH),
    ):
        assert machine.choice(50, **options) == way
        assert machine.choice(1_000_000, **options) == way
    assert machine.measured == []


def test_nothing_is_remembered_on_request(machine: _Machine) -> None:
    for _ in range(2):
        choose_model(
            ModelOptions(path=Path("fake"), device="cpu"),
            _pictures(16),
            images=2000,
            batch_size=8,
            remember=False,
        )
    assert machine.measured == ["torch bf16", "torch fp32"] * 2


# --- with real engines -------------------------------------------------------------------------


def test_half_precision_says_how_true_it_is(fake_model_file: Path) -> None:
    options = ModelOptions(path=fake_model_file, device="cpu", engine="torch", precision="bf16")
    fidelity = choose_model(options, _pictures(5), images=200, batch_size=4).fidelity
    assert fidelity is not None and fidelity.pictures == 5
    assert 0.99 < fidelity.least <= fidelity.mean < 1


def test_measured_for_real_it_is_as_true_as_promised(fake_model_file: Path) -> None:
    options = ModelOptions(path=fake_model_file, device="cpu")
    model = choose_model(options, _pictures(20), images=2000, batch_size=None, remember=False)
    assert model.fidelity is None or model.fidelity.least >= choose.LEAST_COSINE
    exact = open_model(options)
    assert (exact.engine, exact.precision, exact.fidelity) == ("torch", "fp32", None)
    found, wanted = model.raw_embed(_pictures(30)), exact.raw_embed(_pictures(30))
    np.testing.assert_allclose(found, wanted, atol=0.1 * np.abs(wanted).max())


def test_without_a_picture_nothing_is_measured(fake_model_file: Path) -> None:
    options = ModelOptions(path=fake_model_file, device="cpu")
    model = choose_model(options, _pictures(0), images=0, batch_size=None)
    assert (model.engine, model.precision, model.fidelity) == ("torch", "fp32", None)


def test_what_pictures_a_model_wants_is_told_without_running_it(
    fake_model_file: Path, tmp_path: Path
) -> None:
    preprocessing, template = model_shape(ModelOptions(path=fake_model_file))
    assert (preprocessing.image_size, template) == (FAKE_SIZE, "arcface")
    foreign = ModelOptions(path=mean_color_graph(tmp_path / "m.onnx"), preset="adaface")
    preprocessing, template = model_shape(foreign)
    assert (preprocessing.image_size, preprocessing.color, template) == (
        (112, 112),
        "bgr",
        "arcface",
    )
