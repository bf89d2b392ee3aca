"""Methods by name, with the setting of a small run."""

from distill_jax import methods

B, C = 16, 7
SETTING = methods.Setting(apply=None, cycle_ends=(2, 4), num_examples=50, num_classes=C, num_teachers=1, epochs=4, batch_size=B)


def make(name, num_teachers=1, **options):
    setting = SETTING._replace(num_teachers=num_teachers if methods.is_guided(name) else 0)
    return methods.create(name, setting, **options)
