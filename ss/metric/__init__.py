"""Metrics of extracted speech, one utterance at a time, and summaries that say what could not be computed and why.

A new one is a subclass of SingleMetric (`base.py`) that is imported here. A test computes those that `configs/groups/metrics.yaml`
names, and shows them in the order of `COLUMNS` (`summary.py`).
"""

from ss.metric.absence import STOIDrop, Suppression
from ss.metric.base import ACC, CannotCompute, Improvement, Metric, SingleMetric, UtteranceScores
from ss.metric.calls import DuringSpeech, Muted, PauseLevel, Settling, Unsettled
from ss.metric.composite import CompositeMetric
from ss.metric.perceptual import PESQ, STOI
from ss.metric.ratios import SDR, SISDR, SNR
from ss.metric.summary import COLUMNS, Average, Summary, Utterance, applies, columns, evaluate, evaluate_all, summarize
