"""When a run's warnings come, and that they come once."""

from toontalker_jax.training.alarms import REPORTS, Alarms

QUIET = {"gradient_norm": 1.0, "discriminator/real": 1.0, "l1/real": 0.1, "still/real": 0.2}


def warnings(reports):
    alarms = Alarms()
    return [alarms(step, values) for step, values in enumerate(reports, 1)]


def test_a_run_that_goes_well_is_left_alone():
    assert not any(warnings([QUIET | {"gradient_norm": 1 + step % 5} for step in range(50)]))
    assert not any(warnings([QUIET | {"discriminator/real": 0.06, "l1/real": 0.18}] * 50))  # just on the right side


def test_a_winning_discriminator_is_told_once_and_again_after_it_lost():
    winning, losing = QUIET | {"discriminator/real": 0.04}, QUIET
    said = warnings([winning] * 15 + [losing] + [winning] * REPORTS)
    assert [i for i, lines in enumerate(said, 1) if lines] == [REPORTS, 16 + REPORTS]
    assert said[REPORTS - 1] == [
        "step 10: discriminator/real is 0.04: the discriminator wins; r1.gamma, or a lower rate for it, helps."
    ]


def test_an_outburst_of_the_gradient_is_measured_by_what_was_usual():
    said = warnings([QUIET] * REPORTS + [QUIET | {"gradient_norm": 10.5}, QUIET, QUIET | {"gradient_norm": 9.5}])
    assert [len(lines) for lines in said[-3:]] == [1, 0, 0] and "usually 1:" in said[-3][0]
    assert not any(warnings([QUIET] * (REPORTS - 1) + [QUIET | {"gradient_norm": 1e6}]))


def test_a_network_that_copies_its_source_is_told_apart_from_one_that_moves():
    copying = QUIET | {"l1/real": 0.192}
    said = warnings([copying] * REPORTS)
    assert len(said[-1]) == 1 and "l1/real is 0.192, standing still has 0.2: nothing moves" in said[-1][0]
    assert not any(warnings([copying] * (REPORTS - 1) + [QUIET] + [copying] * (REPORTS - 1)))
