"""Applies a trained network to images or sentences: --mode=predict.

A network for segmentation or detection writes pictures: see found.py. For one that classifies, standard output gets only the answers, as
CSV, one line per input, in order:

    input,class,probability,class_2,probability_2,...,class_5,probability_5
    photos/a.jpg,tench,0.972113,cassette player,0.0104381,...

The input is the path of an image or the line of text. Cells are quoted as in RFC 4180, and the encoding is UTF-8. Progress and
everything else goes to standard error. An unreadable input is named there and skipped; the others are predicted, and the
command then fails.
"""

import csv
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

import numpy as np
from ml_collections import ConfigDict

from distill_jax import evaluate, found, inputs, logs, terminal, trained
from distill_jax.errors import UserError

TOP = 5  # classes in a line
WriteFn = Callable[[Sequence[str], Sequence[Any], int], None]  # (names, contents, batch size): writes the answers for a batch


def predict(config: ConfigDict, root: str | os.PathLike, source: str | None, output: str | None = None) -> int:
    """Writes the most probable classes of each input to standard output, or pictures. Only a few batches are in memory at any time.

    Args:
      config: batch_size and dtype matter.
      root: workdir of a finished run; or hf:DIR or torchvision:FILE.
      source: an image, or a folder, searched recursively; or a text file with one sentence per line, or one pair, separated by a tab.
        "-" for lines from standard input: sentences, or the paths of images. Blank lines are skipped.
      output: the folder for pictures; by default root/predictions.

    Returns:
      The number of inputs; 0 if the reader of standard output stopped early.

    Raises:
      UserError: the run is unfinished, there are no such inputs, or, after all others are predicted, some cannot be read.
    """
    if not source:
        raise UserError("--mode=predict needs --inputs: an image, a folder, a text file, or - for standard input")
    with terminal.only_rows() as rows:
        network = trained.load(pathlib.Path(root), config.dtype)
        check_channels(network)
        samples = inputs.find(source, network.spec)
        start = time.perf_counter()
        if network.spec.task == "classification":
            if output:
                raise UserError("--output: a network that classifies writes to standard output; redirect that to a file")
            write, where = csv_writer(network, rows), ""
        else:
            folder = pathlib.Path(output or f"{root}/predictions").expanduser()
            write, where = found.writer(network, folder, pathlib.Path(source).expanduser()), f"; see {folder}"
        done, unread = in_batches(samples, config.batch_size, write)
        rows.flush()
        logs.say(f"{done - unread:,} predicted in {time.perf_counter() - start:.1f} s{where}")
        if unread:
            raise UserError(f"{unread:,} of {done:,} inputs could not be read (see above) and are missing from the output")
        return done
    return 0  # the reader of the output stopped early


def in_batches(samples: Iterable[inputs.Sample], batch_size: int, write: WriteFn) -> tuple[int, int]:
    """Writes the answers for all samples that can be read; says which cannot. Returns their numbers: all, and the unread."""
    done, unread, size, start = 0, 0, 0, time.perf_counter()
    for batch in inputs.in_batches(samples, batch_size):
        size = size or trained.at_most(batch_size, len(batch))  # one for all batches, so that the network is compiled once
        read = [(name, content) for name, content in batch if not isinstance(content, UserError)]
        for _, content in batch:
            if isinstance(content, UserError):
                logs.say(f"not read: {content}")
        if read:
            terminal.show("")
            write(*zip(*read, strict=True), size)
        done, unread = done + len(batch), unread + len(batch) - len(read)
        terminal.show(f"{done:,} inputs, {done / (time.perf_counter() - start):,.0f} per second")
    return done, unread


def csv_writer(network: trained.Network, output: TextIO) -> WriteFn:
    """Writes the header, and returns the function that writes a line for each sample."""
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(header(network))

    def write(names, contents, size):
        logits_NxC = logits_of(network, contents, size)
        writer.writerows(cells(network, name, logits_C) for name, logits_C in zip(names, logits_NxC, strict=True))
        output.flush()

    return write


def check_channels(network: trained.Network) -> None:
    channels = network.spec.input_shape[-1]
    if not network.spec.tokenizer and channels not in (1, 3):
        raise UserError(f"this network takes images of {channels} channels, which no image file has; use distill_jax.load(...).predict")


def logits_of(network: trained.Network, contents: Sequence[Any], batch_size: int) -> np.ndarray:
    """Logits [N, C] of sentences, or of images, uint8 [H, W, C] each."""
    if network.spec.tokenizer:
        return network.logits(contents, batch_size)
    return network.map(trained.forward, {"image": np.stack(contents)}, batch_size)


def header(network: trained.Network) -> list[str]:
    ranks = ["", *(f"_{rank}" for rank in range(2, min(TOP, network.spec.num_classes) + 1))]
    return ["input", *(f"{column}{rank}" for rank in ranks for column in ("class", "probability"))]


def cells(network: trained.Network, name: str, logits_C: np.ndarray) -> list[str]:
    """A line of the CSV: the input, and its most probable classes with their probabilities."""
    probs_C = np.exp(evaluate.log_softmax(logits_C[None])[0])
    top = np.argsort(-probs_C, kind="stable")[:TOP]
    return [name, *(cell for label in top for cell in (network.classes[label], f"{probs_C[label]:.6g}"))]
