"""What is said of a wrong way to join other processes."""

import pytest

from toontalker_jax.training import processes


@pytest.mark.parametrize("how", ["somewhere", "localhost,2,0", "localhost:1,2", "localhost:1,2,x", "localhost:1,2,2"])
def test_a_wrong_description_of_the_others_is_one_clear_error(how):
    with pytest.raises(ValueError, match=f"--distributed={how}: "):
        processes.join(how)


def test_alone_where_nothing_is_said():
    processes.join("")
