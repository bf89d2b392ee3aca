"""Trained networks: load them from a workdir, predict, extract features."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from distill_jax import checkpoints, configuration, pretrained, sharding, specs, workdir
from distill_jax.data import batches, tokenization
from distill_jax.errors import UserError
from distill_jax.specs import Spec
from distill_jax.stages import STAGE
from distill_jax.tasks import detection, segmentation


class Run(NamedTuple):
    """A finished run, or a pre-trained network."""

    folder: pathlib.Path  # of a pre-trained network, its source
    summary: dict[str, Any]
    spec: Spec
    source: str = ""  # hf:DIR or torchvision:FILE, for a pre-trained network; its summary is empty


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network with its weights.

    Attributes:
      spec: its inputs and classes.
      module: the flax module.
      variables: {"params": ..., "batch_stats": ...}.
      summary: the summary of its run.
      mesh: the devices that hold the weights.
    """

    spec: Spec = dataclasses.field(repr=False)
    module: nn.Module
    variables: dict[str, Any] = dataclasses.field(repr=False)
    summary: dict[str, Any] = dataclasses.field(repr=False)
    mesh: Mesh = dataclasses.field(repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the outputs; class numbers if the data has no names."""
        return self.spec.classes or tuple(map(str, range(self.spec.num_classes)))

    def predict(self, inputs: Any, batch_size: int = 256) -> Any:
        """Class probabilities, float32 [N, C]; those of each pixel, [N, H, W, C], for segmentation; for detection, the boxes found.

        Boxes are an `anchor_free.Found` of B images: arrays box_BxNx4 (left, top, right, bottom, in pixels of the images), label_BxN and
        score_BxN (in 0..1), by descending score; unused rows have score 0.

        Args:
          inputs: uint8 images [N, H, W, C] of any size, RGB or grey; or a list of sentences, or of pairs of sentences.
          batch_size: samples per step; fewer if there are fewer inputs.

        Raises:
          UserError: the inputs are not of the kind that the network takes.
        """
        if self.spec.task == "detection":
            found = self.map(boxes, self._rows(inputs), at_most(batch_size, len(inputs)))
            return detection.of_one_size(found, *np.shape(inputs)[1:3], self.spec.image_size)
        return np.asarray(jax.nn.softmax(self.logits(inputs, batch_size)))  # over the last axis

    def features(self, inputs: Any, batch_size: int = 256) -> np.ndarray:
        """The inputs of the layer "head", float32 [N, F]. Arguments and errors as for `predict`; for classification only."""
        check_classifies(self.summary.get("workdir", "this network"), self.spec)
        return self.map(penultimate, self._rows(inputs), at_most(batch_size, len(inputs)))

    def apply(self, inputs: Any) -> jax.Array:
        """Applies the module in inference mode: inputs, as returned by `spec.to_inputs`, -> logits [B, C]."""
        return self.module.apply(self.variables, inputs, train=False)

    def logits(self, inputs: Any, batch_size: int = 256) -> np.ndarray:
        """Logits of the classes, float32 [N, C] or [N, H, W, C]; arguments and errors as for `predict`; not for detection."""
        if self.spec.task == "detection":
            raise UserError("a network for detection has no logits of images; `predict` returns the boxes")
        found = self.map(forward, self._rows(inputs), at_most(batch_size, len(inputs)))
        return segmentation.of_one_size(found, *np.shape(inputs)[1:3]) if self.spec.task == "segmentation" else found

    def map(self, function: Callable[..., Any], rows: dict[str, Any], batch_size: int) -> Any:
        """Applies function(module, variables, inputs), jitted, to a whole split, batch by batch; returns a pytree of arrays [N, ...]."""
        self._check_kind(rows)
        count, batch_size = len(next(iter(rows.values()))), -(-batch_size // self.mesh.size) * self.mesh.size
        compiled = _compiled(function, self.module, self.spec._replace(model=()), self.mesh)
        by_row = sharding.rows(self.mesh)
        results = (compiled(self.variables, sharding.put(batch, by_row)) for batch in batches.in_order(rows, count, batch_size))
        return jax.tree.map(lambda array: array[:count], sharding.fetch(results))

    def _rows(self, inputs: Any) -> dict[str, np.ndarray]:
        if self.spec.tokenizer:
            if not isinstance(inputs, Sequence | np.ndarray) or isinstance(inputs, str) or not len(inputs):
                raise UserError("this network takes sentences: give a list of one or more, each a str or a pair of str")
            return {"tokens": tokenization.encode_sentences(self.spec.tokenizer, inputs, self.spec.sentences)}
        try:
            images = np.asarray(inputs)
        except ValueError as error:
            raise UserError("this network takes images: give uint8 [N, H, W, C], in one call for each image size") from error
        if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
            raise UserError(f"this network takes images: give uint8 [N, H, W, C], no axis empty, not {images.dtype} {list(images.shape)}")
        self._check_kind({"image": images})
        return {"image": self.spec.as_evaluated(images)}

    def _check_kind(self, rows: dict[str, Any]) -> None:
        kind, where = "tokens" if self.spec.vocabulary_size else "image", self.summary.get("workdir", "this network")
        if kind not in rows:
            raise UserError(f"{where} takes {kind}; this data set has {', '.join(name for name in rows if name != 'label')}")
        channels = self.spec.input_shape[-1]
        if kind == "image" and rows["image"].shape[3] not in (1, channels):
            raise UserError(f"{where} takes images of {channels} channel{'s' * (channels > 1)}; these have {rows['image'].shape[3]}")


def load(path: str | os.PathLike, dtype: str = "float32", mesh: Mesh | None = None) -> Network:
    """Loads the trained network of a finished run from its workdir.

    Args:
      path: the workdir of a run; if it has several stages or seeds, the folder of one of them. Or a pre-trained network with a head for
        classification, hf:DIR or torchvision:FILE.
      dtype: computation dtype, "float32" or "bfloat16".
      mesh: the devices to use; all by default.

    Raises:
      UserError: there is no finished run, or its files are damaged.
    """
    run = find(resolve(os.fspath(path), pathlib.Path()))
    specs.check_head(os.fspath(path), run.spec)
    mesh = mesh or sharding.make_mesh()
    return Network(run.spec, run.spec.module(dtype), load_variables(run, mesh), run.summary | {"workdir": str(run.folder)}, mesh)


def at_most(batch_size: int, count: int) -> int:
    """The batch size for `count` samples: a power of two if they are few, so that few sizes are compiled."""
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1")
    return min(batch_size, 1 << (count - 1).bit_length())


def find(folder: pathlib.Path | str) -> Run:
    """The finished run in a workdir, or a pre-trained network; `resolve` returns what names either.

    Raises:
      UserError: there is no run, it is unfinished, or there are several; or a file of the network is missing or holds something else.
    """
    if isinstance(folder, str):
        return Run(pathlib.Path(folder), {}, pretrained.spec_of(folder), folder)
    configuration.of_workdir(folder)
    summary = workdir.load_summary(folder)
    if "runs" in summary or "stages" in summary:
        folders = sorted(str(path.parent) for path in folder.glob("*/summary.json"))
        raise UserError(f"{folder} holds several runs; name one of them: {', '.join(folders)}")
    return Run(folder, summary, specs.read(folder))


def below(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders of a finished family's stages, or of a finished run's seeds, in order.

    Raises:
      UserError: there are none, or the folder of a seed is missing.
    """
    config = configuration.of_workdir(folder)
    summary = workdir.load_summary(folder) if (folder / "summary.json").exists() else {}
    if "runs" in summary:
        seeds = [folder / f"seed_{seed}" for seed in range(config.seed, config.seed + len(summary["runs"]))]
        if missing := [str(seed) for seed in seeds if not (seed / "summary.json").exists()]:
            raise UserError(f"{missing[0]} is missing or not finished; restore it, or name the other seeds with --members")
        return seeds
    if "stages" in summary:
        return [folder / stage["stage"] for stage in summary["stages"]]
    raise UserError(f"{folder} holds no finished run of several stages or seeds; name the workdirs with --members")


def resolve(name: str, folder: pathlib.Path) -> pathlib.Path | str:
    """What an entry of `teachers` or `initial` names, for `find`: a workdir or, for stage:NAME, a stage beside `folder`; or, as a str, a
    pre-trained network."""
    if pretrained.is_source(name):
        return name
    return folder.parent / name.removeprefix(STAGE) if name.startswith(STAGE) else pathlib.Path(name).expanduser()


def load_variables(run: Run, mesh: Mesh) -> dict[str, Any]:
    """The weights of a run's last epoch, or of a pre-trained network with a head, on every device.

    Raises:
      UserError: their files are missing or incomplete, or are not those that the run wrote.
    """
    whole = sharding.replicated(mesh)
    if run.source:
        return sharding.put(pretrained.complete(run.source, run.spec), whole)
    like = sharding.abstract(run.spec.abstract_network(), whole)
    path = workdir.snapshot_path(run.folder, run.summary["epochs"])
    try:
        variables = checkpoints.load_weights(path, like)
    except UserError as error:
        advice = "repeat that run's command to write it again from its checkpoint"
        raise UserError(f"{error}; {'delete it and ' if path.exists() else ''}{advice}") from error
    for name, weights in (("weights_sha256", variables), ("params_sha256", variables["params"])):
        if name in run.summary and checkpoints.sha256(weights) != run.summary[name]:
            raise UserError(f"{path}: not the weights recorded in the run's summary.json; retrain that network")
    return variables


def weights_hash(run: Run) -> str:
    """Identifies the weights of a run or of a pre-trained network."""
    return pretrained.sha256(run.source) if run.source else run.summary.get("weights_sha256", run.summary["params_sha256"])


def recorded_hashes(run: Run) -> tuple[str | None, ...]:
    """What another run's teachers.json may hold of a run's weights: `weights_hash`, or in workdirs of schema 1 params_sha256."""
    return weights_hash(run), run.summary.get("params_sha256")


def penultimate(module: nn.Module, variables: dict[str, Any], inputs: jax.Array) -> jax.Array:
    """The input of the layer "head", float32 [B, F], in inference mode.

    Raises:
      UserError: the module has no such layer.
    """
    caught = []

    def catch(next_function, args, kwargs, context):
        if context.module.path == ("head",):
            caught.append(args[0] if args else next(iter(kwargs.values())))
        return next_function(*args, **kwargs)

    with nn.intercept_methods(catch):
        module.apply(variables, inputs, train=False)
    if not caught:
        raise UserError(f"{type(module).__name__} has no layer named 'head', whose inputs are the features; rename its last dense layer")
    return caught[0]


def forward(module: nn.Module, variables: dict[str, Any], inputs: jax.Array) -> jax.Array:
    """Logits, float32 [B, C], in inference mode."""
    return module.apply(variables, inputs, train=False)


def boxes(module: nn.Module, variables: dict[str, Any], inputs: jax.Array) -> Any:
    """The boxes found on a batch of canvases, in pixels of the canvas; see `anchor_free.Found`."""
    return detection.on_canvas(forward(module, variables, inputs), {"image": inputs})


def check_classifies(name: str, spec: Spec) -> None:
    """Raises UserError unless a network gives one label for each image or sentence."""
    if spec.task != "classification":
        raise UserError(f"{name} is a network for {spec.task}; features, linear probes and ensembles take networks for classification")


@functools.lru_cache(maxsize=64)
def _compiled(function: Callable[..., jax.Array], module: nn.Module, spec: Spec, mesh: Mesh) -> Callable[..., jax.Array]:
    """(variables, batch) -> function(module, variables, inputs), compiled once for all calls."""
    return jax.jit(lambda variables, batch: function(module, variables, spec.to_inputs(batch)), out_shardings=sharding.replicated(mesh))
