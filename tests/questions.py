"""Questions that tests ask."""

from forgetlib.data import splits, tasks
from forgetlib.data.base import Example


def mixed_examples(n=24):
    """Synthetic examples of all four tasks: one-token and shared prompts, several lengths."""
    names = tasks.suite("tiny")
    single = [e for name in names for e in splits.load(name, "test", n // 4, 0)]
    long = [
        Example(f"long/test/{i}", e.prompts, (f"{e.choices[0]} ? is", f"{e.choices[1]} it"), 0)
        for i, e in enumerate(single[:4])
    ]
    return single + long
