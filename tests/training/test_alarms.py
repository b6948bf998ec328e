"""When a run's warnings come, and that they come once."""

import pytest

from toontalker_jax.training.alarms import STEPS, Alarms

QUIET = {"gradient_norm": 1.0, "discriminator/real": 1.0, "l1/real": 0.1, "still/real": 0.2}


def warnings(reports):
    alarms = Alarms()
    return [alarms(step, values) for step, values in enumerate(reports, 1)]


def test_a_run_that_goes_well_is_left_alone():
    assert not any(warnings([QUIET | {"gradient_norm": 1 + step % 5} for step in range(3 * STEPS)]))
    nearly = QUIET | {"discriminator/real": 0.06, "l1/real": 0.18}
    assert not any(warnings([nearly] * 3 * STEPS))


def test_a_winning_discriminator_is_told_once_and_again_after_it_lost():
    winning, losing = QUIET | {"discriminator/real": 0.04}, QUIET
    said = warnings([winning] * (STEPS + 5) + [losing] + [winning] * STEPS)
    assert [i for i, lines in enumerate(said, 1) if lines] == [STEPS, 2 * STEPS + 6]
    assert said[STEPS - 1] == [
        "step 100: discriminator/real is 0.04: the discriminator wins; r1.gamma, or a lower rate for it, helps."
    ]


@pytest.mark.parametrize("name", ["gradient_norm", "gradient_norm/discriminator"])
def test_an_outburst_of_a_gradient_is_measured_by_what_was_usual(name):
    quiet = QUIET | {name: 1.0}
    said = warnings([quiet] * STEPS + [quiet | {name: 10.5}, quiet, quiet | {name: 9.5}])
    assert [len(lines) for lines in said[-3:]] == [1, 0, 0]
    assert said[-3][0].startswith(f"step 101: {name} is 10.5, usually 1:")
    assert not any(warnings([quiet] * (STEPS - 1) + [quiet | {name: 1e6}]))


def test_a_network_that_copies_its_source_is_told_apart_from_one_that_moves():
    copying = QUIET | {"l1/real": 0.192}
    said = warnings([copying] * STEPS)
    assert len(said[-1]) == 1 and "l1/real is 0.192, standing still has 0.2: nothing moves" in said[-1][0]
    assert not any(warnings([copying] * (STEPS - 1) + [QUIET] + [copying] * (STEPS - 1)))
