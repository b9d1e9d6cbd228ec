"""Which engine and precision run a model, settled on the user's own pictures.

What can run the model is tried on a few pictures for a second or two each, and the way that has all
pictures done first is taken, the time to compile included. What was measured is remembered for the
machine and the model, so that a second run does not measure again. For few pictures nothing is
measured at all: the way that is usually the fastest here is taken.

Interrupted work must go on in the way it began: give the `engine`, `precision` and `compiled` of
the model that began it in `ModelOptions`, and nothing is left to choose.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field, replace

import numpy as np

from faceidx.errors import FaceidxError, JobError
from faceidx.models.device import resolve_device
from faceidx.models.engines import Way, build, fast_precisions, natural
from faceidx.models.face_model import Compiled, FaceModel
from faceidx.models.fidelity import Fidelity, compare
from faceidx.models.measure import Trial, measure_apart, rate_of
from faceidx.models.open import ModelOptions, open_exact, open_model
from faceidx.models.openvino_model import is_installed
from faceidx.models.remembered import CLOSED, Measured, keep, machine_key, recall

__all__ = ["Fidelity", "choose_model", "sample_size"]

logger = logging.getLogger(__name__)

# A precision that is not asked for is never less true to float32 than this, in any picture of the
# sample.
LEAST_COSINE = 0.999
# Pictures that fidelity is measured on: one of so many, within bounds. Embedding them once more in
# float32 must not cost a small job more than it gains.
_SHARE, _FEWEST, _MOST = 32, 4, 64
# Below so many pictures measuring takes longer than it can save.
_WORTH_MEASURING = 5000
# Seconds for a rate that decides nothing but how the work is shared out.
_GLANCE = 0.2
# What it takes to compile and to try it, and what that gains, on two cores (benchmarks/results.md):
# to tell whether it is worth trying where it was not measured yet. By torch for an iresnet50; as
# oneDNN's graph, which small networks gain from, for a MobileFaceNet: 1.6 where the processor
# multiplies matrices, 1.2 elsewhere. On a GPU it gains more, as what lies between the convolutions
# is bound by memory there; so much is a guess. Half of what it takes there is counted, since it is
# paid once for all models of an architecture.
_COMPILING: dict[Compiled, tuple[float, float]] = {True: (45.0, 1.15), "onednn": (6.0, 1.6)}
_COMPILING_ON_GPU = (15.0, 1.5)
# What took longer to compile may be much sooner there the next time, but for importing the
# compiler: torch keeps what it has compiled.
_KEPT_FROM, _IMPORTING = 10.0, 3.0


def choose_model(
    options: ModelOptions,
    sample: np.ndarray,
    *,
    images: int,
    batch_size: int | None,
    flip: bool = False,
    remember: bool = True,
    exact: FaceModel | None = None,
) -> FaceModel:
    """Open a model for many pictures, with the engine and precision that suit them.

    Args:
        sample: (N, H, W, 3) uint8 RGB of the model's input size: `sample_size` of the pictures.
        images: how many pictures are to be embedded in all.
        batch_size: pictures a batch; None leaves it to the engine.
        remember: use what was measured before, and keep what is measured now.
        exact: what `open_exact` made of the options, where that was asked for already.

    Returns:
        The model, whose `fidelity` says how true it is to float32 of the file's natural engine;
        None where it is that.

    Raises:
        InputError: as `open_model`.
        JobError: int8 has no picture to be calibrated on.
    """
    if not len(sample):
        if options.precision == "int8":
            raise JobError(
                "--precision int8 is calibrated on the first pictures, and none of them can be "
                "used; give another precision"
            )
        return open_model(options, batch_size=batch_size)
    device = resolve_device(options.device)
    exact = exact or open_exact(options)
    trial = _Trials(
        options=options,
        exact=exact,
        device=device,
        batch_size=batch_size,
        sample=sample[: sample_size(images)],
        flip=flip,
    )
    ways = _ways(exact, options, device)
    if len(ways) == 1:
        model = trial.built(ways[0])
        model.fidelity = trial.fidelity(ways[0])
        if device.startswith("cuda") and images >= _WORTH_MEASURING:
            model.rate = rate_of(model, trial.sample, longest=_GLANCE)
        return model
    key = machine_key(exact.weights, exact.preprocessing, device=device)
    known = recall(key) if remember else {}
    if not trial.as_told:
        ways = [way for way in ways if not _known(way, known).untrue]
    if images >= _WORTH_MEASURING:
        trial.measure([way for way in ways if not way.compiled], known)
        for way in ways:
            as_it_is = _known(replace(way, compiled=False), known)
            hopeless = as_it_is.untrue and not trial.as_told  # it is as true compiled
            if way.compiled and not hopeless and _compiling_pays(way, known, images, device):
                trial.measure([way], known)
    model = trial.choose(_ordered(ways, known, images, trial), known)
    if remember and trial.news:
        keep(key, known)
    if measured := known.get(str(natural(model))):
        model.rate = measured.rate
    return model


def sample_size(images: int) -> int:
    """Pictures that are enough for a sample of so many."""
    return min(_MOST, max(_FEWEST, images // _SHARE))


@dataclass(kw_only=True)
class _Trials:
    """Ways to run a model, built and tried on a few pictures."""

    options: ModelOptions
    exact: FaceModel
    device: str
    batch_size: int | None
    sample: np.ndarray
    flip: bool
    news: bool = False
    """Whether something was measured."""
    _models: dict[Way, FaceModel] = field(default_factory=dict)
    _seconds: dict[Way, float] = field(default_factory=dict)
    _fidelity: dict[Way, Fidelity | None] = field(default_factory=dict)
    _wanted: np.ndarray | None = None

    @property
    def as_told(self) -> bool:
        """Whether the precision was asked for, however true it is."""
        return self.options.precision != "auto"

    def built(self, way: Way) -> FaceModel:
        if way not in self._models:
            self._models[way], self._seconds[way] = self._build(way)
        return self._models[way]

    def is_built(self, way: Way) -> bool:
        """Whether the time to build it is spent already."""
        return way in self._models

    def _build(self, way: Way) -> tuple[FaceModel, float]:
        began = time.perf_counter()
        model = build(
            self.exact,
            way,
            device=self.device,
            batch_size=self.batch_size,
            sample=self.sample,
        )
        return model, time.perf_counter() - began

    def _seconds_later(self, way: Way) -> float:
        """What it takes to build a way when that was done before on this machine."""
        first = self._seconds[way]
        if way.compiled is not True or first < _KEPT_FROM:
            return first
        _, again = self._build(way)
        return min(first, again + _IMPORTING)

    def fidelity(self, way: Way) -> Fidelity | None:
        """How true a way is to float32; None for float32 itself, or where nothing can be said."""
        if way == natural(self.exact):
            return None
        if self._wanted is None:
            self._wanted = self.exact.embed(self.sample, flip=self.flip)
        if way not in self._fidelity:
            found = self.built(way).embed(self.sample, flip=self.flip)
            self._fidelity[way] = compare(found, self._wanted)
        return self._fidelity[way]

    def is_untrue(self, way: Way) -> bool:
        """Whether a way is not to be taken, unless its precision was asked for."""
        fidelity = self.fidelity(way)
        return fidelity is not None and fidelity.least < LEAST_COSINE

    def measure(self, ways: list[Way], known: dict[str, Measured]) -> None:
        """Add to `known` how fast each way is, where it is not known yet."""
        for way in ways:
            before = known.get(str(way))
            if before is not None and (before.rate or before == CLOSED):
                continue
            best = max((m.rate for m in known.values() if not m.untrue), default=0.0)
            try:
                measured = self._measured(way, best / 2)
                # What cannot be taken must not make the others look too slow to be worth a trial.
                leads = measured.rate > best and self.is_built(way) and not self.as_told
                untrue = _known(way, known).untrue or (leads and self.is_untrue(way))
            except FaceidxError as error:  # a way that is closed here
                logger.debug("%s: %s", way, error)
                continue
            known[str(way)] = replace(measured, untrue=untrue)
            self.news = True

    def _measured(self, way: Way, enough: float) -> Measured:
        if way.compiled == "onednn":  # what is seldom used crashes more often than the rest
            return measure_apart(
                Trial(
                    options=self.options,
                    way=way,
                    device=self.device,
                    batch_size=self.batch_size,
                    sample=self.sample,
                    enough=enough,
                )
            )
        rate = rate_of(self.built(way), self.sample, enough=enough)
        return Measured(rate=rate, seconds=self._seconds_later(way))

    def choose(self, ways: list[Way], known: dict[str, Measured]) -> FaceModel:
        """The first way that can be built and is true to float32; those that are not get known.

        Raises:
            InputError: none can be built; what the last one says.
        """
        failure: FaceidxError | None = None
        for way in ways:
            try:
                model = self.built(way)
                fidelity = self.fidelity(way)
            except FaceidxError as error:
                logger.debug("%s: %s", way, error)
                failure = error
                continue
            if fidelity is None and way != natural(self.exact) and not self.as_told:
                # Float32 gives the sample no direction. Others may hide what is wrong with it: NaN
                # behind the maximum of NaN and 0 is 0 in some.
                logger.info("%s is passed over: nothing can be said of it", way)
                continue
            if self.is_untrue(way) and not self.as_told:
                logger.info(
                    "%s is passed over: least cosine %.4f", way, fidelity and fidelity.least
                )
                known[str(way)] = replace(_known(way, known), untrue=True)
                self.news = True
                continue
            model.fidelity = fidelity
            return model
        if failure is not None:
            raise failure
        return self.exact


def _ways(exact: FaceModel, options: ModelOptions, device: str) -> list[Way]:
    """Every way that the options leave open, the usually fastest first."""
    fast = fast_precisions(device)
    engines, precisions = [options.engine], [options.precision]
    if options.engine == "auto":
        natural_here = [exact.engine] if exact.device == device else []
        extra = ["openvino"] if device == "cpu" and is_installed() else []
        engines = list(dict.fromkeys([*extra, "torch", *natural_here]))
        if options.precision == "int8":
            engines = [*extra, "onnx"]
    if options.precision == "auto":
        precisions = [*fast, "fp32"]
    return [
        Way(engine=engine, precision=precision, compiled=compiled)
        for precision in precisions
        for engine in engines
        for compiled in _compilers(options, engine, precision, device, first=precisions[0])
        if engine != "onnx" or precision in ("fp32", "int8") or options.precision != "auto"
    ]


def _compilers(
    options: ModelOptions, engine: str, precision: str, device: str, *, first: str
) -> list[Compiled]:
    if engine != "torch" or precision == "int8":
        return [False]
    if options.compiled is not None:
        return [options.compiled]
    if precision != first:  # one precision is compiled for trial, not two
        return [False]
    return [False, "onednn", True] if (device, precision) == ("cpu", "bf16") else [False, True]


def _known(way: Way, known: dict[str, Measured]) -> Measured:
    return known.get(str(way), Measured())


def _compiling_pays(way: Way, known: dict[str, Measured], images: int, device: str) -> bool:
    """Whether so many pictures may be done sooner by a way that is to be compiled first."""
    if str(way) in known:
        return False
    fastest = max((m.rate for m in known.values() if not m.untrue), default=0.0)
    if not fastest:
        return True
    same = _known(replace(way, compiled=False), known)
    on_gpu = device.startswith("cuda")
    seconds, gain = _COMPILING_ON_GPU if on_gpu else _COMPILING[way.compiled]
    hoped = same.rate * gain or fastest
    return images / hoped + seconds < images / fastest


def _ordered(ways: list[Way], known: dict[str, Measured], images: int, trial: _Trials) -> list[Way]:
    """Ways by when they have all pictures done; those not measured as they were, compiled last."""

    def done(way: Way) -> float:
        measured = _known(way, known)
        if not measured.rate:
            return math.inf
        return images / measured.rate + (0.0 if trial.is_built(way) else measured.seconds)

    def is_open(way: Way) -> bool:
        untried = CLOSED if way.compiled == "onednn" else None  # it may crash
        return known.get(str(way), untried) != CLOSED

    return sorted(filter(is_open, ways), key=lambda way: (done(way), bool(way.compiled)))
