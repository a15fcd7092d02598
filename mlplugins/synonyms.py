"""What other packages call the keys of our configurations, for the hints in error messages.

Names as in MACE (`mace_run_train`), NequIP (0.6 and later), SevenNet and DeePMD-kit. A hint names our key; it
never takes a value over, because meanings and units of the same word differ between packages.
"""

from __future__ import annotations

from collections.abc import Collection

_FOREIGN: dict[str, str] = {
    "model.cutoff": "r_max rcut cutoff_radius r_cut rcutoff",
    "model.l_max": "max_ell lmax",
    "model.num_layers": "num_interactions num_convolution_layer n_layers",
    "model.num_interactions": "num_layers num_convolution_layer n_layers",
    "model.num_features": "num_channels channel channels hidden_irreps feature_irreps_hidden",
    "model.num_channels": "num_features channel channels hidden_irreps",
    "model.num_basis": "num_radial_basis num_bessels bessel_basis_num radial_basis",
    "model.envelope_power": "num_cutoff_basis polynomialcutoff_p polynomial_cutoff_p poly_cut_p_value",
    "model.xplor_onset": "cutoff_on",
    "model.radial_mlp": "invariant_neurons invariant_layers radial_mlp_depth radial_mlp_width "
    "weight_nn_hidden_neurons",
    "model.readout_mlp": "mlp_irreps conv_to_output_hidden_irreps_out",
    "model.parity": "is_parity",
    "model.self_connection": "self_connection_type use_sc",
    "model.zbl": "pair_repulsion pair_potential",
    "model.family": "model_type model_builders architecture",
    "data.train": "train_file dataset_file_name load_trainset_path load_dataset_path training_data "
    "train_file_path training_set",
    "data.validation": "valid_file valid_fraction validation_dataset_file_name load_validset_path n_val "
    "data_divide_ratio validation_data val_file_path valid val",
    "data.test": "test_file test_file_path load_testset_path n_test",
    "data.elements": "chemical_symbols chemical_species type_map type_names model_type_names atomic_numbers "
    "species",
    "data.baseline": "e0s atomic_energies per_type_energy_shifts per_species_rescale_shifts shift atom_ener "
    "isolated_atom_energies",
    "data.keys": "key_mapping key_specification",
    "data.keys.energy": "energy_key",
    "data.keys.forces": "forces_key force_key force",
    "data.keys.stress": "stress_key",
    "data.keys.virial": "virials_key virial_key virials",
    "training.epochs": "max_num_epochs max_epochs epoch num_epochs n_epochs",
    "training.lr": "learning_rate start_lr",
    "training.batch_size": "batchsize train_batch_size",
    "training.loss": "loss_coeffs loss_weights",
    "training.loss.energy": "energy_weight start_pref_e total_energy energy_loss_weight",
    "training.loss.forces": "forces_weight force_weight start_pref_f force_loss_weight force",
    "training.loss.stress": "stress_weight virials_weight start_pref_v stress_loss_weight virial virials",
    "training.loss.huber": "huber_delta",
    "training.optimizer": "optimizer_name",
    "training.weight_decay": "optimizer_weight_decay",
    "training.schedule": "scheduler lr_scheduler lr_scheduler_name",
    "training.schedule.factor": "lr_factor lr_scheduler_factor",
    "training.schedule.patience": "scheduler_patience lr_scheduler_patience",
    "training.ema": "ema_decay use_ema",
    "training.gradient_clip": "clip_grad max_gradient_norm gradient_clip_val",
    "training.early_stopping": "patience early_stopping_patiences",
    "training.validate_every": "eval_interval check_val_every_n_epoch",
    "training.max_minutes": "max_time",
    "training.dtype": "default_dtype model_dtype precision",
    "training.accelerator": "device",
    "seed": "random_seed dataset_seed",
    "base.checkpoint": "foundation_model checkpoint base_model pretrained",
    "base.head": "foundation_head",
    "model": "potential pair_style checkpoint model_file",
    "structure": "atoms positions geometry initial_structure start",
    "temperatures": "temperature t temp",
    "steps": "nsteps n_steps num_steps run production",
    "timestep": "dt time_step step_size",
    "seeds": "seed random_seed",
    "dump_interval": "dump_every dump_freq interval write_every save_interval",
    "log_interval": "thermo log_every",
    "thermostat": "ensemble_thermostat",
    "thermostat.time_constant": "tau taut damping tdamp",
    "barostat.time_constant": "taup pdamp",
    "temperature": "t temp temperatures",
    "species": "ion mobile element carrier",
    "charge": "z valence",
    "discard_ps": "equilibration discard skip",
    "files": "file trajectory trajectories",
}

_OURS: dict[str, list[str]] = {}
for _ours, _names in _FOREIGN.items():
    for _name in [*_names.split(), _ours.rpartition(".")[2].lower()]:  # our own in a wrong section, too
        _OURS.setdefault(_name, []).append(_ours)


def here(key: str, section: Collection[str], root: Collection[str] = ()) -> str:
    """Our key for one of another package; empty if there is none in this configuration.

    Args:
        key: what the user wrote.
        section: the valid keys where it was written.
        root: the valid keys at the top of the configuration.

    >>> here("r_max", ["cutoff", "l_max"])
    'cutoff'
    >>> here("forces_weight", ["epochs", "lr", "loss"], ["data", "model", "training"])
    'training.loss.forces'
    >>> here("r_max", ["temperatures"], ["model", "temperatures"])
    ''
    """
    found = _OURS.get(key.lower(), [])
    for ours in found:
        if ours.rpartition(".")[2] in section:
            return ours.rpartition(".")[2]
    # `model` is a section of a training, but a file of a campaign
    sections = root if "data" in root else [name for name in root if name != "model"]
    return next((ours for ours in found if ours.partition(".")[0] in sections), "")
