from .hooks import *  # noqa: F401,F403
from .hypergradients import *  # noqa: F401,F403
from .loops import *  # noqa: F401,F403
from .non_finite import *  # noqa: F401,F403
from .optim_wrappers import *  # noqa: F401,F403
from .wrappers import *  # noqa: F401,F403
