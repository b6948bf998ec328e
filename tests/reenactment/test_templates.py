from fractions import Fraction

import numpy as np
import pytest

from toontalker_jax.models.config import ModelConfig
from toontalker_jax.reenactment import templates
from toontalker_jax.reenactment.templates import MotionTemplate

CODES = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
TEMPLATE = MotionTemplate(CODES, "real", "ab" * 32, Fraction(30000, 1001))


@pytest.mark.parametrize("times", [None, tuple(Fraction(n * n, 90000) for n in range(5))])
def test_a_template_comes_back_as_it_was(tmp_path, times):
    wanted = TEMPLATE._replace(times=times)
    templates.save_template(tmp_path / "motion.npz", wanted)
    got = templates.load_template(tmp_path / "motion.npz")
    np.testing.assert_array_equal(got.codes, wanted.codes)
    assert got[1:] == wanted[1:]
    assert [path.name for path in tmp_path.iterdir()] == ["motion.npz"]


def test_a_failed_save_leaves_the_older_file(tmp_path, monkeypatch):
    templates.save_template(tmp_path / "motion.npz", TEMPLATE)

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        templates.save_template(tmp_path / "motion.npz", TEMPLATE)
    assert [path.name for path in tmp_path.iterdir()] == ["motion.npz"]
    np.testing.assert_array_equal(templates.load_template(tmp_path / "motion.npz").codes, CODES)


def test_what_is_no_template_is_refused_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError):
        templates.load_template(tmp_path / "nowhere.npz")
    path = tmp_path / "bad.npz"
    objects = np.array([{"a": 1}], dtype=object)
    good = {"codes": CODES, "about": np.array('{"format": 2}')}
    bad_files = [
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(b"not a zip"),
        lambda: np.savez(path, codes=CODES),
        lambda: np.savez(path, codes=objects, about=objects),  # a pickle
        lambda: np.savez(path, **good),  # of another format
        lambda: templates.save_template(path, TEMPLATE._replace(codes=CODES[0])),
        lambda: templates.save_template(path, TEMPLATE._replace(codes=CODES * np.nan)),
    ]
    for write in bad_files:
        write()
        with pytest.raises(ValueError, match="bad.npz: not a motion template") as error:
            templates.load_template(path)
        assert "\n" not in str(error.value)


def test_only_the_network_and_the_domain_it_was_made_by_are_taken():
    templates.check_template(TEMPLATE, "real", "ab" * 32, (2, 3))
    with pytest.raises(ValueError, match="of a real driver, this type takes a cartoon one"):
        templates.check_template(TEMPLATE, "cartoon", "ab" * 32, (2, 3))
    with pytest.raises(ValueError, match="made by network abababababab, this is cdcdcdcdcdcd"):
        templates.check_template(TEMPLATE, "real", "cd" * 32, (2, 3))


def test_the_hash_tells_networks_apart_and_nothing_else(tiny_model):
    config = tiny_model().config
    same = templates.network_hash(tiny_model())
    assert same == templates.network_hash(tiny_model())
    assert same == templates.network_hash(tiny_model(config=ModelConfig(**vars(config) | {"dtype": "bfloat16"})))
    changed = tiny_model()
    changed.domains["cartoon"].to_styles.bias[...] += 1e-3
    assert len({same, templates.network_hash(changed), templates.network_hash(tiny_model(("real",)))}) == 3
