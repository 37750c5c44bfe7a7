"""Networks: those that come with dcp_tf, those of keras.applications, and those in a user's file."""

from dcp_tf.models.applications import APPLICATIONS
from dcp_tf.models.batch import with_open_batch
from dcp_tf.models.full_precision import in_full_precision
from dcp_tf.models.functional import check_functional
from dcp_tf.models.inputs import takes_raw_pixels
from dcp_tf.models.keras2.convert import from_tf_keras
from dcp_tf.models.load import LoadedModel, load
from dcp_tf.models.networks.autoencoder import autoencoder
from dcp_tf.models.networks.cifar_resnet import cifar_resnet, resnet8
from dcp_tf.models.networks.detector import detector_mobilenet_v2
from dcp_tf.models.networks.ds_cnn import ds_cnn
from dcp_tf.models.networks.faces import lresnet34e_ir, mobilefacenet, spherenet4, spherenet20
from dcp_tf.models.networks.image_and_metadata import image_and_metadata
from dcp_tf.models.networks.mobilenet_v1 import mobilenet_v1, mobilenet_v1_025, mobilenet_v1_cifar, mobilenet_v1_sparse
from dcp_tf.models.networks.mobilenet_v2 import mobilenet_v2, mobilenet_v2_cifar, mobilenet_v2_small
from dcp_tf.models.networks.mobilevit import mobilevit_cifar
from dcp_tf.models.networks.preresnet import preresnet
from dcp_tf.models.networks.resnet import resnet18, resnet50
from dcp_tf.models.networks.unet import unet
from dcp_tf.models.networks.vgg import vgg16_cifar, vgg19_cifar
from dcp_tf.models.networks.vit import vit_cifar
from dcp_tf.models.outputs import outputs_kind
from dcp_tf.models.paper_scope import paper_scope
from dcp_tf.models.retrace import to_functional
from dcp_tf.models.time_distributed import steps_as_rows
from dcp_tf.models.zoo import NETWORKS, build

__all__ = [
    "APPLICATIONS",
    "NETWORKS",
    "LoadedModel",
    "autoencoder",
    "build",
    "check_functional",
    "cifar_resnet",
    "detector_mobilenet_v2",
    "ds_cnn",
    "from_tf_keras",
    "image_and_metadata",
    "in_full_precision",
    "load",
    "lresnet34e_ir",
    "mobilefacenet",
    "mobilenet_v1",
    "mobilenet_v1_025",
    "mobilenet_v1_cifar",
    "mobilenet_v1_sparse",
    "mobilenet_v2",
    "mobilenet_v2_cifar",
    "mobilenet_v2_small",
    "mobilevit_cifar",
    "outputs_kind",
    "paper_scope",
    "preresnet",
    "resnet8",
    "resnet18",
    "resnet50",
    "spherenet4",
    "spherenet20",
    "steps_as_rows",
    "takes_raw_pixels",
    "to_functional",
    "unet",
    "vgg16_cifar",
    "vgg19_cifar",
    "vit_cifar",
    "with_open_batch",
]
