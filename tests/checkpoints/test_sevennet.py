"""Options, element filter and refusals of the reader; its numbers are tested in tests/regression."""

from pathlib import Path

import pytest
import torch

from mlplugins.checkpoints import sevennet
from mlplugins.errors import BadInput

SMALL = Path(__file__).parents[1] / "regression" / "sevennet_0130_even.pth"


@pytest.fixture
def content():
    return torch.load(SMALL, weights_only=True)


@pytest.fixture
def changed(content, tmp_path):
    """`changed(option=value)` writes the checkpoint with other options."""

    def write(**options):
        torch.save({**content, "config": {**content["config"], **options}}, tmp_path / "c.pth")
        return tmp_path / "c.pth"

    return write


def test_description():
    checkpoint = sevennet.read(SMALL)
    assert checkpoint.family == "nequip"
    assert checkpoint.elements == ["H", "C", "O", "Na", "Cl", "Li", "P", "S"]
    assert checkpoint.details["hyperparameters"]["parity"] == "even"
    assert checkpoint.details["source"]["version"] == "0.13.0"
    assert len(checkpoint.details["source"]["sha256"]) == 64
    assert checkpoint.details["n_parameters"] == sum(p.numel() for p in checkpoint.potential.parameters())
    assert "10.1021/acs.jctc.4c00190" in checkpoint.references[1]
    assert not checkpoint.potential.training
    assert {p.dtype for p in checkpoint.potential.parameters()} == {torch.float64}


def test_reading_leaves_the_random_state_alone():
    torch.manual_seed(4)
    expected = torch.randn(3)
    torch.manual_seed(4)
    sevennet.read(SMALL)
    assert torch.equal(torch.randn(3), expected)


@pytest.mark.parametrize("stem", ["sevennet_0130_even", "sevennet_0130_parity"])
def test_element_filter_keeps_the_right_rows(stem):
    path = SMALL.with_name(f"{stem}.pth")
    whole, part = sevennet.read(path), sevennet.read(path, ["S", "Li"])
    rows = [whole.elements.index("S"), whole.elements.index("Li")]
    assert part.elements == ["S", "Li"]
    assert part.baseline == [whole.baseline[row] for row in rows]
    assert torch.equal(part.potential.embedding, whole.potential.embedding[rows])
    assert torch.equal(part.potential.energy_scale, whole.potential.energy_scale[rows])
    shortcuts = [c.potential.interactions[1].self_connection for c in (part, whole)]
    for mine, theirs in zip(shortcuts[0].weights, shortcuts[1].weights):
        assert torch.equal(mine, theirs[rows] if shortcuts[1].per_species else theirs)


@pytest.mark.parametrize(
    ("elements", "text"),
    [
        (["Xx"], "knows C Cl H Li"),
        (["Li", "Li"], "expected different symbols"),
        ([], "expected different symbols"),
    ],
)
def test_element_filter_refuses(elements, text):
    with pytest.raises(BadInput, match=text):
        sevennet.read(SMALL, elements)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"use_modality": True, "_modal_map": {"PBE": 0, "R2SCAN": 1}},
            "a model of several fidelities, .* name one of PBE, R2SCAN",
        ),
        ({"use_bias_in_linear": True}, "'use_bias_in_linear: True'"),
        ({"readout_as_fcn": True}, "'readout_as_fcn: True'"),
        ({"act_radial": "ssp"}, "'act_radial: 'ssp'' is not supported"),
        ({"act_gate": {"e": "ssp", "o": "tanh"}}, "'act_gate"),
        ({"interaction_type": "mace"}, "supported are SevenNet-0, l3i5 and models with bessel"),
        ({"_model_type": "new"}, "'_model_type: 'new''"),
        ({"version": "0.14.1"}, "written by sevenn 0.14.1; this mlplugins knows .* up to 0.13: upgrade"),
        ({"lmax_edge": 1}, "'lmax_edge: 1' differs from 'lmax: 2'"),
        ({"radial_basis": {"radial_basis_name": "gaussian"}}, "radial basis 'gaussian' with cutoff 'XPLOR'"),
        ({"cutoff_function": {"cutoff_function_name": "cosine"}}, "with cutoff 'cosine' is not supported"),
        ({"self_connection_type": "none"}, "self_connection_type 'none' is not supported"),
        ({"self_connection_type": ["linear", "nequip", "linear"]}, "differs between the layers"),
        ({"irreps_manual": ["8x0e", "8x0e+4x1e+3x2e", "4x0e+4x1e+3x2e", "8x0e"]}, "not supported"),
        ({"irreps_manual": ["4x0e", "8x0e+4x1e+3x2e", "8x0e+4x1e+3x2e", "8x0e"]}, "are not supported"),
        ({"irreps_manual": ["8x0e", "8x0e+4x1e", "8x0e+4x1e", "8x0e"]}, "degrees up to lmax = 2"),
        ({"lmax": 4, "irreps_manual": False, "channel": 8}, "'lmax: 4' is not supported"),
        ({"num_convolution_layer": 4}, "irreps .* are not supported"),
        ({"weight_nn_hidden_neurons": [16, 8]}, "layer0.weight' has shape"),
    ],
)
def test_unsupported_options_are_named(changed, options, text):
    with pytest.raises(BadInput, match=text):
        sevennet.read(changed(**options))


def test_foreign_coefficients_are_refused(content, tmp_path):
    name = "1_convolution.convolution._compiled_main_left_right._w3j_1_2_2"
    state = content["model_state_dict"]
    for replacement in (2 * state[name], state[name].flip(0)):
        torch.save({**content, "model_state_dict": {**state, name: replacement}}, tmp_path / "c.pth")
        with pytest.raises(BadInput, match="_w3j_1_2_2' is neither ours nor its opposite"):
            sevennet.read(tmp_path / "c.pth")
    torch.save(
        {**content, "model_state_dict": {k: v for k, v in state.items() if k != name}}, tmp_path / "c.pth"
    )
    with pytest.raises(BadInput, match=r"no Clebsch–Gordan coefficients for \(1, 2, 2\)"):
        sevennet.read(tmp_path / "c.pth")


def test_a_missing_weight_is_named(content, tmp_path):
    del content["model_state_dict"]["2_self_interaction_2.linear.weight"]
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(
        BadInput, match=r"no weight '2_self_interaction_2.linear.weight' \(written by sevenn 0.13.0\)"
    ):
        sevennet.read(tmp_path / "c.pth")


def test_other_files_are_not_recognised(tmp_path):
    torch.save({"model_state_dict": {}}, tmp_path / "c.pth")
    assert not sevennet.recognises(tmp_path / "c.pth")
    assert not sevennet.recognises(Path(__file__))
    assert sevennet.recognises(SMALL)
    with pytest.raises(BadInput, match="not a checkpoint of SevenNet"):
        sevennet.read(tmp_path / "c.pth")
