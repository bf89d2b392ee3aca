"""Images per second that streaming reads, decodes and crops when nothing else is running.

    python benchmarks/loader.py /data/imagenet --image_size=224 --batch_size=256

To see how long a run waits for its data, look at data_wait in its metrics.jsonl, a fraction of its time.
"""

import argparse
import statistics
import time

from distill_jax.data import load
from distill_jax.data.batches import epoch_order
from distill_jax.data.streaming import batches, own_cores


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5, help="epochs of at most --batches batches each")
    parser.add_argument("--batches", type=int, default=20)
    arguments = parser.parse_args(argv)
    images = load(f"folder:{arguments.folder}", image_size=arguments.image_size).train["image"]
    speeds = []
    for epoch in range(arguments.repeats + 1):
        order = epoch_order(0, epoch, len(images.rows), arguments.batch_size)[: arguments.batches]
        start = time.perf_counter()
        read = sum(len(batch["id"]) for batch in batches(images, order, (0, epoch)))
        speeds.append(read / (time.perf_counter() - start))
    speeds = speeds[1:]  # the first epoch warms up the file cache
    report = (
        f"{statistics.median(speeds):.0f} images/s (median of {len(speeds)}, {min(speeds):.0f} to {max(speeds):.0f}), crops of "
        f"{arguments.image_size} pixels, {own_cores()} cores"
    )
    print(report)
    return report


if __name__ == "__main__":
    main()
