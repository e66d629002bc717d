"""Data sets on disk as batches of tensors."""

from ss.datasets.examples import Example
from ss.datasets.loaders import Batch, EvaluationBatches, TrainingBatches, collate, loader
from ss.datasets.rendered import Rendered
from ss.datasets.triplets import Triplets, choose_kinds, find_triplets, make_filenames, read_speakers, scan, speaker_of
