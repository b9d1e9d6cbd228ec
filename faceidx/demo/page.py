"""The page that `faceidx demo` leaves behind: one self-contained file, readable by anyone.

It belongs to the family of the reports of `verify-pairs`: the same look, no scripts, and whatever
comes from names of pictures or people is escaped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.resources import files as package_files
from pathlib import Path
from string import Template
from typing import Any, NamedTuple
from urllib.parse import quote

from faceidx.evaluation.markup import card, face, image, page, pair_figure, plural, share, table
from faceidx.files import whole_file
from faceidx.versions import version_of

# Of each kind: enough to see what happens, and few enough for a page of some hundred kilobytes.
_SHOWN = 8
_ROC = "ROC curve: true accept rate against false accept rate, logarithmic."


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One probe beside the gallery picture nearest to it."""

    probe: Path
    truth: str
    """Identity of the probe."""
    enrolled: bool
    """Whether `truth` is in the gallery."""
    match: Path
    answer: str
    """Identity of `match`, whatever the decision."""
    score: float
    decision: str
    """`match` or `unknown`."""
    right: bool


class _Group(NamedTuple):
    name: str
    explanation: str
    samples: list[Sample]
    shown: list[Sample]
    how: str
    """How `shown` was picked, where it is not all."""


def write_page(
    path: Path,
    *,
    facts: Mapping[str, Any],
    roc: str,
    samples: Sequence[Sample],
    files: Sequence[tuple[str, str]],
    commands: Sequence[str],
) -> None:
    """Write the page.

    Args:
        facts: figures as the JSON of `verify-pairs` and `classify` names them (`auc, auc_ci, eer,
            accuracy, tar_at_far, rank1, fpir, fnir, threshold, probes`; None where there is none),
            and `people_trained, pictures_trained, people_unseen, arch, parameters` and `seconds`,
            a mapping of steps to their seconds.
        roc: an SVG document, as `plots.write_plots` leaves it in `roc.svg`.
        samples: every probe; at most eight of each kind are shown.
        files: paths relative to the page, and what they are.
        commands: what a user would type, step by step.

    Raises:
        InputError: the folder of `path` is missing or read-only.
        JobError: the disk is full or failed.
    """
    template = Template((package_files("faceidx.demo") / "page.html").read_text("utf-8"))
    body = template.substitute(
        subtitle=_subtitle(facts),
        verification="\n".join(_verification(facts)),
        asked=_asked(facts),
        identification="\n".join(_identification(facts)),
        legend=_legend(facts),
        samples="\n".join(_group(g, facts["threshold"]) for g in _groups(samples)),
        roc=image(_ROC, roc.encode("utf-8", "xmlcharrefreplace")),
        operating_points=_operating_points(facts["tar_at_far"]),
        seconds=_seconds(facts["seconds"]),
        files=_files(files),
        commands="\n".join(_command(command) for command in commands),
        version=escape(f" {version_of('faceidx') or ''}".rstrip()),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    with whole_file(path) as temporary:
        text = page(title="faceidx demo: drawn faces", body=body)
        temporary.write_text(text, "utf-8", "xmlcharrefreplace")


def _subtitle(facts: Mapping[str, Any]) -> str:
    return escape(
        f"{facts['arch']}, {facts['parameters']:,} parameters, trained on "
        f"{facts['pictures_trained']:,} pictures of {facts['people_trained']:,} drawn people, then "
        f"tried on {facts['people_unseen']:,} other drawn people that it never saw"
    )


def _verification(facts: Mapping[str, Any]) -> Iterator[str]:
    interval = facts["auc_ci"]
    yield card(
        "Area under the ROC curve",
        _number(facts["auc"]),
        f"95 %: {interval[0]:.4f} to {interval[1]:.4f}" if interval else "",
    )
    yield card("Equal error rate", share(facts["eer"], 2), "where both errors are equal")
    yield card("Accuracy", share(facts["accuracy"], 2), "of all pairs, both kinds")
    strictest = min(facts["tar_at_far"], key=lambda point: point["target"], default=None)
    if strictest is not None:
        yield card(
            f"TAR at FAR {strictest['target']:g}",
            share(strictest["tar"], 2),
            plural(strictest["false_matches"], "false match", "false matches"),
        )


def _asked(facts: Mapping[str, Any]) -> str:
    mated, strangers = facts["fnir"]["trials"], facts["fpir"]["trials"]
    return escape(
        f"{plural(facts['probes'], 'probe is', 'probes are')} looked up in a gallery of drawn "
        f"people: {mated:,} of people who are enrolled in it, {strangers:,} of strangers, who are "
        "to come out as unknown."
    )


def _identification(facts: Mapping[str, Any]) -> Iterator[str]:
    rank1, fnir, fpir = facts["rank1"], facts["fnir"], facts["fpir"]
    right = rank1["trials"] - rank1["errors"]
    for name, figure, count, whom in (
        ("Right person nearest (rank 1)", rank1, right, "enrolled"),
        ("Not recognised (FNIR)", fnir, fnir["errors"], "enrolled"),
        ("Taken for somebody (FPIR)", fpir, fpir["errors"], "strangers"),
    ):
        yield card(name, share(figure["value"], 2), f"{count:,} of {figure['trials']:,} {whom}")
    yield card("Threshold", _number(facts["threshold"]), "a match from this score upwards")


def _legend(facts: Mapping[str, Any]) -> str:
    return escape(
        "Left the probe, right the gallery picture nearest to it. The bar is their score, from 0 "
        f"to 1; the mark on it is the threshold, {_number(facts['threshold'])}."
    )


def _groups(samples: Sequence[Sample]) -> Iterator[_Group]:
    """Sort the samples by what became of them; errors worst first."""
    recognised = [s for s in samples if s.right and s.enrolled]
    unknown = [s for s in samples if s.right and not s.enrolled]
    missed = sorted((s for s in samples if not s.right and s.enrolled), key=_place)
    taken = sorted((s for s in samples if not s.right and not s.enrolled), key=_place)
    even, worst = "picked evenly from all", "the worst first"
    yield _Group(
        "Recognised", "Enrolled, and found.", recognised, _evenly(recognised, _SHOWN), even
    )
    yield _Group(
        "Rightly unknown",
        "Strangers, and nobody in the gallery is like enough.",
        unknown,
        _evenly(unknown, _SHOWN),
        even,
    )
    yield _Group(
        "Errors: enrolled, not recognised",
        "Too unlike their own gallery pictures, or more like somebody else's.",
        missed,
        missed[:_SHOWN],
        worst,
    )
    yield _Group(
        "Errors: strangers taken for somebody",
        "Not enrolled, yet like enough to somebody who is.",
        taken,
        taken[:_SHOWN],
        worst,
    )


def _place(error: Sample) -> tuple[bool, float]:
    """The place of an error among others: worse than any miss is a match, the surer the worse."""
    matched = error.decision == "match"
    return not matched, -error.score if matched else error.score


def _evenly(samples: list[Sample], number: int) -> list[Sample]:
    """At most `number` samples, spread over the whole list, so that they show different people."""
    if len(samples) <= number:
        return samples
    return [samples[place * len(samples) // number] for place in range(number)]


def _group(group: _Group, threshold: float) -> str:
    count = f"{len(group.samples):,}"
    if len(group.shown) < len(group.samples):
        count = f"{len(group.shown)} of {count}, {group.how}"
    heading = f'<h3>{escape(group.name)} <span class="count">{escape(count)}</span></h3>'
    if not group.samples:
        return f'{heading}<p class="soft">None.</p>'
    shown = "\n".join(_sample(sample, threshold) for sample in group.shown)
    return (
        f'{heading}<p class="soft">{escape(group.explanation)}</p>'
        f'<div class="pairs">\n{shown}\n</div>'
    )


def _sample(sample: Sample, threshold: float) -> str:
    tag, story = _verdict(sample)
    faces = [
        face(sample.probe, f"Probe, drawn: {sample.truth}"),
        face(sample.match, f"Nearest in the gallery, drawn: {sample.answer}"),
    ]
    return pair_figure(
        faces,
        score=f"{sample.score:.4f}",
        tag=tag,
        lines=[story],
        wrong=not sample.right,
        scale=_scale(sample.score, threshold),
    )


def _verdict(sample: Sample) -> tuple[str, str]:
    """The decision with its verdict in a word or two, and in a sentence."""
    truth, answer = sample.truth, sample.answer
    mark = "\N{CHECK MARK}" if sample.right else "\N{BALLOT X}"
    tag = f"{mark} {sample.decision}, {'right' if sample.right else 'wrong'}"
    if sample.decision == "match":
        if sample.right:
            return tag, f"{truth} is recognised."
        if sample.enrolled:
            return tag, f"{truth} is taken for {answer}."
        return tag, f"{truth} is not in the gallery, yet is taken for {answer}."
    if not sample.enrolled:
        return tag, f"{truth} is not in the gallery; nearest is {answer}."
    if truth == answer:
        return tag, f"{truth} is nearest to the right person, but below the threshold."
    return tag, f"{truth} is in the gallery, but {answer} is nearer."


def _scale(score: float, threshold: float) -> str:
    return (
        f'<div class="scale" aria-hidden="true"><span style="width:{_percent(score)}"></span>'
        f'<i style="left:{_percent(threshold)}"></i></div>'
    )


def _operating_points(points: Sequence[Mapping[str, Any]]) -> str:
    header = ("FAR wanted", "FAR reached", "False matches", "TAR", "Threshold")
    rows = [
        (
            f"{point['target']:g}",
            f"{point['far']:.3g}",
            f"{point['false_matches']:,}",
            f"{point['tar']:.2%}",
            f"{point['threshold']:.4f}",
        )
        for point in points
    ]
    return table(header, rows, numbers=True)


def _seconds(seconds: Mapping[str, float]) -> str:
    longest = max(seconds.values(), default=0.0) or 1.0
    body = "".join(
        _row(
            escape(step[:1].upper() + step[1:]),
            f'<td class="number">{_duration(taken)}</td>',
            '<td class="bar" aria-hidden="true">'
            f'<span style="width:{_percent(taken / longest)}"></span></td>',
        )
        for step, taken in seconds.items()
    )
    total = f'<td class="number">{_duration(sum(seconds.values()))}</td>'
    foot = _row("Together", total, '<td aria-hidden="true"></td>')
    return f"<table><tbody>{body}</tbody><tfoot>{foot}</tfoot></table>"


def _files(files: Iterable[tuple[str, str]]) -> str:
    # "./" makes any name a relative address, whatever it starts with.
    body = "".join(
        _row(
            f'<a href="./{escape(quote(os.fsencode(path)))}">{escape(path)}</a>',
            f"<td>{escape(what)}</td>",
        )
        for path, what in files
    )
    return f"<table><tbody>{body}</tbody></table>"


def _command(command: str) -> str:
    # In words, so that no line ends after the dashes of an option.
    words = " ".join(f"<span>{escape(word)}</span>" for word in command.split(" "))
    return f"<li><code>{words}</code></li>"


def _row(name: str, *cells: str) -> str:
    return f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>'


def _duration(seconds: float) -> str:
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.1f}%"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
