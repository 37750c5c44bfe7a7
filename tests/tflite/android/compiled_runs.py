"""What LiteRT's benchmark_model writes: messages of benchmark_result.proto and model_runtime_info.proto."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.lite.profiling.proto.model_runtime_info_pb2 import ModelRuntimeDetails, RuntimeSubgraph

FLOAT, INT64, INT32, MESSAGE = 2, 3, 5, 11  # field types of descriptor.proto
FIELDS = {
    "LatencyMetrics": {
        "avg_ms": FLOAT,
        "min_ms": FLOAT,
        "max_ms": FLOAT,
        "stddev_ms": FLOAT,
        "median_ms": FLOAT,
        "p5_ms": FLOAT,
        "p95_ms": FLOAT,
        "init_ms": FLOAT,
        "first_inference_ms": FLOAT,
        "average_warm_up_ms": FLOAT,
    },
    "MemoryMetrics": {"init_footprint_kb": INT64, "overall_footprint_kb": INT64, "peak_mem_mb": FLOAT},
    "MiscMetrics": {"model_size_mb": FLOAT, "num_runs": INT32, "num_warmup_runs": INT32},
}
PARTS = {"latency_metrics": "LatencyMetrics", "memory_metrics": "MemoryMetrics", "misc_metrics": "MiscMetrics"}


def _result_class():
    file = descriptor_pb2.FileDescriptorProto(name="result.proto", package="dcp_test", syntax="proto2")
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            message.field.add(name=field, number=number, type=kind, label=1)
    whole = file.message_type.add(name="BenchmarkResult")
    for number, (field, kind) in enumerate(PARTS.items(), start=2):
        whole.field.add(name=field, number=number, type=MESSAGE, type_name=f".dcp_test.{kind}", label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("dcp_test.BenchmarkResult"))


def result(ms, memory=True, runs=70):
    """The content of result.pb of a run in which an inference takes `ms` milliseconds."""
    message = _result_class()()
    latency = {"avg_ms": ms * 1.01, "min_ms": ms * 0.95, "max_ms": ms * 1.5, "stddev_ms": ms * 0.03, "median_ms": ms}
    latency |= {"p5_ms": ms * 0.97, "p95_ms": ms * 1.05, "init_ms": 50.0, "first_inference_ms": ms * 2}
    for name, value in (latency | {"average_warm_up_ms": ms * 1.1}).items():
        setattr(message.latency_metrics, name, value)
    if memory:
        message.memory_metrics.init_footprint_kb = 2048
        message.memory_metrics.overall_footprint_kb = 4096
    message.misc_metrics.num_runs = runs
    return message.SerializeToString()


def graph(operations, **delegates):
    """The content of graph.pb: `operations` in all, of which each delegate runs a number."""
    details = ModelRuntimeDetails()
    details.subgraphs.add(subgraph_type=RuntimeSubgraph.DELEGATE_SUBGRAPH).nodes.add(id=0)
    whole = details.subgraphs.add(subgraph_type=RuntimeSubgraph.TFLITE_SUBGRAPH)
    for number in range(operations):
        whole.nodes.add(id=number, type="CONV_2D")
    start = 0
    for number, (name, count) in enumerate(delegates.items()):
        node = whole.nodes.add(id=operations + number)
        node.delegate_node_details.delegate_name = name
        node.delegate_node_details.tflite_node_ids_replaced.extend(range(start, start + count))
        start += count
    return details.SerializeToString()


LOG = """\
INFO: Loading model from: {graph}
VERBOSE: Replacing 31 out of 31 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions.
INFO: count=35 first=19105 curr=13909 min=13585 max=19105 avg=14452.5 std=1240 p5=13700 median=13950 p95=18000

INFO: count=70 first={us} curr={us} min=9000 max=30000 avg={us} std=452 p5=9100 median={us} p95=29000

INFO: [./litert/tools/benchmark_litert_model.h:77] Model initialization: 52.69 ms
INFO: [./litert/tools/benchmark_litert_model.h:78] Warmup (first):       19.11 ms
INFO: [./litert/tools/benchmark_litert_model.h:80] Warmup (avg):         14.45 ms (35 runs)
INFO: [./litert/tools/benchmark_litert_model.h:82] Inference (avg):      14.00 ms (70 runs)
INFO: [./litert/tools/benchmark_litert_model.h:100] Init footprint:       21.95 MB
INFO: [./litert/tools/benchmark_litert_model.h:102] Overall footprint:    34.52 MB
"""
