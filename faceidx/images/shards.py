"""Pictures in tar shards: which shards a name stands for, and which pictures they hold, of whom.

The naming is WebDataset's (https://github.com/webdataset/webdataset): members that lie behind one
another and share their name up to the first dot of its last part are one sample, and what follows
that dot says what each is.
"""

from __future__ import annotations

import codecs
import json
import logging
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from faceidx.errors import InputError
from faceidx.images.keys import escape_bytes, escape_key, folder_of, is_picture_name
from faceidx.images.pictures import Picture, Pictures
from faceidx.images.spill import Records, Sorter
from faceidx.images.tar import Archive, Member, compressed, open_tar

logger = logging.getLogger(__name__)

_COMPRESSED = {
    ".gz": "gunzip",
    ".tgz": "gunzip",
    ".bz2": "bunzip2",
    ".xz": "unxz",
    ".zst": "unzstd",
}
_TAR_NAME = re.compile(r"\.(tar|tgz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}")
_RANGE = re.compile(r"(\d{1,12})\.\.(\d{1,12})")
_MOST_SHARDS = 100_000
# Members that are held until the whole sample is known.
_LARGEST_SAMPLE = 1000
_LARGEST_JSON = 1 << 24
_LONGEST_IDENTITY = 4096
_SAID_OF_PICTURES = (b".cls", b".json", b".txt")

# A record is the key, the number of the shard, offset and size of the data, whether the sample
# names the identity, and the identity. No key holds a zero byte, so records are sorted by key.
_PLACE = struct.Struct(">IQQ?")


def named_shards(images: Path) -> list[Path] | None:
    """The shards that a source's name stands for; None where it is a name of something else.

    `{000..009}` and `{a,b}` are expanded, `::` joins several names, `*` and `?` stand for what
    lies there. What exists is taken as it is.

    Raises:
        InputError: the shards are compressed or missing, or the name stands for none.
    """
    text = os.fspath(images)
    # A name of many shards may be longer than any path; of such a one `lexists` is no error.
    is_there = os.path.lexists(images)
    if not _TAR_NAME.search(images.name) or (is_there and images.is_dir()):
        return None
    if is_there:
        names = [text]
    else:
        names = list(islice(_expanded(text), _MOST_SHARDS + 1))
        if len(names) > _MOST_SHARDS:
            raise InputError(f"{images} names more than {_MOST_SHARDS} shards")
        if names == [text]:
            return None
    shards = list(dict.fromkeys(map(Path, names)))
    for shard in shards:
        if shard.suffix.lower() in _COMPRESSED:
            raise compressed(shard, _COMPRESSED[shard.suffix.lower()])
    missing = [shard for shard in shards if not os.path.lexists(shard)]
    if missing:
        raise InputError(
            f"{missing[0]}: no such file ({len(missing)} of {len(shards)} shards are missing)"
        )
    return shards


def _expanded(text: str) -> Iterator[str]:
    for name in text.split("::"):
        for expanded in _without_braces(name):
            last = expanded.rpartition("/")[2]
            if not ("*" in last or "?" in last) or os.path.lexists(expanded):
                yield expanded
                continue
            pattern = Path(expanded)
            matching = pattern.parent.glob(re.sub(r"\*+", "*", pattern.name.replace("[", "[[]")))
            # As in a shell: a hidden file is meant only where it is named.
            shown = (p for p in matching if last.startswith(".") or not p.name.startswith("."))
            found = sorted(map(os.fspath, shown), key=os.fsencode)
            if not found:
                raise InputError(f"{expanded}: no shard has such a name")
            yield from found


def _without_braces(name: str) -> Iterator[str]:
    braces = _BRACES.search(name)
    if braces is None:
        yield name
        return
    for choice in _choices(braces[1]):
        yield from _without_braces(name[: braces.start()] + choice + name[braces.end() :])


def _choices(inside: str) -> Iterable[str]:
    if "," in inside:
        return inside.split(",")
    ends = _RANGE.fullmatch(inside)
    if ends is None:
        raise InputError(f"{{{inside}}} is no range of numbers; write it as {{000..009}}")
    first, last = int(ends[1]), int(ends[2])
    width = max(map(len, ends.groups())) if any(e.startswith("0") for e in ends.groups()) else 0
    step = 1 if last >= first else -1
    return (f"{number:0{width}}" for number in range(first, last + step, step))


def open_shards(shards: Sequence[Path], spill: Path | None) -> tuple[Pictures, int]:
    """Find the pictures in tar shards by reading their headers and the samples' labels.

    A picture's key is its member's name. Its identity is what the sample says (`.cls`, or
    `identity` or `label` of a `.json`), else the member's folder.

    Returns:
        The pictures, and how many files beside them were ignored.

    Raises:
        InputError: a shard cannot be read to its end, a label is broken, or two pictures have one
            name.
        JobError: as `Records`.
    """
    sorter = Sorter(spill)
    ignored = links = astray = 0
    for number, shard in enumerate(shards):
        with open_tar(shard) as archive:
            for sample in _samples(archive.members()):
                pictures = list(_pictures(sample))
                labels = _labels(archive, sample) if pictures else {}
                astray += not pictures and _is_label_alone(archive, sample)
                for member in pictures:
                    identity = _identity(member.name, labels)
                    given = identity is not None
                    place = _PLACE.pack(number, member.offset, member.size, given)
                    key = escape_key(member.name).encode()
                    sorter.add(b"%b\0%b%b" % (key, place, (identity or "").encode()))
                ignored += len(sample) - len(pictures)
                links += sum(not m.is_file and is_picture_name(escape_key(m.name)) for m in sample)
    if links:
        logger.warning(
            "%d links or sparse files in the shards have names of pictures and were ignored; write "
            "shards with tar --dereference --hard-dereference",
            links,
        )
    if astray:
        logger.warning(
            "%d labels in the shards do not lie beside the picture of their name and are ignored, "
            "so identities may be wrong; write each behind its picture (tar --sort=name)",
            astray,
        )

    records = Records(_all_different(shards, sorter.merged()), spill)
    return Pictures(records, partial(_make, list(shards))), ignored


def _make(shards: Sequence[Path], record: bytes) -> Picture:
    raw, _, rest = record.partition(b"\0")
    key = raw.decode()
    number, offset, size, given = _PLACE.unpack_from(rest)
    identity = rest[_PLACE.size :].decode() if given else folder_of(key)
    return Picture(key, identity, shards[number], part=(offset, size))


def _all_different(shards: Sequence[Path], records: Iterable[bytes]) -> Iterator[bytes]:
    before, number_before = b"", 0
    for record in records:
        key, _, rest = record.partition(b"\0")
        number = _PLACE.unpack_from(rest)[0]
        if key == before:
            logger.debug("in the shards twice: %s", key.decode())
            raise InputError(
                f"{shards[number]}: holds a picture of the same name as one in "
                f"{shards[number_before]} (-v shows it); pack each once"
            )
        yield record
        before, number_before = key, number


# --- samples -----------------------------------------------------------------------------------


def _sample_key(name: bytes) -> bytes:
    folder, slash, last = name.rpartition(b"/")
    return folder + slash + last.partition(b".")[0]


def _stem(name: bytes) -> bytes:
    return name.rpartition(b".")[0]


def _samples(members: Iterable[Member]) -> Iterator[list[Member]]:
    """Group members behind one another that share a sample key; folders are left out."""
    held: list[Member] = []
    key = b""
    for member in members:
        if member.is_folder:
            continue
        if held and _sample_key(member.name) != key:
            yield held
            held = []
        elif len(held) >= _LARGEST_SAMPLE:
            # Such as `face.000001.jpg`: no samples of WebDataset's, but labels stay with pictures.
            together = [m for m in held if _stem(m.name) == _stem(member.name)]
            yield [m for m in held if _stem(m.name) != _stem(member.name)]
            held = together
        held.append(member)
        key = _sample_key(member.name)
    if held:
        yield held


def _pictures(sample: Sequence[Member]) -> Iterator[Member]:
    """The pictures of a sample.

    Beside `x.jpg` a picture such as `x.seg.png` is another view of the sample. Where there is no
    such thing as `x.jpg`, dots are a part of the names, as in `J.K._Rowling.jpg`.
    """
    found = [
        member
        for member in sample
        if member.is_file
        and is_picture_name(escape_key(member.name))
        and not _is_hidden(member.name)
    ]
    plain = [member for member in found if _stem(member.name) == _sample_key(member.name)]
    yield from plain or found


def _is_hidden(name: bytes) -> bool:
    return any(part.startswith(b".") and part not in (b".", b"..") for part in name.split(b"/"))


def _labels(archive: Archive, sample: Sequence[Member]) -> dict[bytes, str]:
    """Identities by the name that they are given for; `.cls` beats `.json`."""
    labels: dict[bytes, str] = {}
    for kind, read in ((b".json", _from_json), (b".cls", _from_text)):
        for member in sample:
            if member.is_file and member.name.lower().endswith(kind):
                raw = read(archive, member)
                if raw is not None:
                    labels[_stem(member.name)] = _checked(archive, member, raw)
    return labels


def _is_label_alone(archive: Archive, sample: Sequence[Member]) -> bool:
    """Whether a sample is only what is said of a picture, which lies elsewhere or nowhere."""
    if not all(m.is_file and m.name.lower().endswith(_SAID_OF_PICTURES) for m in sample):
        return False
    try:
        return bool(_labels(archive, sample))
    except InputError:
        return False


def _identity(name: bytes, labels: dict[bytes, str]) -> str | None:
    return labels.get(_stem(name), labels.get(_sample_key(name)))


def _from_text(archive: Archive, member: Member) -> bytes:
    if member.size > _LONGEST_IDENTITY:
        raise _broken(archive, member, "is too long for an identity")
    text = archive.read(member.offset, member.size)
    return text.removeprefix(codecs.BOM_UTF8).strip()


def _from_json(archive: Archive, member: Member) -> bytes | None:
    if member.size > _LARGEST_JSON:
        raise _broken(archive, member, f"has more than {_LARGEST_JSON} bytes")
    try:
        said = json.loads(archive.read(member.offset, member.size))
    except (ValueError, RecursionError):
        raise _broken(archive, member, "is no valid JSON") from None
    if not isinstance(said, dict):
        return None
    for name in ("identity", "label"):
        value = said.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # as tables have numbers of a column in which some are missing
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            return str(value).encode("utf-8", "surrogatepass")
    return None


def _checked(archive: Archive, member: Member, identity: bytes) -> str:
    if b"\0" in identity or len(identity) > _LONGEST_IDENTITY:
        raise _broken(archive, member, "holds no text that could be an identity")
    return escape_bytes(identity)


def _broken(archive: Archive, member: Member, what: str) -> InputError:
    logger.debug("%s: %s %s", archive.path, escape_key(member.name), what)
    return InputError(
        f"{archive.path}: the label at byte {member.offset} {what} (-v names it); mend or leave "
        "it out"
    )
