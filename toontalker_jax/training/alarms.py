"""One-line warnings about a run that goes wrong in one of the ways that curves show too late."""

import collections
import statistics
from collections.abc import Iterator, Mapping

STEPS = 100  # an alarm needs so many in a row, a norm so many before it
DOMINANCE = 0.05  # of a discriminator's loss, which is 1.39 when it cannot tell real from fake
OUTBURST = 10.0  # of a gradient norm, against the median of those before
STILL = 0.95  # of the L1 of a result that does not move at all


class Alarms:
    """Looks at the metrics of every step, and says each thing once until it is over.

    - discriminator: its loss has been below 0.05 in 100 steps running. LIA's recipe runs like that and still learns;
      when pictures get worse, it is the first suspect.
    - gradient norm, of either optimizer: more than 10 times the median of the last 100 steps.
    - no motion: the reconstruction's L1 has been above 0.95 of a standing picture's ("still") in 100 steps running:
      the network copies its source.
    """

    def __init__(self):
        self._past: dict[str, collections.deque] = collections.defaultdict(lambda: collections.deque(maxlen=STEPS))
        self._said: set[str] = set()

    def __call__(self, step: int, values: Mapping[str, float]) -> list[str]:
        """The new warnings after this step, the next one; metrics as in `make_train_step`."""
        found = dict(self._look(values))
        new = [f"step {step}: {text}" for name, text in found.items() if name not in self._said]
        self._said = set(found)
        return new

    def _look(self, values: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        for name, value in values.items():
            kind, _, domain = name.partition("/")
            if kind == "gradient_norm":
                past = self._past[name]
                if len(past) == STEPS and value > OUTBURST * (usual := statistics.median(past)):
                    yield name, f"{name} is {value:.3g}, usually {usual:.3g}: a lower learning rate or clip_norm helps."
                past.append(value)
            if kind == "discriminator" and self._lasts(name, value < DOMINANCE):
                yield name, f"{name} is {value:.3g}: the discriminator wins; r1.gamma, or a lower rate for it, helps."
            still = values.get(f"still/{domain}")
            if kind == "l1" and still is not None and self._lasts(name, value > STILL * still):
                yield (
                    name,
                    f"{name} is {value:.3g}, standing still has {still:.3g}: nothing moves yet; "
                    "if that lasts: model.flow_init_scale=0.1, mask_init_bias=1.5, beta1=0.9.",
                )

    def _lasts(self, name: str, now: bool) -> bool:
        past = self._past[name]
        past.append(now)
        return len(past) == STEPS and all(past)
