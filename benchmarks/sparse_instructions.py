"""Do XNNPACK's sparse kernels take a file whose kernels were pruned (dkp), and how many instructions do they save?

    python benchmarks/sparse_instructions.py --cores=cortex-a53,cortex-a76

MobileNetV1 for sparse inference (zoo:mobilenet_v1_sparse), float32, random weights, with shares of the weights of each
1x1 convolution set to zero, as dkp leaves them; executed instructions on emulated Arm cores, which are not time. Run
`dcp-tf setup arm` once.
"""

import sys

import numpy as np

from dcp_tf.tools.cli.program import Program

PROGRAM = Program("sparse_instructions", __doc__)
PROGRAM.list("zeros", ["0.6", "0.7", "0.8", "0.9"], "Shares of the weights.")
PROGRAM.list("cores", ["cortex-a53", "cortex-a76"], "Emulated Arm cores.")


def main(flags) -> None:
    """Prints the sizes and the instructions of the dense file and of those with zeros."""
    import keras

    from dcp_tf import models, tflite

    model, rng = models.build("mobilenet_v1_sparse"), np.random.default_rng(0)
    files = {"dense": tflite.convert(model)}
    layers = [x for x in model.layers if isinstance(x, keras.layers.Conv2D) and x.kernel_size == (1, 1)]
    trained = [layer.kernel.numpy() for layer in layers]
    for zeros in flags.zeros:
        for layer, kernel in zip(layers, trained, strict=True):
            layer.kernel.assign(kernel * (rng.random(kernel.shape) >= float(zeros)))
        files[zeros] = tflite.convert(model, quantization="sparse")
        accepted = tflite.sparse_inference_report(files[zeros]).accepted
        print(f"{float(zeros):.0%} zeros: {len(files[zeros].content):,} bytes, sparse kernels expected: {accepted}")
    print(f"dense: {len(files['dense'].content):,} bytes")
    for core in flags.cores:
        counted = tflite.count_instructions(files, core=core)
        for name, count in counted.counts.items():
            print(f"{core:12} {name:6} {count / 1e6:9.2f} M instructions {counted.ratios[name]:.2f}x", flush=True)


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
