# ruff: noqa: E501  (lines of real logs)
"""What benchmark_model prints, as it stands in TensorFlow's and LiteRT's documentation and issue threads."""

HEAD = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Min num runs: [50]
INFO: Num threads: [1]
INFO: Min warmup runs: [10]
INFO: Graph: [{graph}]
INFO: Signature to run: []
INFO: #threads used for CPU inference: [1]
"""
CPU = """\
INFO: Use xnnpack: [1]
INFO: Loaded model {graph}
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: XNNPACK delegate created.
VERBOSE: Replacing 31 out of 31 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for subgraph 0.
INFO: Explicitly applied XNNPACK delegate, and the model graph will be completely executed by the delegate.
"""
GPU = """\
INFO: Use gpu: [1]
INFO: Loaded model {graph}
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite delegate for GPU.
INFO: GPU delegate created.
INFO: Initialized OpenCL-based API.
INFO: Created 1 GPU delegate kernels.
INFO: Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate w/ 2 delegate kernels.
"""
GPU_REFUSED = """\
INFO: Use gpu: [1]
INFO: Loaded model {graph}
INFO: Created TensorFlow Lite delegate for GPU.
INFO: GPU delegate created.
ERROR: TfLiteGpuDelegate Init: Unrecognized Write selector
INFO: Created 0 GPU delegate kernels.
ERROR: TfLiteGpuDelegate Prepare: delegate is not initialized
ERROR: Node number 65 (TfLiteGpuDelegateV2) failed to prepare.
ERROR: Failed to apply GPU delegate.
ERROR: Benchmarking failed.
"""
NNAPI_NOT_EXECUTED = """\
INFO: Use NNAPI: [1]
INFO: NNAPI accelerators available: [ipuadaptor,nnapi-reference]
INFO: Loaded model {graph}
INFO: Created TensorFlow Lite delegate for NNAPI.
INFO: NNAPI delegate created.
INFO: Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate.
"""
MEASURED = """\
INFO: The input model file size (MB): 4.56118
INFO: Initialized session in 52.687ms.
INFO: Running benchmark for at least 10 iterations and at least 0.5 seconds but terminate if exceeding 60 seconds.
INFO: count=35 first=19105 curr=13909 min=13585 max=19105 avg=14452.5 std=1240{warm}

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 60 seconds.
INFO: count=70 first={us} curr={us} min={least} max={most} avg={us} std=452{percentiles}

INFO: Inference timings in us: Init: 52687, First inference: 19105, Warmup (avg): 14452.5, Inference (avg): {us}
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual \
memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=21.9492 overall=34.5234
"""
PROFILE = (
    """\
INFO: Overall peak memory footprint (MB) via periodic monitoring: 93.2383
INFO: Memory status at the end of exeution:
INFO: - VmRSS              : 93 MB
INFO: Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t ModifyGraphWithDelegate\t    6.348\t    6.348\t 55.640%\t 55.640%\t  7148.000\t        1\tModifyGraphWithDelegate/0

INFO: Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                QUANTIZE\t    0.199\t    0.203\t  1.328%\t  1.328%\t     0.000\t        1\t[tfl.quantize]:0
\tConvolution (NHWC, QC8) IGEMM\t    0.398\t    0.407\t  2.658%\t  3.986%\t     0.000\t        1\t"""
    """Delegate/Convolution (NHWC, QC8) IGEMM:0
\tConvolution (NHWC, QC8) DWConv\t    0.428\t    0.051\t  4.317%\t  8.304%\t     0.000\t       13\t"""
    """Delegate/Convolution (NHWC, QC8) DWConv:1

============================== Top by Computation Time ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\tConvolution (NHWC, QC8) IGEMM\t    0.398\t    0.407\t  2.658%\t  3.986%\t     0.000\t        1\t"""
    """Delegate/Convolution (NHWC, QC8) IGEMM:0

Number of nodes executed: 3
============================== Summary by node type ==============================
\t             [Node type]\t  [count]\t [avg ms]\t    [avg %]\t    [cdf %]\t  [mem KB]\t[times called]
\tConvolution (NHWC, QC8) IGEMM\t        1\t     0.407\t    50.000%\t    50.000%\t     0.000\t        1

Timings (microseconds): count=50 first=11409 curr=11409 min=11000 max=12000 avg=11500 std=10
Memory (bytes): count=0
3 nodes observed
"""
)
# From 2020, before "INFO:" and the percentiles, with the [start] column; the inside of a delegate is a second part.
OLD = """\
STARTING!
Duplicate flags: num_threads
Num threads: [4]
Graph: [/data/local/tmp/model.tflite]
Loaded model /data/local/tmp/model.tflite
INFO: Initialized TensorFlow Lite runtime.
The input model file size (MB): 0.004448
Initialized session in 0.855ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=15 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=32891 curr=33978 min=32641 max=34005 avg=3.32094e+04 std=450

Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 3.32094e+04
Peak memory footprint (MB): init=0 overall=12.8672
Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t  TfLiteXNNPackDelegate\t            0.000\t   11.665\t   11.422\t 21.939%\t 21.939%\t     0.000\t        1\t[aspp0/Relu]:71
\t         AVERAGE_POOL_2D\t           11.422\t    0.075\t    0.080\t  0.153%\t 22.092%\t     0.000\t        1\t[AvgPool2D/AvgPool]:61

============================== Top by Computation Time ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t  TfLiteXNNPackDelegate\t            0.000\t   11.665\t   11.422\t 21.939%\t 21.939%\t     0.000\t        1\t[aspp0/Relu]:71

Number of nodes executed: 2
Delegate internal:
============================== Run Order ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t Convolution (NHWC, F32) GEMM\t            0.000\t    9.000\t    9.100\t 80.000%\t 80.000%\t     0.000\t        1\tDelegate/Convolution (NHWC, F32) GEMM:0
\t                 Clamp 6\t            9.000\t    2.000\t    2.200\t 20.000%\t100.000%\t     0.000\t        0\tDelegate/Clamp 6:1
"""


def measured(us, percentiles=True):
    """The end of a run in which an inference takes `us` microseconds."""
    values = f" p5={us * 0.97:.0f} median={us} p95={us * 1.05:.0f}" if percentiles else ""
    warm = " p5=13700 median=13950 p95=18000" if percentiles else ""
    return MEASURED.format(us=us, least=us * 0.95, most=round(us * 1.1), percentiles=values, warm=warm)
