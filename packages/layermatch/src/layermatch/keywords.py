"""A misspelt keyword is answered with the nearest one that is taken, and another project's name for it with ours.

Python 3.11 says of a keyword that a function does not take that it is unexpected, and no more. Signatures stay as they are.
"""

import difflib
import functools
import inspect
from collections.abc import Callable, Collection
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Found = TypeVar("Found")
# What USB, TorchSSL and FixMatch-pytorch call a setting of ours.
ELSEWHERE = {
    "p_cutoff": "threshold",
    "tau": "threshold",
    "ulb_loss_ratio": "unlabelled_weight",
    "lambda_u": "unlabelled_weight",
    "ema_m": "momentum",
    "num_classes": "classes",
    "ulb_dest_len": "images",
    "ent_loss_ratio": "fairness_weight",
    "thresh_warmup": "warm_up",
}


def spelt(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """The function, for a constructor and the like; called with a keyword that it does not take it says which one it has.

    Raises:
        TypeError: as Python's own; the keyword and the nearest one, or all of them, are named.
    """
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        for name in kwargs:
            if name not in names:
                what = function.__qualname__.removesuffix(".__init__")
                raise TypeError(f"{what} takes no {name}=. {nearest(name, [own for own in names if own != 'self'])}")
        return function(*args, **kwargs)

    return checked


def nearest(name: str, known: Collection[str]) -> str:
    """A sentence with the known name that a person may have meant by `name`, or with all of them."""
    if ELSEWHERE.get(name) in known:
        return f"Here it is called {ELSEWHERE[name]}."
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]}?" if near else f"Choose from {', '.join(known)}."
