"""Classifies images or sentences with a trained network: --mode=predict.

Standard output gets the answers alone, as CSV, a line for each input in order:

    input,class,probability,class_2,probability_2,...,class_5,probability_5
    photos/a.jpg,tench,0.972113,cassette player,0.0104381,...

The input is the path of an image or the line of text. Cells are quoted as in RFC 4180, and the encoding is UTF-8. Progress and
everything else goes to standard error. An input that cannot be read is named there and left out; the others are predicted, and the
command then fails.
"""

import csv
import os
import pathlib
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from distill_jax import evaluate, inputs, logs, terminal, trained
from distill_jax.errors import UserError

TOP = 5  # classes in a line


def predict(config: ConfigDict, root: str | os.PathLike, source: str | None) -> int:
    """Writes the most probable classes of each input to standard output. Only a few batches are in memory at any time.

    Args:
      config: batch_size, dtype and data.downsample matter.
      root: workdir of a finished run.
      source: an image, or a folder of images and of folders; or a text file with one sentence per line, or one pair, separated by a tab.
        "-" for lines from standard input: sentences, or the paths of images. Blank lines are skipped.

    Returns:
      The number of inputs.

    Raises:
      UserError: the run is unfinished, there are no such inputs, or, after all others are predicted, some cannot be read.
    """
    if not source:
        raise UserError("--mode=predict takes --inputs as well: an image, a folder, a text file, or - for standard input")
    with terminal.only_rows() as output:
        network = trained.load(pathlib.Path(root), config.dtype)
        check_channels(network)
        samples = inputs.find(source, network.spec, getattr(config.data, "downsample", 1))
        done, unread, start = 0, 0, time.perf_counter()
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(header(network))
        size = 0  # of the batches: the same for all, so that the network is compiled once
        for batch in inputs.in_batches(samples, config.batch_size):
            size = size or min(config.batch_size, 1 << (len(batch) - 1).bit_length())  # a lone image need not fill a whole batch
            read = {row: content for row, (_, content) in enumerate(batch) if not isinstance(content, UserError)}
            for _, content in batch:
                if isinstance(content, UserError):
                    logs.say(f"not read: {content}")
            if read:
                logits = logits_of(network, list(read.values()), size)
                terminal.show("")
                writer.writerows(cells(network, batch[row][0], each) for row, each in zip(read, logits, strict=True))
                output.flush()
            done, unread = done + len(batch), unread + len(batch) - len(read)
            terminal.show(f"{done:,} inputs, {done / (time.perf_counter() - start):,.0f} per second")
        logs.say(f"{done - unread:,} predicted in {time.perf_counter() - start:.1f} s")
        if unread:
            raise UserError(f"{unread:,} of {done:,} inputs could not be read, as said above; they are missing from the output")
    return done


def check_channels(network: trained.Network) -> None:
    channels = network.spec.input_shape[-1]
    if not network.spec.tokenizer and channels not in (1, 3):
        raise UserError(f"this network takes images of {channels} channels, which no image file has; use distill_jax.load(...).predict")


def logits_of(network: trained.Network, contents: list[Any], batch_size: int) -> np.ndarray:
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
