"""What changed in a classifier's answers: accuracy per class, and images whose class is another one now."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.report import formats
from dcp_tf.report.headline import LIKELY_CHANCE

_MOST_CLASSES = 12  # that are shown at once
_PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+")


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """The accuracy of one class before and after."""

    name: str
    images: int
    before: float
    after: float

    @property
    def text(self) -> str:
        """Both accuracies and the number of images."""
        return f"{formats.percent(self.before)} → {formats.percent(self.after)}"

    @property
    def change(self) -> str:
        """In points."""
        return formats.points(self.before, self.after)


@dataclasses.dataclass(frozen=True)
class Example:
    """An image whose answer changed."""

    image: int
    label: str
    baseline: str
    pruned: str
    picture: str
    verdict: str


@dataclasses.dataclass(frozen=True)
class AnswerChanges:
    """The content of `answers.json`, ready to print."""

    sentence: str
    classes: list[ClassRow]
    worst: list[ClassRow]
    examples: list[Example]


def answer_changes(answers: Mapping[str, Any]) -> AnswerChanges | None:
    """The view of `answers.json`; None without one.

    Raises:
        UsageError: it is malformed.
    """
    if not answers:
        return None
    try:
        names = [str(name) for name in answers["class_names"]]
        classes = [
            ClassRow(_name(names, number), images, before / images, after / images)
            for number, (images, before, after) in enumerate(answers["per_class"])
            if images
        ]
        examples = [_example(names, example) for example in answers["examples"]]
        sentence = _sentence(answers["images"], **answers["changed"], p_value=answers.get("p_value"))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(
            f"answers.json is malformed ({type(error).__name__}: {error}): run the program again"
        ) from error
    worst = classes
    if len(classes) > _MOST_CLASSES:
        worst = sorted(classes, key=lambda row: row.after - row.before)[:_MOST_CLASSES]
    return AnswerChanges(sentence, classes, worst, examples)


def _name(names: list[str], number: int) -> str:
    return names[number] if 0 <= number < len(names) else str(number)


def _example(names: list[str], example: Mapping[str, Any]) -> Example:
    label, baseline, pruned = (int(example[key]) for key in ("label", "baseline", "pruned"))
    verdict = "wrong now" if baseline == label else "right now" if pruned == label else "wrong otherwise"
    picture = str(example.get("picture", ""))
    shown = (_name(names, number) for number in (label, baseline, pruned))
    return Example(int(example["image"]), *shown, picture if _PICTURE.fullmatch(picture) else "", verdict)


def _sentence(images: int, lost: int, gained: int, other: int, p_value: float | None) -> str:
    changed = lost + gained + other
    if not changed:
        return f"All {images:,} test images have the same answer as before."
    text = (
        f"{changed:,} of {images:,} test images changed {'its answer' if changed == 1 else 'their answers'}: "
        f"{lost:,} that {_was(lost)} right {_is(lost)} wrong now, {gained:,} that {_was(gained)} wrong {_is(gained)} "
        "right now" + (f", {other:,} {_is(other)} wrong in another way" if other else "")
    )
    if p_value is None:
        return f"{text}."
    chance = (
        "chance alone often makes as large a difference" if p_value > LIKELY_CHANCE else "chance alone rarely does that"
    )
    return f"{text}. {chance[:1].upper()}{chance[1:]} (exact McNemar test, p = {p_value:.2g})."


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
