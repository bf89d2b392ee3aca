"""LSTSD's tables on several devices: memory per device, and the time and the traffic between devices of a read and of a write.

    python benchmarks/sample_table.py --devices=8 --rows=128000 --classes=1000 --batch_size=256

On a machine without that many accelerators the devices are CPU threads: the bytes are those a pod would move, the times are not.
"""

import argparse
import statistics
import time

import jax
import numpy as np
from collectives import collective_bytes

from distill_jax import methods, sharding
from distill_jax.methods.long_short_term import read_rows, write_rows


def seconds(call, repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--rows", type=int, default=128_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=256, help="over all devices")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args(argv)
    if jax.default_backend() == "cpu" and jax.device_count() < arguments.devices:
        parser.error(f"{jax.device_count()} devices found; set JAX_NUM_CPU_DEVICES={arguments.devices}")

    mesh = sharding.make_mesh(jax.devices()[: arguments.devices])
    by_row = sharding.rows(mesh)
    method = methods.long_short_term(arguments.rows, arguments.classes, mesh.size, table_dtype=arguments.dtype)
    table = jax.jit(lambda: method.init(None), out_shardings=by_row)()
    rng = np.random.default_rng(0)
    ids = sharding.put(rng.choice(arguments.rows, arguments.batch_size, replace=False).astype(np.int32), by_row)
    logits = sharding.put(rng.standard_normal((arguments.batch_size, arguments.classes), np.float32), by_row)
    read = jax.jit(read_rows, out_shardings=by_row)
    write = jax.jit(write_rows, donate_argnums=0, out_shardings=by_row)
    crossing = [collective_bytes(program.compile()) for program in (read.lower(table, ids), write.lower(table, ids, logits))]

    def write_once():
        nonlocal table
        table = write(table, ids, logits)
        return table

    times = seconds(lambda: read(table, ids), arguments.repeats), seconds(write_once, arguments.repeats)
    memory = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(table))
    report = "\n".join(
        [
            f"{arguments.rows} x {arguments.classes} {arguments.dtype}, two tables, batch {arguments.batch_size}, "
            f"{arguments.devices} {jax.devices()[0].device_kind} devices",
            f"memory per device: {memory / 2**20:.1f} MiB",
            f"read: {times[0] * 1e3:.2f} ms, collectives {crossing[0] or 'none'} bytes per device",
            f"write: {times[1] * 1e3:.2f} ms, collectives {crossing[1] or 'none'} bytes per device",
        ]
    )
    print(report)
    return report


if __name__ == "__main__":
    main()
