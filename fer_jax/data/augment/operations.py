"""The operations of `config.augmentation.train`: one table, and the reading of entries such as 'rotate:10,p=0.5'.

An entry is a name, and after a colon its parameters, by place or by name; a range is written low-high. Two groups hold
other entries: 'all_of:0.75(brightness:0.2|contrast:0.2)' and 'one_of:0.5(flip|noise:5.48)'.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fer_jax.data.augment import color, erasing, placement, policies
from fer_jax.errors import UserError, nearest
from fer_jax.parsing import number, whole_number

FIELD = "config.augmentation.train"
GEOMETRY, PIXELS, INPUT = "placement", "pixels", "input"  # what an operation changes; INPUT is after normalization
WINDOWS = ("crop", "crop_scale")
MOST_GROUPS = 99  # inside of a group
NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of an operation.

    Attributes:
        low, high: its range, ends included.
        default: None if it has to be given.
        form: int, float, tuple (a range, written low-high) or str (one of `words`).
        words: values besides numbers.
    """

    low: float = 0.0
    high: float = 1.0
    default: Any = None
    form: type = float
    words: tuple[str, ...] = ()

    def read(self, text: str) -> Any:
        """Returns the value; raises ValueError unless it has the right form and lies in the range."""
        if text in self.words:
            return text
        if self.form is tuple:
            numbers = re.fullmatch(f"({NUMBER})-({NUMBER})", text)
            value = tuple(map(float, numbers.groups())) if numbers else ()
            fits = len(value) == 2 and self.low <= value[0] <= value[1] <= self.high
        else:
            value = {int: whole_number, float: number}.get(self.form, lambda _: None)(text)
            fits = value is not None and self.low <= value <= self.high
        if not fits:
            raise ValueError(text)
        return value

    def valid(self) -> str:
        """Returns the valid values in words."""
        number = {int: "a whole number from ", float: "", tuple: "low-high, low not above high, within "}.get(self.form)
        words = [] if number is None else [f"{number}{self.low:g} to {self.high:g}"]
        return " or ".join([*words, *map(repr, self.words)])


@dataclasses.dataclass(frozen=True)
class Kind:
    """A row of the table.

    Attributes:
        changes: GEOMETRY, PIXELS (values in 0 .. 1) or INPUT.
        help: one line.
        apply: (key, what it changes, **parameters) -> the same, changed.
        streams: the names that its key is derived from.
        parameters: by name, in the order of the places.
        gate: the names that the key of its probability is derived from.
    """

    changes: str
    help: str
    apply: Callable[..., Any]
    streams: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    gate: tuple[str, ...] = ("chosen",)


ALWAYS = {"p": Parameter(default=1.0)}
DEGREES = Parameter(0.0, 180.0)
ASPECT = Parameter(0.01, 100.0, (3 / 4, 4 / 3), tuple)
TALL = dataclasses.replace(ASPECT, default=(0.3, 1 / 0.3))
LIMITED = {"limits": Parameter(default="published", form=str, words=policies.LIMITS)} | ALWAYS

KINDS: Mapping[str, Kind] = {
    "flip": Kind(
        GEOMETRY, "mirror with probability p; alternate: in every other epoch (Jordan, arXiv 2404.00498)",
        placement.flip, ("flip",), {"p": Parameter(default=0.5, words=("alternate",))}, gate=(),
    ),
    "crop": Kind(
        GEOMETRY, "crop side x side stored pixels at a random place; evaluation takes the center crop",
        placement.crop, ("window",), {"side": Parameter(1, 4096, form=int)} | ALWAYS,
    ),
    "crop_scale": Kind(
        GEOMETRY, "random-resized crop: a share of the area, with a log-uniform width / height",
        placement.crop_scale, ("window",), {"area": Parameter(0.001, 1.0, form=tuple), "aspect": ASPECT} | ALWAYS,
    ),
    "shift": Kind(
        GEOMETRY, "shift by up to this many whole stored pixels in x and y",
        placement.shift, ("shift",), {"pixels": Parameter(0, 4096, form=int)} | ALWAYS,
    ),
    "rotate": Kind(
        GEOMETRY, "rotate by up to this many degrees",
        placement.rotate, ("affine", "rotation"), {"degrees": DEGREES} | ALWAYS,
    ),
    "shear": Kind(
        GEOMETRY, "shear along x by up to this many degrees",
        placement.shear, ("affine", "shear"), {"degrees": Parameter(0.0, 80.0)} | ALWAYS,
    ),
    "zoom": Kind(
        GEOMETRY, "magnify by a log-uniform factor",
        placement.zoom, ("affine", "zoom"), {"factor": Parameter(0.1, 10.0, form=tuple)} | ALWAYS,
    ),
    "magnify": Kind(
        GEOMETRY, "magnify by a uniform factor, at a random place",
        placement.magnify, ("window", "zoom"), {"factor": Parameter(1.0, 10.0, form=tuple)} | ALWAYS,
    ),
    "translate": Kind(
        GEOMETRY, "shift by up to this share of the side in x and y, including fractions of a pixel",
        placement.translate, ("affine", "translate"), {"share": Parameter()} | ALWAYS,
    ),
    "warp": Kind(
        GEOMETRY, "perspective: stretch or shrink each side by up to this share of itself",
        placement.warp, ("warp",), {"share": Parameter(high=0.95)} | ALWAYS,
    ),
    "brightness": Kind(
        PIXELS, "multiply by 1 - spread to 1 + spread",
        color.random_brightness, ("brightness",), {"spread": Parameter(high=10.0)} | ALWAYS,
    ),
    "contrast": Kind(
        PIXELS, "multiply the distance from the image's mean gray by 1 - spread to 1 + spread",
        color.random_contrast, ("contrast",), {"spread": Parameter(high=10.0)} | ALWAYS,
    ),
    "logit_brightness": Kind(
        PIXELS, "shift the logits of pixels so that mid-gray is multiplied by 1 - spread to 1 + spread",
        color.logit_brightness, ("light", "brightness"), {"spread": Parameter(high=0.99)} | ALWAYS,
    ),
    "logit_contrast": Kind(
        PIXELS, "multiply the logits of pixels by 1 - spread to 1 / (1 - spread), log-uniform",
        color.logit_contrast, ("light", "contrast"), {"spread": Parameter(high=0.99)} | ALWAYS,
    ),
    "noise": Kind(
        PIXELS, "add Gaussian noise with this standard deviation, of 255 gray levels, and clip",
        color.noise, ("noise",), {"deviation": Parameter(high=255.0)} | ALWAYS,
    ),
    "low_resolution": Kind(
        PIXELS, "reduce by a random whole factor, from 2 to this, and enlarge again",
        color.low_resolution, ("low_resolution",), {"factor": Parameter(2, 16, form=int)} | ALWAYS,
    ),
    "autoaugment": Kind(
        PIXELS, "AutoAugment: one of 25 published pairs of operations; limits=faces limits strengths",
        policies.autoaugment, ("autoaugment",),
        {"table": Parameter(default="cifar10", form=str, words=tuple(policies.TABLES))} | LIMITED,
    ),
    "randaugment": Kind(
        PIXELS, "RandAugment: this many (count) of 14 operations, at this level (magnitude) of 0 to 30",
        policies.randaugment, ("randaugment",),
        {"count": Parameter(1, 9, 2, int), "magnitude": Parameter(0, 30, 9, int)} | LIMITED,
    ),
    "trivialaugment": Kind(
        PIXELS, "TrivialAugment (wide): one of 14 operations, at any level",
        policies.trivialaugment, ("trivialaugment",), LIMITED,
    ),
    "augmix": Kind(
        PIXELS, "AugMix: the image mixed with copies that went through one to three operations each",
        policies.augmix, ("augmix",),
        {"severity": Parameter(1, 10, 3, int), "chains": Parameter(1, 9, 3, int)} | LIMITED,
    ),
    "erase_pixels": Kind(
        PIXELS, "Random Erasing as in the paper: random pixels, before normalization; height / width uniform",
        erasing.erase_pixels, ("erase_pixels",),
        {"p": Parameter(default=0.5), "area": Parameter(0.001, 1.0, (0.02, 0.4), tuple), "aspect": TALL},
    ),
    "erase": Kind(
        INPUT, "Random Erasing of a box with probability p, after normalization; area and height / width log-uniform",
        erasing.erase, ("erase",),
        {
            "p": Parameter(),
            "area": Parameter(0.001, 1.0, (0.02, 0.25), tuple),
            "aspect": TALL,
            "fill": Parameter(default="zero", form=str, words=("zero", "random")),
        },
    ),
}  # fmt: skip
POLICIES = ("autoaugment", "randaugment", "trivialaugment", "augmix")
GROUPS: Mapping[str, str] = {
    "one_of": "with probability p apply exactly one of the entries, each as likely",
    "all_of": "with probability p apply all of the entries",
}


@dataclasses.dataclass(frozen=True)
class Operation:
    """One entry, as read.

    Attributes:
        text: as it was written.
        name: a row of KINDS, or one of GROUPS.
        p: the probability of applying it.
        alternates: of a flip: it mirrors in every other epoch instead.
        values: the other parameters.
        members: of a group.
        repeat: how many operations of this name precede it: each has draws of its own.
        early: of a change of pixels: on the stored picture, since no geometry precedes it.
    """

    text: str
    name: str
    p: float
    values: Mapping[str, Any]
    alternates: bool = False
    members: tuple[Operation, ...] = ()
    repeat: int = 0
    early: bool = False

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    def leaves(self) -> Iterator[Operation]:
        """Yields the operation itself, or those of a group."""
        if not self.members:
            yield self
        for member in self.members:
            yield from member.leaves()


def parse(texts: Any) -> tuple[Operation, ...]:
    """Reads `config.augmentation.train`.

    Raises:
        UserError: for an entry that is malformed or out of range, and for two entries that exclude each other.
    """
    if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{FIELD}={texts!r}: give a list of operations, such as ('flip', 'crop:59')")
    entries = [_entry(text, grouped=False) for text in texts]
    for names in (WINDOWS, ("flip",)):
        same = [entry for entry in entries if entry.name in names]
        if len(same) > 1 and (names == WINDOWS or any(entry.alternates for entry in same)):
            raise UserError(f"{FIELD}: '{same[0].text}' and '{same[1].text}' exclude each other: keep one of them")
    counts: collections.Counter[str] = collections.Counter()
    placed, found = False, []
    for entry in entries:
        found.append(_numbered(entry, counts, early=not placed))
        placed = placed or any(leaf.kind.changes == GEOMETRY for leaf in entry.leaves())
    return tuple(found)


def help_lines() -> list[str]:
    """Returns one line for each operation: how it is written, and what it does."""
    helps = {name: kind.help for name, kind in KINDS.items()} | dict(GROUPS)
    rows = [(_syntax(name), text) for name, text in helps.items()]
    width = max(len(syntax) for syntax, _ in rows)
    return [f"{syntax:{width}}  {text}" for syntax, text in rows]


def check_sizes(operations: Sequence[Operation], height: int, width: int) -> None:
    """Raises UserError for a crop or a shift that stored pictures of this size are too small for."""
    side = min(height, width)
    most = {"crop": ("side", side), "shift": ("pixels", side - 1)}
    for leaf in (leaf for entry in operations for leaf in entry.leaves() if leaf.name in most):
        parameter, limit = most[leaf.name]
        if leaf.values[parameter] > limit:
            raise UserError(f"{FIELD}: '{leaf.text}': the stored pictures are {height}x{width}; give {limit} at most")


def _entry(text: str, grouped: bool) -> Operation:
    head, bracket, rest = text.strip().partition("(")
    name, colon, given = head.partition(":")
    if name not in KINDS and name not in GROUPS:
        raise UserError(f"{FIELD}: there is no operation '{text}'; {nearest(name, (*KINDS, *GROUPS))}")
    if bool(bracket) != (name in GROUPS) or (bracket and not rest.endswith(")")) or rest.count("(") > MOST_GROUPS:
        raise UserError(f"{FIELD}: cannot read '{text:.80}'; write {_syntax(name)}")
    parameters = ALWAYS if name in GROUPS or (grouped and name == "flip") else KINDS[name].parameters
    values = _values(text, name, parameters, given.split(",") if colon else [])
    members = tuple(_entry(part, grouped=True) for part in _split(rest[:-1])) if bracket else ()
    p = values.pop("p")
    alternates = p == "alternate"
    return Operation(text, name, 1.0 if alternates else p, values, alternates, members)


def _values(text: str, name: str, parameters: Mapping[str, Parameter], given: Sequence[str]) -> dict[str, Any]:
    """The values of all parameters, from those that an entry gives by place or by name."""
    values: dict[str, Any] = {}
    for place, part in enumerate(given):
        key, equals, value = part.strip().rpartition("=")
        if not equals and place < len(parameters):
            key = list(parameters)[place]
        if key not in parameters or key in values:
            raise UserError(f"{FIELD}: '{text}': cannot read '{part}'; write {_syntax(name)}")
        try:
            values[key] = parameters[key].read(value)
        except ValueError as error:
            raise UserError(f"{FIELD}: '{text}': {key}={value}: give {parameters[key].valid()}") from error
    for key, parameter in parameters.items():
        if key not in values and parameter.default is None:
            raise UserError(f"{FIELD}: '{text}': {key} is missing: give {parameter.valid()}; write {_syntax(name)}")
    return {key: values.get(key, parameter.default) for key, parameter in parameters.items()}


def _split(text: str) -> list[str]:
    """The entries of a group: what bars outside of inner parentheses separate."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _numbered(operation: Operation, counts: collections.Counter[str], early: bool) -> Operation:
    repeat = counts[operation.name]
    counts[operation.name] += 1
    members = tuple(_numbered(member, counts, early) for member in operation.members)
    return dataclasses.replace(operation, members=members, repeat=repeat, early=early)


def _syntax(name: str) -> str:
    """How an entry is written, optional parameters with their defaults in brackets."""
    parameters = KINDS[name].parameters if name in KINDS else ALWAYS
    required = [
        "low-high" if parameter.form is tuple else key
        for key, parameter in parameters.items()
        if parameter.default is None
    ]
    optional = [f"{key}={_shown(p)}" for key, p in parameters.items() if p.default is not None]
    options = f"[{',' if required else ':'}{','.join(optional)}]" if optional else ""
    return (
        name + (":" + ",".join(required) if required else "") + options + ("(entry|entry...)" if name in GROUPS else "")
    )


def _shown(parameter: Parameter) -> str:
    if parameter.form is tuple:
        return "-".join(f"{number:.3g}" for number in parameter.default)
    number = [] if parameter.form is str else [f"{parameter.default:g}"]
    return "|".join([*number, *parameter.words])
