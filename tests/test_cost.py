"""What a run costs, and the dtype that "auto" is: with rates of our own, whatever machine the tests run on."""

import json
import os
import re
import warnings

import pytest
import torch

from vqlearn import Transformer2DModel, VQDiffusionPipeline
from vqlearn.__main__ import main
from vqlearn.networks import cost

FAST = {"float32": 1e11, "bfloat16": 8e11}  # a CPU that multiplies bfloat16 in hardware
SLOW = {"float32": 1e11, "bfloat16": 2e10}
ALIKE = {"float32": 1e11, "bfloat16": 1.2e11}  # no more than a busy machine may pretend
PROMPT = "a large red circle left of a small blue square"


@pytest.fixture
def rates(tmp_path, monkeypatch):
    """`rates(FAST)` makes this machine measure so; the list that it returns has an entry for each measurement."""
    monkeypatch.setattr(cost, "rates_file", lambda: tmp_path / "cache" / "rates.json")

    def pretend(found):
        measured = []
        monkeypatch.setattr(cost, "measured_rates", lambda: measured.append(found) or dict(found))
        monkeypatch.setattr(cost, "matmul_rate", lambda device, dtype, size=1024: found[cost._name(dtype)])
        return measured

    return pretend


@pytest.fixture
def large(monkeypatch):
    """The shipped model is a large one."""
    monkeypatch.setattr(cost, "LARGE", 1_000_000)


# ------------------------------------------------------------------------------------------ auto


@pytest.mark.parametrize(
    ("found", "dtype"),
    [(FAST, torch.bfloat16), (SLOW, torch.float32), (ALIKE, torch.float32)],
    ids=["fast", "slow", "="],
)
def test_auto_is_what_the_cpu_multiplies_faster(rates, found, dtype):
    rates(found)
    chosen, why = cost.auto_dtype(1_359_274_624)
    assert chosen == dtype
    assert f"at 100 GFLOP/s in float32 and {found['bfloat16'] / 1e9:.0f} GFLOP/s in bfloat16" in why


def test_auto_for_a_small_model_is_float32_unmeasured(rates):
    measured = rates(FAST)
    for device in (None, "cpu", "cuda"):
        assert cost.auto_dtype(99_999_999, device) == (torch.float32, "100.0 M weights are fewer than 100 M")
    assert not measured
    assert VQDiffusionPipeline.from_pretrained(torch_dtype="auto").dtype == torch.float32


def test_auto_on_other_devices(rates):
    measured = rates(FAST)
    assert cost.auto_dtype(10**9, "cuda:1").dtype == torch.float16
    assert cost.auto_dtype(10**9, torch.device("mps")).dtype == torch.float32
    assert not measured


def test_a_large_model_is_loaded_as_auto_says(rates, large):
    """All of its parts, and it draws."""
    rates(FAST)
    pipe = VQDiffusionPipeline.from_pretrained(torch_dtype="auto")
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert {weight.dtype for part in modules for weight in part.parameters()} == {torch.bfloat16}
    pipe.set_progress_bar_config(disable=True)
    assert pipe(PROMPT, num_inference_steps=2).images[0].size == (32, 32)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_a_dtype_by_its_name(name):
    assert VQDiffusionPipeline.from_pretrained(torch_dtype=name).dtype == getattr(torch, name)
    assert cost.dtype_of(getattr(torch, name)) == getattr(torch, name)


@pytest.mark.parametrize("wrong", ["half", "torch.float32", "", 16, torch.int8, torch.complex64, ["auto"], True])
def test_another_dtype_is_one_sentence(wrong):
    sentence = "torch_dtype must be 'auto', one of float16, bfloat16, float32, float64 .*, got " + re.escape(
        repr(wrong)
    )
    with pytest.raises(ValueError, match=sentence) as caught:
        VQDiffusionPipeline.from_pretrained("no such folder", torch_dtype=wrong)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------ remembered


def test_rates_are_measured_once_and_remembered(rates):
    measured = rates(FAST)
    assert cost.remembered_rates() == cost.remembered_rates() == FAST
    assert len(measured) == 1
    file = cost.rates_file()
    assert json.loads(file.read_text()) == {cost.this_machine(): FAST}
    assert [path.name for path in file.parent.iterdir()] == ["rates.json"]


def test_another_machine_or_version_of_torch_is_measured_too(rates, monkeypatch):
    rates(FAST)
    cost.remembered_rates()
    here = cost.this_machine()
    assert torch.__version__ in here
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert cost.this_machine() != here
    rates(SLOW)
    assert cost.remembered_rates() == SLOW
    assert json.loads(cost.rates_file().read_text()) == {here: FAST, cost.this_machine(): SLOW}


DAMAGED = {
    "nothing": b"",
    "no JSON": b'{"a": ',
    "no text": b"\xff\xfe\x00",
    "too deep": b"[" * 100_000,
    "a list": b"[1, 2]",
    "no rates": b'{"HERE": 5}',
    "one rate": b'{"HERE": {"float32": 1e11}}',
    "words": b'{"HERE": {"float32": "fast", "bfloat16": "slow"}}',
    "zero": b'{"HERE": {"float32": 1e11, "bfloat16": 0}}',
    "no number": b'{"HERE": {"float32": NaN, "bfloat16": NaN}}',
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_written_anew(rates, kind):
    rates(FAST)
    file = cost.rates_file()
    file.parent.mkdir()
    file.write_bytes(DAMAGED[kind].replace(b"HERE", cost.this_machine().encode()))
    assert cost.remembered_rates() == FAST
    assert json.loads(file.read_text())[cost.this_machine()] == FAST


def test_a_file_that_cannot_be_written_stops_nothing(rates, monkeypatch):
    measured = rates(FAST)
    cost.rates_file().parent.write_text("a file where the folder should be")
    assert cost.remembered_rates() == FAST
    monkeypatch.setattr(cost, "rates_file", lambda: cost.Path(os.devnull) / "rates.json")
    assert cost.remembered_rates() == FAST
    assert len(measured) == 2


def test_where_the_file_is(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cost.rates_file() == tmp_path / "vqlearn" / "rates.json"
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    assert cost.rates_file().is_absolute() and cost.rates_file().parts[-2:] == ("vqlearn", "rates.json")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # nobody's home
    assert cost.rates_file().is_absolute()


def test_the_measurement_is_short_and_leaves_the_threads(monkeypatch):
    """A CPU whose products take long is measured with small ones; time passes here as that CPU would have it."""
    clock, sizes, threads = [0.0], [], torch.get_num_threads()
    speed = {torch.float32: 1e11, torch.bfloat16: 1e8}

    def product(device, dtype, size):
        assert torch.get_num_threads() == 1
        sizes.append(size)
        clock[0] += 12 * size**3 / speed[dtype]
        return speed[dtype]

    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(cost, "matmul_rate", product)
    assert cost.one_thread_rates(list(speed), 0.4) == [1e11, 1e8]
    assert clock[0] < 0.5 and max(sizes) == 128
    sizes.clear()
    speed[torch.bfloat16] = 8e11
    assert cost.one_thread_rates(list(speed), 0.4) == [1e11, 8e11]
    assert max(sizes) == 1024
    assert torch.get_num_threads() == threads


def test_a_real_measurement_finds_rates():
    found = cost.measured_rates()
    assert set(found) == {"float32", "bfloat16"} and min(found.values()) > 1e6


# ------------------------------------------------------------------------------------------ announced


def _announcement(dtype, seconds=60 * 61):
    """What is said of a run that takes 61 minutes at 0.7 of 1e11 operations per second."""
    network = VQDiffusionPipeline.from_pretrained(torch_dtype=dtype).transformer
    with pytest.warns(UserWarning) as caught:
        cost.announce(network, 100, round(0.7e11 * seconds / cost.work(network)))
    return str(caught[0].message)


@pytest.mark.parametrize(
    ("found", "dtype", "long", "advice"),
    [
        (FAST, "float32", "61 minutes", "a CUDA GPU, fewer steps or torch_dtype=torch.bfloat16 are faster"),
        (FAST, "bfloat16", "8 minutes", "a CUDA GPU or fewer steps are faster"),
        (SLOW, "float32", "61 minutes", "a CUDA GPU or fewer steps are faster"),
        (SLOW, "bfloat16", "5.1 hours", "a CUDA GPU, fewer steps or torch_dtype=torch.float32 are faster"),
        (ALIKE, "float32", "61 minutes", "a CUDA GPU or fewer steps are faster"),
    ],
)
def test_the_announced_cost_is_that_of_the_dtype_and_its_advice_is_right(rates, found, dtype, long, advice):
    rates(found)
    said = _announcement(dtype)
    assert said.startswith(f"in {dtype} this will take about {long} on this CPU (100 network evaluations of")
    assert said.endswith(f"; {advice}")


def test_a_short_run_is_not_announced(rates, shipped):
    rates(FAST)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cost.announce(shipped.transformer, 100, round(0.7e11 * 59 / cost.work(shipped.transformer)))


def test_the_work_is_that_of_the_matrix_products():
    """Counted by torch for a smaller network; what is left out are norms' tables, and a text's keys and values."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    network = Transformer2DModel(2, 8, 3, 8, 17, 8, 10).eval()
    tokens, text = torch.randint(17, (1, 64)), torch.randn(1, 1, 8)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        network(tokens, network.remember(text), torch.tensor(3))
    counted, text_and_times = counter.get_total_flops(), 3 * (2 * 2 * 8 * 16 + 2 * 2 * 16 * 32 + 4 * 64 * 16)
    assert cost.work(network) == counted - text_and_times


# ------------------------------------------------------------------------------------------ the command line


def test_doctor_and_info_tell_what_auto_is_and_why(rates, capsys):
    rates(FAST)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "of 100 M weights and more bfloat16 on cpu: a thread of this CPU multiplies matrices at 100 GFLOP/s" in shown
    assert str(cost.rates_file()) in shown
    assert main(["info"]) == 0
    assert re.search(r"auto dtype float32 on cpu: \d\.\d M weights are fewer than 100 M", capsys.readouterr().out)


def test_generate_takes_auto_for_a_large_model(rates, large, tmp_path, capsys):
    rates(FAST)
    call = ["generate", PROMPT, "--steps", "1", "--out", str(tmp_path / "x.png")]
    assert main(call) == 0
    assert "note: the weights are in bfloat16" in capsys.readouterr().err
    assert main([*call, "--dtype", "float32"]) == 0
    assert "note" not in capsys.readouterr().err


def test_evaluate_takes_auto_for_a_large_model(rates, large, capsys):
    rates(FAST)
    assert main(["evaluate", "--count", "2", "--steps", "1"]) == 0
    assert "note: the weights are in bfloat16" in capsys.readouterr().err
