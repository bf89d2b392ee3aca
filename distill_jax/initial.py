"""Networks that start from the weights of another: of a finished run, or a pre-trained one.

All layers but the head must match. A head of another shape is newly initialised, and so are the layers `WITH_CLASSES` if the classes have
other names or another order. The head is the layer "head" (plus an encoder's "pooler") or, in a network with a trunk, everything on top of
it. A trunk can start from a classification network, whose trunk is all but its head, and an encoder from one with more layers.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from distill_jax import logs, models, pretrained, sharding, trained
from distill_jax.data import tokenization
from distill_jax.errors import UserError
from distill_jax.models import bert
from distill_jax.specs import Spec

WITH_CLASSES = ("head", "classifier", "detector")  # layers whose outputs are those of the classes, or contain them
OF_ENCODERS = ("layers", "pooling", "dropout")  # options in which an encoder may differ from the one that it starts from


def check(name: str, theirs: Spec, ours: Spec, data_name: str) -> None:
    """Raises UserError unless a network can start from the weights of another.

    Args:
      name: config.initial.
      theirs: the spec of the network that it names.
      ours: that of the network to be trained.
      data_name: of the data set, for the message.
    """
    if not tokenization.same_words(theirs.tokenizer, ours.tokenizer):
        raise UserError(f"initial: {name} has a different vocabulary from {data_name}")
    difference = _difference(theirs._replace(num_classes=theirs.num_classes or 1), ours)
    if difference is not None:
        told = f"{theirs.model['name']}{difference and f' ({difference})'}"
        raise UserError(f"initial: {name} holds a different network from {ours.model['name']}, which this run trains: {told}")


def check_new(model: Mapping[str, Any]) -> None:
    """Raises UserError if a network with new weights would keep statistics that nobody has measured."""
    if model["name"] in models.MODELS and model.get("norm") == "frozen":
        raise UserError(
            "model.norm is 'frozen', which keeps the statistics of the network in `initial`; set initial, or model.norm to batch or group"
        )


def load(name: str, run: trained.Run, fresh: dict[str, Any], mesh: Mesh, classes: tuple[str, ...] = ()) -> dict[str, Any]:
    """The weights with which a new network starts, on every device. Says what was loaded and what was not.

    Args:
      name: config.initial.
      run: what it names.
      fresh: the new network, {"params": ..., "batch_stats": ...}.
      mesh: the devices.
      classes: the names of the new network's classes, if they are known.
    """
    source = pretrained.load(run.source, run.spec) if run.source else pretrained.Loaded(trained.load_variables(run, mesh), (), ())
    found = _placed(source.network, fresh)
    other = WITH_CLASSES if _are_others(classes, run) else ()
    afresh = [
        part
        for part in fresh["params"]
        if part in other or any(_shapes(found[kind].get(part)) != _shapes(fresh[kind].get(part)) for kind in fresh)
    ]
    network = {kind: tree | {part: found[kind][part] for part in tree if part not in afresh} for kind, tree in fresh.items()}
    size = sum(leaf.size for part, tree in network["params"].items() if part not in afresh for leaf in jax.tree.leaves(tree))
    said = [f"initial: {size:,} parameters of {name}"]
    if layers := _chosen(source.network["params"], fresh["params"]):
        said.append(f"layers {', '.join(map(str, layers))} of {_depth(source.network['params'])}")
    unused = (*source.unused, *sorted(found["params"].keys() - (fresh["params"].keys() - set(afresh))))
    for what, parts in (("not used", unused), ("new", afresh)):
        if parts:
            said.append(f"{what}: {', '.join(parts[:5])}{f' and {len(parts) - 5} more' * (len(parts) > 5)}")
    logs.say("; ".join(said))
    return sharding.put(network, sharding.replicated(mesh))


def _are_others(classes: tuple[str, ...], run: trained.Run) -> bool:
    """Whether a run's network has other classes, or another order of them. For a pre-trained one, classes that are numbers may be any."""
    theirs = run.spec.classes if not run.source or pretrained.has_names(classes) else ()
    return bool(theirs and classes) and theirs != classes


def _difference(theirs: Spec, ours: Spec) -> str | None:
    """What keeps a network from starting from another: None if nothing does, "" if their names already say it."""
    one, other = theirs.module(), ours.module()
    if models.is_encoder(theirs.model["name"]) and models.is_encoder(ours.model["name"]):
        same = {option: getattr(other, option) for option in (*OF_ENCODERS, "num_classes")}
        return None if one.clone(**same) == other else ""
    versions = [getattr(module, "version", None) for module in (one, other)]
    if versions[0] != versions[1] and all(spec.model["name"] in models.MODELS for spec in (theirs, ours)):
        return f"version is {versions[0]!r} there, {versions[1]!r} here"
    wanted = ours.abstract_network()
    found = _placed(theirs.abstract_network(), wanted)
    for kind in wanted:
        there, here = _shapes(_body(found[kind], wanted)), _shapes(_body(wanted[kind], wanted))
        for path in (*here, *there):
            if here.get(path) != there.get(path):
                return f"{path} is {there.get(path, 'absent')} there, {here.get(path, 'absent')} here"
    return None


def _body(tree: dict[str, Any], network: dict[str, Any]) -> dict[str, Any]:
    """What must fit of a network's parameters or statistics: all but the head."""
    return {layer: leaves for layer, leaves in tree.items() if models.in_trunk(layer, network["params"])}


def _placed(network: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """A network's variables under the names of another's: see the top of this file."""
    params = network["params"]
    if "trunk" in like["params"] and "trunk" not in params:
        return {
            kind: {"trunk": _body(tree, network)} | {part: tree[part] for part in models.HEADS if part in tree}
            for kind, tree in network.items()
        }
    if chosen := _chosen(params, like["params"]):
        layers = {f"layer{number}": params[f"layer{theirs}"] for number, theirs in enumerate(chosen)}
        params = {part: tree for part, tree in params.items() if not _is_layer(part)} | layers
    return network | {"params": params}


def _chosen(params: dict[str, Any], like: dict[str, Any]) -> tuple[int, ...]:
    """The layers of a deeper encoder that a shallower one starts from; () if the depths are equal."""
    deep, shallow = _depth(params), _depth(like)
    return bert.evenly(shallow, deep) if 0 < shallow < deep else ()


def _depth(params: dict[str, Any]) -> int:
    return sum(map(_is_layer, params))


def _is_layer(part: str) -> bool:
    return bool(re.fullmatch(r"layer\d+", part))


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}
