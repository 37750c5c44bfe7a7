"""How channels are ranked or chosen."""

import dataclasses

from dcp_tf.settings.table import Settings, documented, setting


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice(Settings):
    """Which method chooses."""

    method: str = setting(
        "dcp",
        "How channels are chosen. dcp: those that the losses need most, at a fixed rate; adapt_dcp: the same, each "
        "group as wide as its loss needs; dkp, adapt_dkp: the same with single kernels (all weights between one "
        "channel and one filter), whose zeros make files smaller and few devices faster; dcp_dkp: channels first, then "
        "kernels of what is left; random: randomly; l1, l2: the filters with the largest weights; fpgm: the "
        "filters farthest from the others; bn_scale: the largest BatchNormalization scales; taylor: those without "
        "which the loss would change most, to first order; apoz: those that are zero least often; thinet, lasso: those "
        "from which the next layers' outputs can be made again; width_multiplier: none of these, a network of the "
        "same shape is trained from scratch with the schedule of the fine-tuning. Others: what the file of "
        "{custom_objects} registers (dcp_tf.register_importance).",
    )


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Refit(Settings):
    """Whether a ranking is followed by a fit."""

    update: bool = setting(
        False,
        "For methods that only rank channels (random to apoz): fit the weights that read the remaining channels layer "
        "by layer as dcp does, with the settings below.",
    )
