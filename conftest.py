"""Settings for every test, those in the notebooks included, and which tests are `quick`: the method's own."""

import gc
import os

import pytest

from tests.outputs import Output

PATIENCE = 600  # seconds
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes: each has its core
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# glibc gives memory of more than some hundred kilobytes back as soon as it is free, and clears it when it is wanted
# again: up to half of the time of the larger tensors. Processes that begin from here on, kernels and the other workers,
# keep it.
for name, megabytes in (("MMAP_THRESHOLD", 32), ("TRIM_THRESHOLD", 256), ("TOP_PAD", 64)):
    os.environ.setdefault(f"MALLOC_{name}_", str(megabytes * 2**20))

# Files of quick tests, and which of their tests take seconds. `python -m pytest -m quick` collects nothing else.
QUICK: dict[str, tuple[str, ...]] = {
    "test_schedule.py": (),
    "test_transition.py": (
        "test_edges_have_no_nan_and_impossible_is_minus_infinity",
        "test_transition_matrix_is_the_product_of_one_step_matrices",
    ),
    "test_objective.py": (),
    "test_continuous.py": (
        "test_terms_are_the_limit_of_the_discrete_ones",
        "test_the_loss_is_an_unbiased_estimate_of_the_bound",
    ),
    "test_doctests.py": ("test_examples[vqlearn.networks.text]",),  # imports transformers
    "test_sampling.py": (),
    "test_unmasking.py": ("test_with_the_original_table_it_does_what_the_original_does",),
    "test_scheduler.py": (
        "test_draws_are_those_of_diffusers_in_every_dtype",
        "test_the_living_diffusers_draws_the_same_tokens",
    ),
    "test_exact.py": (
        "test_the_order_that_the_course_claims",
        "test_the_table_of_exact_strides_to_its_last_digit",
        "test_the_row_of_the_final_uniform_share_to_its_last_digit",
        "test_the_table_of_the_public_codes_skip_to_its_last_digit",
        "test_the_bound_is_never_under_the_likelihood_and_close_to_it",
        "test_beside_known_tokens_the_error_falls_with_the_steps",
        "test_beside_known_tokens_with_every_step",
        "test_without_masks_the_conditional_is_reached_up_to_the_odds_of_the_first_step",
        "test_what_is_drawn_beside_known_tokens_has_the_enumerated_distribution",
        "test_what_is_drawn_with_releases_has_the_enumerated_distribution",
        "test_tokens_that_are_released_during_the_run",
    ),
}

# In several processes these files come before the other tests: a long one at the end would leave a process idle.
LONG = (
    "test_gpu.py", "test_site.py", "test_site_browser.py", "test_course.py", "test_browser.py", "test_experiments.py",
    "test_exact.py", "test_ideal.py", "test_processes.py", "test_checkpoints.py", "test_main.py", "test_figures.py",
    "test_training.py", "test_transition.py", "test_scenes.py", "test_widgets.py", "test_waits.py", "test_warm.py",
)  # fmt: skip
TOGETHER = {"tests/test_site_browser.py": "tests/test_site.py"}  # in one process: they share what takes long to make


gc.disable()  # until all tests are collected: what is made until then stays, and to look it through again takes seconds


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items):
    ranks = {name: number for number, name in enumerate(LONG)}
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: (item.path.suffix != ".ipynb", ranks.get(item.path.name, len(LONG))))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file at a time, as `--dist loadfile` does."""
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return TOGETHER.get(file, file)

    return Files(config, log) if config.option.dist == "loadfile" else None


def pytest_ignore_collect(collection_path, config):
    """With `-m quick` other files are not even read: collecting the notebooks takes longer than the quick tests."""
    if config.option.markexpr == "quick" and collection_path.is_file() and collection_path.name not in QUICK:
        return True
    return None


def pytest_itemcollected(item):
    """Mark quick tests; give nbval what has no options: the limit for a cell's output, 5 s, and how it compares."""
    if item.path.name in QUICK and not {item.originalname, item.name} & {*QUICK[item.path.name]}:
        item.add_marker("quick")
    if hasattr(item, "output_timeout"):
        item.output_timeout = PATIENCE  # of slow machines
        item.sanitize = lambda value: Output(value) if isinstance(value, str) else value


def pytest_configure(config):
    """The kernels of the notebooks start warm: to import torch once for each of them takes minutes in all."""
    if not config.pluginmanager.hasplugin("nbval"):  # as on a bare machine
        return
    from jupyter_client.provisioning import KernelProvisionerFactory

    from vqlearn.course import warm

    KernelProvisionerFactory.instance().default_provisioner_name = warm.register()
