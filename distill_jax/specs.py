"""What a network needs besides its weights: architecture, normalisation, class names, vocabulary."""

import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from PIL import Image

from distill_jax import checks, configuration, files, models
from distill_jax.data import affine, streaming, tokenization
from distill_jax.data.images import average_blocks
from distill_jax.errors import UserError
from distill_jax.models import bert
from distill_jax.tasks import TASKS


class Spec(NamedTuple):
    """Describes a network. Fixed when its training begins, and kept in its workdir as network.json."""

    model: dict[str, Any]  # name and options; complete, also where the config leaves an encoder's sizes to its initial weights
    num_classes: int
    input_shape: tuple[int, ...]  # of one sample: (height, width, channels), or (tokens,)
    input_mean: tuple[float, ...] = ()  # of each channel, pixels in [0, 1]; () for text
    input_std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()  # class names, if the data has them
    vocabulary_size: int = 0  # 0 for images
    image_size: int = 0  # side in pixels of streamed images: crops, for evaluation central ones; scenes are letterboxed instead
    downsample: int = 1  # side in pixels of the blocks that were averaged in images read into memory
    tokenizer: str = ""  # for sentences, as JSON; stored separately as tokenizer.json
    sentences: int = 0  # in a row of text: 1, or 2 for pairs; 0 for images, and in older runs
    task: str = "classification"  # a key of `tasks.TASKS`: what the outputs mean

    def module(self, dtype: str = "float32") -> nn.Module:
        options = {name: value for name, value in self.model.items() if name != "name"}
        with checks.naming("model"):
            return models.create(self.model["name"], self.num_classes, dtype, self.vocabulary_size, **options)

    def to_inputs(self, batch: dict[str, jax.Array]) -> jax.Array:
        """The module's inputs for a batch with "tokens" or "image" (uint8 [B, H, W, C]), normalised as in training.

        Images of a different size are resized (bilinear), and grey images are repeated over the channels, as the network needs.
        """
        if "tokens" in batch:
            return batch["tokens"]
        images = batch["image"]
        height, width, channels = self.input_shape
        scaled = images.astype(jnp.float32) / 255
        if images.shape[1:3] != (height, width):
            scaled = jax.image.resize(scaled, (len(images), height, width, images.shape[3]), "bilinear")
        if images.shape[3] != channels:
            scaled = jnp.broadcast_to(scaled, (*scaled.shape[:3], channels))
        return (scaled - np.array(self.input_mean, np.float32)) / np.array(self.input_std, np.float32)

    @property
    def full_size(self) -> tuple[int, int]:
        """Height and width of the images before data.downsample."""
        return self.input_shape[0] * self.downsample, self.input_shape[1] * self.downsample

    def as_evaluated(self, images: np.ndarray) -> np.ndarray:
        """What evaluation sees of raw images, uint8 [N, H, W, C].

        Of streamed images, their central square, or the letterboxed whole. Others are averaged over blocks, if they have the size of the
        training images before data.downsample.
        """
        height, width = images.shape[1:3]
        if not self.image_size:
            is_full = self.downsample > 1 and (height, width) == self.full_size
            return average_blocks(images, self.downsample) if is_full else images
        colours = map(Image.fromarray, np.broadcast_to(images, (*images.shape[:3], 3)))
        if self.task == "classification":
            return np.stack([streaming.resized(image, self.image_size, streaming.central_box(width, height)) for image in colours])
        view = affine.letterbox(width, height, self.image_size)
        return np.stack([affine.move_image(image, view) for image in colours])

    @property
    def example(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of the module's inputs for one sample."""
        return jax.ShapeDtypeStruct((1, *self.input_shape), jnp.int32 if self.vocabulary_size else jnp.float32)

    def abstract_network(self, dtype: str = "float32") -> dict[str, Any]:
        """Shapes and dtypes of the variables: {"params": ..., "batch_stats": ...}.

        Raises:
          UserError: the module cannot take inputs of this shape.
        """
        name, size = self.model["name"], "x".join(map(str, self.input_shape))
        module = self.module(dtype)
        try:
            logits, shapes = jax.eval_shape(functools.partial(module.init_with_output, train=False), jax.random.key(0), self.example)
        except Exception as error:  # flax, or a user's own network: either may raise anything
            reason = next(iter(str(error).splitlines()), "").strip()
            raise UserError(f"model.name {name!r} cannot take inputs of {size}: {type(error).__name__}: {reason}") from error
        expected = TASKS[self.task].outputs(self.num_classes, self.input_shape)
        found, wanted = ([(leaf.shape, leaf.dtype.name) for leaf in jax.tree.leaves(tree)] for tree in (logits, expected))
        if jax.tree.structure(logits) != jax.tree.structure(expected) or found != wanted:
            what = f"logits, float32 {list(expected.shape)}" if isinstance(expected, jax.ShapeDtypeStruct) else str(wanted)
            because = "" if self.task == "classification" else f", since data.task is {self.task!r}"
            raise UserError(f"model.name {name!r} returns {found} for one input; it must return {what}{because}")
        return {"params": shapes["params"], "batch_stats": shapes.get("batch_stats", {})}


def read(folder: pathlib.Path) -> Spec:
    """The spec of the network in a workdir.

    Raises:
      UserError: the run has not begun, or its files are damaged.
    """
    config = configuration.of_workdir(folder)
    path = folder / "network.json"
    if not path.exists():
        path = folder / "summary.json"  # workdirs of schema 1 have no network.json
    facts, tokenizer = files.read_json(path), folder / "tokenizer.json"
    if path.name == "summary.json" and "schema" in facts:
        raise UserError(f"{folder / 'network.json'} is missing; restore it, or retrain that network")
    try:
        spec = Spec(
            model=config.model.to_dict() | (facts.get("model", {}) if path.name == "network.json" else {}),
            num_classes=facts["num_classes"],
            input_shape=tuple(facts["input_shape"]),
            vocabulary_size=facts["vocabulary_size"],
            tokenizer=tokenizer.read_text(encoding="utf-8") if facts["vocabulary_size"] else "",
            **{name: tuple(facts.get(name, ())) for name in ("input_mean", "input_std", "classes")},
            image_size=facts.get("image_size", 0),
            downsample=facts.get("downsample", config.data.downsample),
            sentences=facts.get("sentences", 0),
            task=facts.get("task", "classification"),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} does not describe its network completely (missing or invalid: {error}); retrain that network") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{tokenizer} cannot be read: {error}") from error
    return spec


def facts(spec: Spec) -> dict[str, Any]:
    """The content of network.json: the spec without the tokenizer, with tuples as lists."""
    kept = {name: value for name, value in spec._asdict().items() if name != "tokenizer"}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}


def completed(spec: Spec, start: Spec | None = None) -> Spec:
    """The spec of a new network, completed from the network that it starts from and from its tokenizer.

    Images are normalised as in that network's training. Encoder options that are 0 are taken from that network (`bert.SIZES`) or from the
    tokenizer (`bert.IDS`); the new network may have fewer layers.

    Raises:
      UserError: an option is 0 and nothing determines it, or is given and contradicts what does.
    """
    if start:
        spec = spec._replace(input_mean=start.input_mean, input_std=start.input_std)
    name = spec.model["name"]
    is_pretrained = spec.tokenizer and not tokenization.is_fitted(spec.tokenizer)
    if is_pretrained and not models.is_encoder(name) and tokenization.special_ids(spec.tokenizer)[0]:
        raise UserError(f"model.name {name!r} pads with token 0, which is another token in the given network's tokenizer; use an encoder")
    if not (spec.tokenizer and models.is_encoder(name)):
        return spec
    known = dict(zip(bert.IDS, tokenization.special_ids(spec.tokenizer), strict=True))
    if start and models.is_encoder(start.model["name"]):
        theirs = start._replace(num_classes=start.num_classes or 1).module()
        known |= {size: getattr(theirs, size) for size in bert.SIZES}
        spec = spec._replace(vocabulary_size=start.vocabulary_size)
    with checks.naming("model"):
        spec = spec._replace(model=spec.model | {option: _agreed(option, spec.model, known) for option in models.options(name)})
    layers = spec.module().layers
    if layers > known.get("layers", layers):
        raise UserError(f"model.layers is {layers}, but {known['layers']} in the initial weights; it cannot be more")
    return spec


def _agreed(option: str, model: dict[str, Any], known: dict[str, Any]) -> Any:
    """The value of an encoder's option, given in its config or known from elsewhere; see `completed`."""
    given = model.get(option, models.options(model["name"])[option])
    if option not in (*bert.SIZES, *bert.IDS) or (option == "layers" and given):
        return given
    if option not in known:
        if not given and option != "epsilon":
            raise ValueError(f"{option} is 0, which means as in the initial weights; set it, or set initial, as in initial=hf:DIR")
        return given
    if given not in (0, known[option]):
        raise ValueError(f"{option} is {given}, but {known[option]} in the initial weights or the tokenizer; leave it at 0")
    return known[option]


def check_fits(where: str, theirs: Spec, ours: Spec, data_name: str) -> None:
    """Raises UserError unless a trained network, `where`, can teach one with the spec `ours`: same classes, inputs and vocabulary."""
    if theirs.task != ours.task:
        raise UserError(f"{where} was trained for {theirs.task}; this run is for {ours.task}")
    check_classes(where, theirs, ours, data_name)
    if theirs.input_shape != ours.input_shape:
        raise UserError(f"{where} takes inputs of shape {theirs.input_shape}; those of {data_name} are {ours.input_shape}")
    if not tokenization.same_words(theirs.tokenizer, ours.tokenizer):
        raise UserError(f"{where} has a different vocabulary from {data_name} here; train both on the same data")


def check_same(where: str, spec: Spec, first: Spec) -> None:
    """Raises UserError unless the teacher of a further seed, `where`, differs from that of the first seed only in its weights. Both fit the
    run: see `check_fits`."""
    if spec.module() != first.module():
        raise UserError(f"{where} is another network than that of the first seed; the teachers of all seeds must be of one kind")
    check_normalisation(where, spec, first)
    for field in ("vocabulary_size", "image_size", "tokenizer"):
        if getattr(spec, field) != getattr(first, field):
            raise UserError(f"{where} differs in {field} from that of the first seed; the teachers of all seeds must be of one kind")


def check_normalisation(where: str, theirs: Spec, ours: Spec) -> None:
    """Raises UserError unless a network of a further seed, `where`, normalises images as that of the first seed does."""
    means, stds = (theirs.input_mean, ours.input_mean), (theirs.input_std, ours.input_std)
    if not all(len(each[0]) == len(each[1]) and np.allclose(*each, rtol=1e-5) for each in (means, stds)):
        raise UserError(f"{where} normalises images differently from that of the first seed; train all of them on the same data")


def check_head(where: str, spec: Spec) -> None:
    """Raises UserError if a pre-trained network has no classes."""
    if not spec.num_classes:
        raise UserError(f"{where} has no classification head; fine-tune it first, as `initial`")


def check_classes(where: str, theirs: Spec, ours: Spec, data_name: str) -> None:
    """Raises UserError unless both have the same classes: equally many and, if both have names, the same names."""
    if theirs.num_classes != ours.num_classes:
        raise UserError(f"{where} has {theirs.num_classes} classes; {data_name} has {ours.num_classes}")
    if theirs.classes and ours.classes and theirs.classes != ours.classes:
        pairs = zip(theirs.classes, ours.classes, strict=True)
        number, (one, other) = next((number, pair) for number, pair in enumerate(pairs) if pair[0] != pair[1])
        raise UserError(f"{where} has different classes from {data_name}: class {number} is {one!r} there and {other!r} here")
