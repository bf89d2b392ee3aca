"""What networks predict for test samples: the classes besides the label are what a teacher adds to the label."""

import html
from collections.abc import Sequence
from typing import Any

from distill_jax.page.comparisons import Line
from distill_jax.page.overview import teachers_of
from distill_jax.page.plots import class_name

SHOWN_CLASSES = 4  # for each network
MOST_OPINIONS = 24  # networks that speak of each sample

text = html.escape


def gallery(lines: Sequence[Line]) -> str:
    """The same test samples, with what each network and its teacher predict for them: of the first seed of each line that recorded it."""
    said = [(line, next(iter(line.predictions.values()))) for line in by_stage(lines) if line.predictions]
    if not said:
        return ""
    items, left_out = [], len(said) - MOST_OPINIONS
    for place, sample in enumerate(said[0][1]["samples"]):
        rows = [row for line, content in said[:MOST_OPINIONS] for row in opinions(line, content, place)]
        longest = max((probability for _, _, classes in rows for _, probability in classes), default=1.0)
        table = "".join(opinion(name, content, classes, sample["label"], longest) for name, content, classes in rows)
        items.append(f"<li>{shown_input(said[0][1], sample)}<table>{table}</table></li>")
    more = f" {left_out} more runs are left out." if left_out > 0 else ""
    return (
        "<h3>What the networks predict for test samples</h3>\n<p class='note'>The most probable classes with their probabilities, the "
        f"label in bold. The classes after the first are what a teacher adds to the label. One seed of each run.{more}</p>\n"
        f'<ul class="samples">{"".join(items)}</ul>\n'
    )


def by_stage(lines: Sequence[Line]) -> list[Line]:
    """The same stage of different families stands together."""
    stages = list(dict.fromkeys(line.stage for line in lines))
    return sorted(lines, key=lambda line: stages.index(line.stage))


def opinions(line: Line, said: dict[str, Any], place: int) -> list[tuple[str, dict[str, Any], list[list[float]]]]:
    """What the student and, unless it is a stage with a row of its own, its teacher say: name, content, most probable classes."""
    sample = said["samples"][place] if place < len(said["samples"]) else {}
    names = {"student": line.name} | ({} if teachers_of(line) and line.stage else {"teacher": f"{line.name}: teacher"})
    return [(name, said, sample[speaker][:SHOWN_CLASSES]) for speaker, name in names.items() if speaker in sample]


def shown_input(said: dict[str, Any], sample: dict[str, Any]) -> str:
    label = text(class_name(said, sample["label"]))
    if "image" in sample:
        return f'<img src="{text(sample["image"])}" alt="A test image of class {label}"><h4>{label}</h4>'
    return f"<h4>{label}</h4><blockquote>{text(sample['text'])}</blockquote>"


def opinion(name: str, said: dict[str, Any], classes: Sequence[Sequence[float]], label: int, longest: float) -> str:
    """The name of a network, and below it a cell for each class; a bar as wide as its cell stands for the probability `longest`."""
    cells = []
    for predicted, probability in classes:
        kind = ' class="right"' if predicted == label else ""
        bar = f'<span class="bar" style="width:{100 * probability / max(longest, 1e-9):.0f}%"></span>'
        shown = text(class_name(said, int(predicted))).replace("_", "_<wbr>")
        cells.append(f"<td{kind}>{shown} <small>{in_per_cent(probability)}</small>{bar}</td>")
    return f'<tbody><tr><th scope="rowgroup" colspan="{SHOWN_CLASSES}">{text(name)}</th></tr><tr>{"".join(cells)}</tr></tbody>'


def in_per_cent(probability: float) -> str:
    return f"{100 * probability:.1f} %" if probability >= 0.0005 else "&lt; 0.1 %"
