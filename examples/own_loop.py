"""A method in your own training loop: plain flax and optax, and nothing from distill_jax but the method.

python examples/own_loop.py snapshot
python examples/own_loop.py long_short_term
"""

import sys

import jax
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits

from distill_jax.methods import Batch, long_short_term, snapshot_distillation

EPOCHS, CYCLE_ENDS, BATCH_SIZE, TRAIN = 20, (10, 20), 50, 1400  # train on the first 1,400 of 1,797 images

digits = load_digits()
images, labels = digits.data.astype(np.float32) / 16, digits.target
network = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)])
method = {
    "snapshot": lambda: snapshot_distillation(network.apply, CYCLE_ENDS, temperature=2.0),
    "long_short_term": lambda: long_short_term(num_examples=TRAIN, num_classes=10, generation_epochs=5),
}[sys.argv[1] if len(sys.argv) > 1 else "snapshot"]()

cycle_steps = TRAIN // BATCH_SIZE * CYCLE_ENDS[0]
optimizer = optax.adam(optax.join_schedules([optax.cosine_decay_schedule(0.01, cycle_steps)] * 2, [cycle_steps]))
variables = network.init(jax.random.key(0), images[:1])
opt_state, teacher = optimizer.init(variables), method.init(variables)


@jax.jit
def train_step(variables, opt_state, teacher, images_BxD, labels_B, ids_B, key):
    signal = method.signal(teacher, Batch(images_BxD, ids_B), key)  # outside loss_fn: no gradient reaches the teacher

    def loss_fn(variables):
        logits_BxC = network.apply(variables, images_BxD)
        return method.loss(logits_BxC, labels_B, signal).loss, logits_BxC

    gradients, logits_BxC = jax.grad(loss_fn, has_aux=True)(variables)
    updates, opt_state = optimizer.update(gradients, opt_state)
    return optax.apply_updates(variables, updates), opt_state, logits_BxC


observe = method.observe and jax.jit(method.observe, donate_argnums=0)
for epoch in range(1, EPOCHS + 1):
    for step, ids in enumerate(np.random.default_rng(epoch).permutation(TRAIN).reshape(-1, BATCH_SIZE)):
        key = jax.random.fold_in(jax.random.key(epoch), step)  # for methods that use randomness; these two do not
        variables, opt_state, logits = train_step(variables, opt_state, teacher, images[ids], labels[ids], ids, key)
        if observe:
            teacher = observe(teacher, ids, logits)
    teacher = method.end_epoch(teacher, variables, epoch)

accuracy = (network.apply(variables, images[TRAIN:]).argmax(axis=1) == labels[TRAIN:]).mean()
print(f"test accuracy {accuracy:.2%}")
