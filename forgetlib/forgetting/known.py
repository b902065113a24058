"""Every method of the package: who reads a stored checkpoint knows them by importing this file.

A new file of methods has its line here. It imports torch where it needs it only, as they all do.
"""

from forgetlib.forgetting.arithmetic import Noise, TaskVector
from forgetlib.forgetting.ascent import GradientAscent, GradientDifference, KLAscent
from forgetlib.forgetting.direction import WithoutDirection
from forgetlib.forgetting.erasure import LEACE
from forgetlib.forgetting.filtering import PromptFilter
from forgetlib.forgetting.labels import Labels
from forgetlib.forgetting.lock import Lock
from forgetlib.forgetting.preference import DPO, NPO, SimNPO
from forgetlib.forgetting.quantise import Quantise
from forgetlib.forgetting.representation import RMU
from forgetlib.forgetting.selective import SSD, SelectivePruning
from forgetlib.forgetting.uniform import UniformChoice, UniformToken

__all__ = [
    "DPO",
    "LEACE",
    "NPO",
    "RMU",
    "SSD",
    "GradientAscent",
    "GradientDifference",
    "KLAscent",
    "Labels",
    "Lock",
    "Noise",
    "PromptFilter",
    "Quantise",
    "SelectivePruning",
    "SimNPO",
    "TaskVector",
    "UniformChoice",
    "UniformToken",
    "WithoutDirection",
]
