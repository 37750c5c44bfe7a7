"""Networks: those that come with dcp_tf, those of keras.applications, and those in a user's file."""

from dcp_tf.models.applications import APPLICATIONS
from dcp_tf.models.functional import check_functional
from dcp_tf.models.load import LoadedModel, load
from dcp_tf.models.mobilenet import mobilenet_v2_small
from dcp_tf.models.outputs import outputs_kind
from dcp_tf.models.preresnet import preresnet
from dcp_tf.models.zoo import NETWORKS, build

__all__ = [
    "APPLICATIONS",
    "NETWORKS",
    "LoadedModel",
    "build",
    "check_functional",
    "load",
    "mobilenet_v2_small",
    "outputs_kind",
    "preresnet",
]
