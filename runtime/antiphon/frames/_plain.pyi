from collections.abc import Callable

from antiphon.frames._base import Frame
from antiphon.frames._plan import Plan

# Who imports them without a compiled module has None in their place.
encode_plain: Callable[[Plan, Frame], bytes | None] | None
decode_plain: Callable[[dict[int, Plan], object], Frame | None] | None
