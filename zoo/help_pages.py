"""The help page of each command that has a long one."""

from __future__ import annotations

TRAIN_PAGE = """
usage: zoo train [experiment=NAME] [backbone=CARD|FILE] [adapter=METHOD|FILE] [data=SET|FILE] [key=value ...] [-m]

  zoo train experiment=quickstart                              SevenNet-0 + ELoRA on the embedded Cu-Au set
  zoo train backbone=sevennet-0 adapter=elora data=my.extxyz   your own frames
  zoo train experiment=acac adapter=full                       real DFT data, full fine-tuning
  zoo train -m experiment=acac adapter=elora,full training.seed=0,1,2      a sweep

groups   backbone, data (emt-cuau, file, or a name of: zoo data), training (default, elora_paper, sparse_paper,
         equiformer_v2_*), strategy (finetune, scratch), experiment (quickstart, acac, equiformer_v2_overfit, equiformer_v2_ethanol),
         adapter (ADAPTERS)
often    training.steps=200 training.batch_size=5 training.seed=0 training.optimizer.learning_rate=5e-3 training.ema_decay=0.99
         adapter.rank=16 adapter.roles=[linear,readout] data.n_train=50 data.n_valid=50 data.energy_key=energy data.forces_key=forces
         data.level_of_theory=PBE backbone.dtype=float64 backbone.device=cpu
large    data.cache=disk data.workers=2 training.batch_size=null training.max_atoms_per_batch=1000 (zoo cache shows what is kept)
base     backbone.head=PBE (of several), backbone.elements=data (MACE: cut to the elements of the data), backbone.trust_pickle=true
run      run.name=NAME (folder runs/NAME) run.resume=true (continue a killed run, to the same bits)
look     --cfg job prints the composed config without running

The run folder holds config.yaml, environment.json, log.txt, history.csv, adapter.safetensors, record.json, plots/, checkpoints/,
tensorboard/. Every key is checked; a misspelt one is refused with the nearest name.
"""
EVALUATE_PAGE = """
usage: zoo evaluate run=FOLDER | backbone=CARD | adapter=FILE  [data=SET|FILE] [split=PART] [key=value ...]

  zoo evaluate run=runs/acac-elora-r16
  zoo evaluate run=runs/acac-elora-r16 data=acac split=test_600K
  zoo evaluate backbone=sevennet-0 data=acac reference_energies=model record=zero-shot.json

data                the run's own when left out beside run=; a FILE is evaluated whole unless a split or sizes are given
split               train, valid or a test set; all test sets when left out
reference_energies  base (the model's own), model or least_squares (fitted on the data's training split: to the model's error, to the
                    labels), isolated_atoms or linear (the data set's tables)
task                labels, or relaxation: relax every frame and compare with its relaxed energy and structure (OC20 IS2RE, IS2RS);
                    relaxation.fmax_ev_per_angstrom=0.02 relaxation.max_steps=300 relaxation.output=FILE relaxation.single_points=FILE
metrics             protocol (those the data's protocol asks for, the default) or all
record              write the result of a base without adapter in the leaderboard's schema
"""
PREDICT_PAGE = """
usage: zoo predict run=FOLDER | backbone=CARD [adapter=FILE]  input=FILE output=FILE.extxyz [batch_size=16]
       zoo predict ... 'input={id: FILE, ood_ads: FILE, ood_cat: FILE, ood_both: FILE}' output=FILE.npz format=oc20_s2ef|oc20_is2re

Energies (eV), forces (eV/Å) and, for 3D-periodic structures, stress (eV/Å^3) of anything ASE reads.

format      extxyz, or the npz of the public OC20 leaderboard from OC20's four test splits: adsorption energies, and forces on free atoms
"""
EXPORT_PAGE = """
usage: zoo export RUN | run=FOLDER | backbone=CARD|FILE [adapter=FILE]  [format=native] [output=FILE]

  zoo export runs/acac-elora-r16
  zoo export runs/acac-elora-r16 --format native --output acac.pth
  zoo export backbone=sevennet-0 adapter=runs/quickstart/adapter.safetensors output=cu-au.pth

Base + adapter + reference energies as one file that the base's own package loads, without equizoo and in the run's precision.

native      SevenNet .pth (SevenNetCalculator, sevenn get_model), MACE .model (MACECalculator, mace_create_lammps_model),
            NequIP and Allegro .ckpt (nequip-compile, nequip-package), Nequix .nqx (NequixCalculator)
package     NequIP and Allegro .nequip.zip, made by nequip-package
output      exported.SUFFIX in the run's folder when left out; a file of that name is replaced
"""
CONVERT_PAGE = """
usage: zoo convert FILE.model [output=FILE.mace.safetensors] [trust_pickle=true]
       zoo convert FILE.pt backbone=CARD|FILE [alpha=1.0] [backbone.elements=[H,C,O]] [backbone.head=NAME] [output=FILE.safetensors]

A MACE .model (a pickle of the module, tied to the e3nn that wrote it) as configuration and safetensors, every number as it was; beside
the original where output is left out. zoo.load and backbone=FILE take both; a .model is converted into the cache when it is first loaded.
Nothing of the file is run; one that names packages no model needs is refused unless trust_pickle=true.

With backbone=, the base that it was trained on: LoRA of mace_run_train --lora, from a checkpoint of the training (alpha is its
--lora_alpha, which a checkpoint does not hold) or a pickled model with the wrappers in it, as an adapter file of the method lora-mace.
"""
CHECK_PAGE = """
usage: zoo check-equivariance [run=FOLDER | backbone=CARD [adapter=METHOD|FILE]] [input=FILE frames=4] [randomise=true] [seed=0]

Rotation, translation, periodic images, permutation, extensivity, batching, inversion (where the backbone claims O(3)) and
finite-difference forces and stress, in float64. An adapter is filled with random weights first (randomise=false keeps its own).
"""
ADAPTER_PAGE = """
usage: zoo adapter inspect FILE [--blocks]
       zoo adapter diff FILE FILE [--blocks]
       zoo adapter combine FILE FILE ... into=FILE [weights=0.7,0.3] [method=svd rank=8] [backbone=CARD|FILE]

  zoo adapter inspect runs/quickstart/adapter.safetensors
  zoo adapter inspect hf://owner/name
  zoo adapter diff runs/a/adapter.safetensors runs/b/adapter.safetensors --blocks
  zoo adapter combine runs/a/adapter.safetensors runs/b/adapter.safetensors weights=0.7,0.3 into=mixed.safetensors

inspect   method, base, data and training of an adapter, and by role and path how many numbers it has, the norm of its change of weights,
          its stable rank (squared Frobenius over squared spectral norm) and the share of weights it changes; no model is needed
diff      the settings in which two adapters differ, and how far apart their changes of weights are, whatever their methods
combine   one adapter whose change of weights is the sum of theirs, each times its weight (their mean without weights), with reference
          energies alike: elora of the ranks added up where all are elora, else a dense one; method=svd rank=R is the nearest elora of that
          rank. backbone is the base they are of, where the files name a checkpoint of your own
FILE      a path, file://, http:// or https:// address, or hf://owner/name[@revision][/file.safetensors] on Hugging Face, where HF_TOKEN
          opens private repositories; what is fetched over the network is kept in the cache and must stay the same
--blocks  one line a block
"""
SWEEP_PAGE = """
usage: zoo sweep KIND [values=[...]] [methods=[...]] [seeds=[...]] [key=value ... of zoo train]
       zoo sweep cuts runs=[FOLDER,...] cuts=[FILE,...] [coordinate=NAME]

  zoo sweep rank values=[2,4,8,16] experiment=acac backbone=sevennet-0
  zoo sweep lambda_tau seeds=[0] experiment=acac backbone=sevennet-0 training.steps=400 --dry-run
  zoo sweep convergence methods=[full,elora:rank=4,sparse:setting=linear] experiment=acac backbone=sevennet-0
  zoo sweep rank draw=true sweep.folder=sweeps/rank-sevennet-0-acac test_sets=[test_300K,test_600K] show=[forces,parameters]
  zoo sweep cuts 'runs=[sweeps/convergence-sevennet-0-acac/runs/*]' cuts=acac/test_dihedral coordinate=dihedral_angle

rank, lambda_tau, learning_rate, weight_decay, training_size     one run a value, method and seed; errors against the value
convergence     one run a method and seed; validation loss against steps
cuts            energies of finished runs along scans, against the reference; a file, or SET/TEST of a published set

methods         NAME or NAME:key=value:...; a key without a group is the adapter's. seeds=[0,1,2] unless given
sweep.folder    holds runs/, logs/, sweep.csv, sweep.png; sweeps/KIND-BASE-DATA. Finished runs are not run again, interrupted ones go on
jobs=N          runs at a time; dry_run=true prints the commands; draw=true draws again from the table
show            panels: loss, energy, forces, sparsity, parameters, forces_against_sparsity
test_sets, energy_metric, force_metric      which errors are drawn
"""
ANALYSE_PAGE = """
usage: zoo analyse RUN [out=FOLDER]
       zoo analyse FILE [backbone=CARD|FILE] [out=FOLDER]

  zoo analyse runs/quickstart
  zoo analyse runs/quickstart/adapter.safetensors backbone=sevennet-0 out=results

What fine-tuning did to the base's weights, as a CSV and a PNG each in RUN/analysis: coverage (which weights are adapted), r2_species and
r2_paths (1 - R^2 of weights before and after, by channel and element or path), stable_rank, singular_values, irreps (norms by irrep) and
sparsity (zeros by parameter). docs/analysis.md explains every column. No data are needed; the base has to be at hand.

FILE      an adapter file or its address (zoo adapter --help); its base is the card that it names, or backbone=
out       the folder to write; an earlier analysis there is replaced
"""
DOCTOR_PAGE = """
usage: zoo doctor [backbone=CARD|FILE] [adapter=METHOD|FILE] [data=SET|FILE] [key=value ...] [json=FILE] [html=FILE] [--json]

  zoo doctor backbone=sevennet-0 data=my.extxyz                everything that would go wrong in silence, before training
  zoo doctor experiment=acac html=acac.html                    with histograms
  zoo doctor data=my.extxyz only=[labels,forces] --json        some checks, for a script

words    those of zoo train; nothing is trained, and nothing written but what is asked for
looks at labels and keys, units, zero and precision of energies, forces and stress against energies and against the base, structures in
         several parts, elements, neighbours, outliers, level of theory, heads, step 0, time and memory (docs/doctor.md)
sample   sample=24: how many frames the base predicts
frames   frames=20000: how many of each part are looked at closely, evenly spaced, or frames=all; missing labels, unknown elements,
         outliers, repeats and leakage are looked for in every frame
only     only=[NAME,...]: names of checks, or of families of them
strict   strict=true: warnings make it fail as errors do
exit     0 without errors; 1 where one was found, or the words are wrong (one line on standard error); 2 for a bug
"""
CACHE_PAGE = """
usage: zoo cache
       zoo cache remove NAME ... | unused=DAYS | all

What lies in the cache (ZOO_CACHE): copies of frames and edges of large data sets, each with its size and the days since it was last
used, and how much downloads, weights and the rest take.

remove    delete copies of frames and edges: those named, those unused for so many days, or all; the next start that wants one makes it
          again. What a process is building or has open stays. Downloads and weights are left alone: delete their folders by hand
"""
SUBMIT_PAGE = """
usage: zoo submit RUN author=NAME licence=LICENCE [output=FILE.zip] [frames=16|all|0] [equivariance=true] [reproduced=true] [device=cpu]

  zoo submit runs/acac-elora-r16 author='A. Person' licence=CC-BY-4.0
  zoo submit runs/acac-elora-r16 author='A. Person' licence=MIT output=acac.zip frames=all

One archive for the leaderboard (record, config, adapter, predictions of all test frames), verified here as the board verifies it, and the
record beside it. A run on a file of your own cannot be entered: its labels could not be had elsewhere.

author        who the board names
licence       of record and adapter: CC0-1.0, CC-BY-4.0, CC-BY-SA-4.0, MIT, Apache-2.0, BSD-3-Clause, or that of the base
output        submission.zip in the run's folder when left out
frames        test frames of each set whose predictions are computed again from base + adapter, all, or 0 to leave the base alone
equivariance  true to state the residuals of every symmetry and derivative, which the verifier computes again
reproduced    true for a run of the board's own
device        to compute on: cpu, cuda, or auto for a GPU where there is one
"""
VERIFY_PAGE = """
usage: zoo verify FILE.zip [frames=16|all|0] [salt=WORD] [device=cpu]

  zoo verify submission.zip
  zoo verify submission.zip frames=all

Whether a submission is what it says: labels from the data set's own files, metrics from its predictions, predictions from base + adapter.
Nothing from the archive is run. One line for every reason to refuse it; the exit status is 1 then.

frames      test frames of each set whose predictions are computed again, all, or 0 to leave the base alone
salt        joined to the archive's hash, from which those frames are drawn
device      to compute on: cpu, cuda, or auto for a GPU where there is one
"""
REPRODUCE_PAGE = """
usage: zoo reproduce RECORD.json [name=FOLDER] [device=auto] [tolerance=0.05]

  zoo reproduce leaderboard/records/reproduced/sevennet-0.elora.acac.s0-....json

Trains (or, of a base without adapter, evaluates) as the record says, in runs/NAME, and compares every error with the record's. On the same
kind of machine with the same versions the numbers are equal to the bit. A record may come from anywhere: it can name cards and published
sets, and nothing else is read or run because of it. The exit status is 1 where an error is further away than the tolerance.

name       of the folder in runs/; the record's id when left out. A stopped run goes on
tolerance  largest difference of an error, relative to the record's
"""
