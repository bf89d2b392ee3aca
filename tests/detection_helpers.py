"""A tiny detector."""

from flax import linen as nn

from distill_jax.models.fcos import Detector


class Boxes(nn.Module):
    """The places of FCOS over two convolutions; each further level is the mean of the one before."""

    num_classes: int
    width: int = 16

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.relu(nn.Conv(self.width, (4, 4), 4, name="patches")(images))
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(self.width, (3, 3), 2, name="conv")(x)))
        maps = [x]
        for _ in range(2):
            maps.append(nn.avg_pool(maps[-1], (2, 2), (2, 2), padding="SAME"))
        return Detector(self.num_classes, channels=16, convolutions=0)(maps)
