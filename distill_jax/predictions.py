"""What a trained network predicts for the test set, in one small file for the report: predictions.json.

    classes       names in the order of the labels; [] if the data has none
    reliability   the 15 bins of the calibration error: `examples`, mean `confidence` and `accuracy` of each; 0 in empty bins
    confusion     [label, predicted class, number of test samples], where there are any
    samples       twelve test samples, the same for every run on this data: `label`, `image` (a PNG as a data URI) or `text`, and the
                  most probable classes according to the `student` and, if it was taught by a network, the `teacher`:
                  [[class, probability], ...]

The last evaluation of a run writes it; a finished run without it, such as an older one, stays as it is.
"""

import base64
import io
import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from distill_jax import evaluate, processes, workdir
from distill_jax.data import Dataset, batches, streaming
from distill_jax.errors import UserError
from distill_jax.files import read_json

NAME = "predictions.json"
SAMPLES = 12
TOP = 5  # classes for each sample
LARGEST = 64  # pixels, the longer side of a sample's picture


def write(folder: pathlib.Path, dataset: Dataset, logits_NxC: np.ndarray, teacher_logits_NxC: np.ndarray | None) -> None:
    """Writes predictions.json, on the first process.

    Args:
      folder: the run's workdir.
      dataset: logits are of its test split.
      logits_NxC: of the student.
      teacher_logits_NxC: of its teacher, if that is a network.

    Raises:
      UserError: a streamed sample can no longer be read.
    """
    processes.on_first(lambda: workdir.write_text(folder / NAME, json.dumps(summarise(dataset, logits_NxC, teacher_logits_NxC)) + "\n"))


def summarise(dataset: Dataset, logits_NxC: np.ndarray, teacher_logits_NxC: np.ndarray | None = None) -> dict[str, Any]:
    """The content of predictions.json; arguments and errors as for `write`."""
    labels_N = np.asarray(dataset.test["label"])
    speakers = {"student": logits_NxC} | ({} if teacher_logits_NxC is None else {"teacher": teacher_logits_NxC})
    rows = sample_rows(labels_N)
    samples = [{"label": int(labels_N[row])} | inputs for row, inputs in zip(rows, show_inputs(dataset, rows), strict=True)]
    for speaker, speaker_logits_NxC in speakers.items():
        for sample, log_probs_C in zip(samples, evaluate.log_softmax(speaker_logits_NxC[rows]), strict=True):
            sample[speaker] = most_probable(log_probs_C)
    return {
        "classes": list(dataset.classes),
        "reliability": reliability(logits_NxC, labels_N),
        "confusion": confusion(logits_NxC.argmax(axis=1), labels_N),
        "samples": samples,
    }


def reliability(logits_NxC: np.ndarray, labels_N: np.ndarray) -> dict[str, list[float]]:
    log_probs_NxC = evaluate.log_softmax(logits_NxC)
    counts, confidence, correct = evaluate.reliability(np.exp(log_probs_NxC.max(axis=1)), log_probs_NxC.argmax(axis=1) == labels_N)
    some = np.maximum(counts, 1)
    return {"examples": counts.tolist(), "confidence": (confidence / some).tolist(), "accuracy": (correct / some).tolist()}


def confusion(predicted_N: np.ndarray, labels_N: np.ndarray) -> list[list[int]]:
    pairs, counts = np.unique(np.stack([labels_N, predicted_N]), axis=1, return_counts=True)
    return [[*pair, count] for pair, count in zip(pairs.T.tolist(), counts.tolist(), strict=True)]


def sample_rows(labels_N: np.ndarray) -> np.ndarray:
    """`SAMPLES` rows, or all if there are fewer, spread evenly over the classes: a function of the labels alone."""
    by_class = np.argsort(labels_N, kind="stable")
    return by_class[np.linspace(0, len(labels_N) - 1, min(SAMPLES, len(labels_N))).astype(int)]


def most_probable(log_probs_C: np.ndarray) -> list[list[float]]:
    top = np.argsort(-log_probs_C, kind="stable")[:TOP]
    return [[int(label), float(f"{np.exp(log_probs_C[label]):.4g}")] for label in top]


def show_inputs(dataset: Dataset, rows: np.ndarray) -> list[dict[str, str]]:
    """The samples of some rows of the test split, as `image` or `text`."""
    if dataset.tokenizer:
        import tokenizers  # here, since only text needs it

        words = tokenizers.Tokenizer.from_str(dataset.tokenizer)
        padding = words.padding["pad_id"]
        return [{"text": words.decode(ids_L[ids_L != padding], skip_special_tokens=False)} for ids_L in dataset.test["tokens"][rows]]
    images = dataset.test["image"]
    if batches.is_streamed(dataset.test):
        pixels = next(streaming.batches(images, rows[None], None))["image"]
    else:
        pixels = images[rows]
    return [{"image": data_uri(image)} for image in pixels]


def data_uri(image_HxWxC: np.ndarray) -> str:
    """A PNG no larger than `LARGEST` pixels."""
    picture = Image.fromarray(image_HxWxC if image_HxWxC.shape[2] == 3 else image_HxWxC[:, :, 0])
    picture.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """The content of a run's predictions.json; None if it has none.

    Raises:
      UserError: the file is damaged.
    """
    path, advice = folder / NAME, "delete it; the report then leaves out its plots"
    if not path.exists():
        return None
    content = read_json(path, advice)
    try:
        check(content)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path} is damaged: it is not what a run writes ({error}); {advice}") from error
    return content


def check(content: dict[str, Any]) -> None:
    """Raises KeyError, TypeError, ValueError or IndexError if it is not of the form that `summarise` returns."""
    if not all(isinstance(name, str) for name in content["classes"]):
        raise ValueError("a class without a name")
    bins = [np.asarray(content["reliability"][name], float) for name in ("examples", "confidence", "accuracy")]
    if np.stack(bins).shape != (3, evaluate.ECE_BINS):
        raise ValueError("bins are missing")
    pairs = np.asarray(content["confusion"])
    if pairs.dtype.kind != "i" or pairs.shape[1:] != (3,) or pairs.min() < 0:
        raise ValueError("confusion must hold triples of counts")
    for sample in content["samples"]:
        shown = sample["image"] if "image" in sample else sample["text"]
        if not isinstance(shown, str) or ("image" in sample and not shown.startswith("data:image/png;base64,")):
            raise ValueError("a sample is neither an image nor a text")
        for speaker in ("student", "teacher"):
            for label, probability in sample.get(speaker, []):
                int(label), float(probability)
        int(sample["label"])
