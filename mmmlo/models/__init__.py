from mmmlo import registry  # noqa: F401 - applies mmmlo.compat, which must precede mmpretrain

from .backbones import *  # noqa: F401,F403
from .data_preprocessors import *  # noqa: F401,F403
from .downstream import *  # noqa: F401,F403
from .heads import *  # noqa: F401,F403
from .losses import *  # noqa: F401,F403
from .maskers import *  # noqa: F401,F403
from .necks import *  # noqa: F401,F403
from .selfsup import *  # noqa: F401,F403
from .weighting import ScoreWeights, SoftWeights, TopWeights, UniformWeights  # noqa: F401
